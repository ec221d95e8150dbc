"""What files are by their first bytes, if their names do not say it. Of objects in stores, many are read at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import islice

from clipsearch.errors import StoreError, UnreadableImageError
from clipsearch.images.codecs.optional_packages import needed_extra
from clipsearch.images.codecs.signatures import HEAD, image_ending
from clipsearch.images.files import GoneError, ImageFile
from clipsearch.images.other_files import sort_of
from clipsearch.images.reading import first_bytes
from clipsearch.system.parallel import map_in_order

_TOGETHER = 1000
"""Number of files of a store that are looked through together."""


def look(file: ImageFile) -> str | None:
    """Read the first bytes of a file. Return None if they are those of an image, else the kind as which it is left out.

    Raises:
        OSError: it cannot be opened.
        UnreadableImageError: it cannot be asked for, or lies in a store and cannot be had now.
        StoreError: the store does not answer any more.
    """
    if file.problem is not None:
        raise UnreadableImageError(file.problem)
    kind = sort_of(os.path.basename(file.path))[1]
    try:
        ending = image_ending(first_bytes(file.path, HEAD), file.size)
    except GoneError as error:
        raise StoreError(f"{os.fsdecode(file.path)}: {error}.") from error
    if ending is None:
        return kind
    return ending if needed_extra(ending) else None


class Looking:
    """A look at files in the order of a search."""

    def __init__(self) -> None:
        self._seen: dict[bytes, str | Exception | None] = {}
        """What is known of files that `ahead` has yielded, or will yield soon."""

    def ahead(self, files: Iterator[ImageFile], wanted: Callable[[ImageFile], bool]) -> Iterator[ImageFile]:
        """Yield files of a store, after a look at those whose names do not say what they are and that are `wanted`."""
        while together := list(islice(files, _TOGETHER)):
            doubtful = [file for file in together if not file.by_name and file.size >= 0 and wanted(file)]
            if doubtful:
                from clipsearch.images.requesting import AT_ONCE, abandon  # which folders do not need

                with closing(map_in_order(_seen, doubtful, AT_ONCE, 4 * AT_ONCE, abandon=abandon)) as kinds:
                    self._seen = {file.path: kind for file, kind in zip(doubtful, kinds, strict=True)}
            yield from together

    def kind(self, file: ImageFile) -> str | None:
        """Return what `look` does, with its errors."""
        if file.path not in self._seen:
            return look(file)
        seen = self._seen.pop(file.path)
        if isinstance(seen, Exception):
            raise seen
        return seen


def _seen(file: ImageFile) -> str | Exception | None:
    try:
        return look(file)
    except (OSError, UnreadableImageError) as error:
        return error
