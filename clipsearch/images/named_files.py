"""Files that a user named one by one, as their place describes them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import groupby

from clipsearch.errors import UnreadableImageError
from clipsearch.images.files import ImageFile
from clipsearch.images.sources import source_of
from clipsearch.system.addresses import is_address
from clipsearch.system.parallel import map_in_order

MISSING = "it is missing"
"""How the problem of a file begins that does not exist."""


def named_file(path: bytes) -> ImageFile:
    """Describe the file at the absolute `path`, and the problem if it is missing, no file, or cannot be had now."""
    try:
        if (source := source_of(path)) is not None:
            where = "" if is_address(path) else " in its archive"
            return source.file(path) or ImageFile(path, 0, 0, MISSING + where)
        status = os.stat(path)
    except UnreadableImageError as error:
        return ImageFile(path, 0, 0, str(error))
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a NUL in the name
        return ImageFile(path, 0, 0, MISSING)
    except OSError as error:
        return ImageFile(path, 0, 0, str(error.strerror))
    return ImageFile.of(path, status, None if stat.S_ISREG(status.st_mode) else "it is no file")


def named_files(paths: Iterable[bytes]) -> Iterator[ImageFile]:
    """Describe files as `named_file`, in their order. Of addresses, many are asked for at a time."""
    for in_stores, group in groupby(paths, is_address):
        if not in_stores:
            yield from map(named_file, group)
            continue
        from clipsearch.images.requesting import AT_ONCE, abandon  # which folders do not need

        with closing(map_in_order(named_file, group, AT_ONCE, 4 * AT_ONCE, abandon=abandon)) as files:
            yield from files
