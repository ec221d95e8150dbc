"""Entries of folders, and what they are."""

from __future__ import annotations

import os
import stat

_KINDS = ((stat.S_ISFIFO, "a FIFO"), (stat.S_ISSOCK, "a socket"), (stat.S_ISDIR, "a folder"))
Identity = tuple[int, int]
"""Device and inode."""


def entries_of(folder: bytes) -> list[os.DirEntry[bytes]]:
    """List a folder."""
    with os.scandir(folder) as entries:
        return list(entries)


def leads_to_folder(link: os.DirEntry[bytes]) -> bool:
    """Whether a link leads to a folder."""
    try:
        return link.is_dir()
    except OSError:  # it leads to itself, say
        return False


def is_file(entry: os.DirEntry[bytes]) -> bool:
    """Whether an entry, or what it leads to, is a regular file."""
    try:
        return entry.is_file()
    except OSError:
        return False


def kind_of(mode: int) -> str:
    """Return what something is that is no regular file."""
    return next((name for test, name in _KINDS if test(mode)), "a device")


def identity_of(status: os.stat_result) -> Identity:
    """Return what tells one file or folder from all others."""
    return status.st_dev, status.st_ino
