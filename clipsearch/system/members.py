"""Paths of files in archives: `shards/00012.tar!/000001.jpg` is the member `000001.jpg` of the archive `00012.tar`.

`!` alone marks the inside of an archive: `shards/00012.tar!` is the folder that all of its members lie in. A path means
a member only if the part before `!` is a file with the name of an archive and nothing on the disk has the name with
`!`; so a file or folder whose name contains `!` is always what it is on the disk.
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from clipsearch.system.addresses import LIST_MARK, is_address, is_list, is_web

ENDINGS = (".cbz", ".tar", ".zip")
"""Extensions of the archives that are read, in any case."""
MARK = b"!"
_NAME = re.compile(rb"[^/]\.(?:tar|zip|cbz)\Z", re.IGNORECASE)
_BORDER = re.compile(rb"(?<=[^/]\.(?:tar|zip|cbz))!(?=/|\Z)", re.IGNORECASE)


class Inside(NamedTuple):
    """A place in an archive."""

    archive: bytes
    """The absolute path of the archive file."""
    name: bytes
    """The path in the archive of a member or folder; empty for the archive as a whole."""


def is_archive_name(name: bytes) -> bool:
    """Return whether a path has the extension of an archive."""
    return _NAME.search(name) is not None


def within(path: bytes) -> Inside | None:
    """Return the place in an archive that an absolute path means, by what is on the disk; None for any other path."""
    if MARK not in path or is_address(path):
        return None
    for border in _BORDER.finditer(path):
        archive = path[: border.start()]
        if os.path.isfile(archive) and not os.path.lexists(archive + MARK):
            return Inside(archive, path[border.end() + 1 :])
    return None


def elsewhere(path: bytes) -> str | None:
    """Return where a file lies that is none of the disk's own, in words; None if it is one."""
    return "at an address" if is_address(path) else None if within(path) is None else "in an archive"


def opened(path: bytes) -> bytes:
    """Return the path of the inside of an archive file or list of addresses, and any other absolute path as it is."""
    if is_address(path):
        return path + LIST_MARK if is_list(path) else path
    return path + MARK if is_archive_name(path) and within(path + MARK) is not None else path


def file_of(path: bytes) -> bytes:
    """Return the archive file for the path of its inside, and any other absolute path as it is."""
    return on_disk(path) if path.endswith(MARK) else path


def on_disk(path: bytes) -> bytes:
    """Return the archive file that a path leads into, also if that is gone; any other path as it is.

    Only the form of the path is looked at, unless it exists itself.
    """
    if MARK in path and is_address(path):
        return path.partition(LIST_MARK)[0] if is_web(path) else path
    border = _BORDER.search(path) if MARK in path else None
    return path if border is None or os.path.lexists(path) else path[: border.start()]
