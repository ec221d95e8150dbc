"""Files that a user names for an output: written whole or not at all, and nothing is replaced but an earlier output."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from clipsearch.errors import InputError
from clipsearch.output.paths import printable
from clipsearch.system.flushing import sync, sync_folder

_MARK_WITHIN = 512
"""Bytes from the beginning in which the mark stands."""


class Kind(NamedTuple):
    """A kind of output."""

    name: str
    """What a user would call it: page."""
    mark: bytes
    """By this a file is known as one of ours; it stands near its beginning."""


def check_replaceable(path: Path, kind: Kind) -> None:
    """Make sure that an output may be written to `path`, as far as that can be told beforehand.

    Raises:
        InputError: there is something else than an earlier output of this kind, or its folder is not there.
    """
    name = printable(os.fsencode(path))
    if name == "-":
        raise InputError(f"The {kind.name} does not go to standard output (-), which is for results. Name a file.")
    try:
        mode = os.stat(path).st_mode
        ours = stat.S_ISREG(mode) and _is_ours(path, kind)
    except FileNotFoundError as error:
        if not os.path.isdir(path.parent):
            folder = printable(os.fsencode(path.parent))
            raise InputError(f"There is no folder {folder} for the {kind.name}. Make it first.") from error
        return
    except OSError as error:
        raise _unwritable(path, kind, error) from error
    if stat.S_ISDIR(mode):
        raise InputError(f"{name} is a folder. Name a file in it for the {kind.name}.")
    if not ours:
        raise InputError(
            f"{name} exists and is no {kind.name} of clipsearch, so it stays as it is. Remove it first, or name "
            "another file."
        )


@contextlib.contextmanager
def replacing(path: Path, kind: Kind) -> Iterator[BinaryIO]:
    """Within: a file to write the output to; it appears as `path` when it is complete.

    Raises:
        InputError: as for `check_replaceable`, or it cannot be written.
    """
    path = Path(os.path.realpath(path))  # through a link, as other programs write
    check_replaceable(path, kind)
    temporary = path.with_name(f".clipsearch-{secrets.token_hex(8)}.part")
    try:
        try:
            with open(temporary, "xb") as file:
                yield file
                file.flush()
                sync(file.fileno())  # a power cut must not leave neither the earlier one nor this
            check_replaceable(path, kind)  # making it may have taken a while
            os.replace(temporary, path)
            sync_folder(path.parent)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
    except OSError as error:
        raise _unwritable(path, kind, error) from error


def _is_ours(path: Path, kind: Kind) -> bool:
    with open(path, "rb") as file:
        return kind.mark in file.read(_MARK_WITHIN)


def _unwritable(path: Path, kind: Kind, error: OSError) -> InputError:
    name = printable(os.fsencode(path))
    return InputError(f"The {kind.name} cannot be written to {name}: {error.strerror or error}. Name another file.")
