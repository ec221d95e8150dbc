"""Atomic writing of the output files that a user names; only an earlier output of the same kind is replaced."""

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
"""First bytes of a file in which the mark is searched for."""


class Kind(NamedTuple):
    """A kind of output."""

    name: str
    """Name for users, such as "page"."""
    mark: bytes
    """Bytes near the beginning that mark a file as an output of this kind."""


def check_replaceable(path: Path, kind: Kind) -> None:
    """Check, before any work, that an output may be written to `path`.

    Raises:
        InputError: `path` is something else than an earlier output of this kind, or its folder does not exist.
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
    """Yield a temporary file for the output; it becomes `path` at the end of the block.

    Raises:
        InputError: as for `check_replaceable`, or the file cannot be written.
    """
    path = Path(os.path.realpath(path))  # through a link, as other programs write
    check_replaceable(path, kind)
    temporary = path.with_name(f".clipsearch-{secrets.token_hex(8)}.part")
    try:
        try:
            with open(temporary, "xb") as file:
                yield file
                file.flush()
                sync(file.fileno())  # after a power cut, either the earlier output or this one must exist
            check_replaceable(path, kind)  # again, since making it may have taken a while
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
