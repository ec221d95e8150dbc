"""Flushing of files and folders to the disk, so that they survive a power cut.

A file system may write a new name before its content, and after a power cut the file is then empty or all zeros. So the
content is flushed first, then it gets its name, and then the folder is flushed.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

if sys.platform == "darwin":
    import fcntl


def sync(descriptor: int) -> None:
    """Wait until an open file or folder is on the disk."""
    if sys.platform == "darwin":  # fsync of macOS leaves data in the cache of the drive
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fsync(descriptor)


def sync_folder(folder: Path | bytes) -> None:
    """Wait until the names of new and renamed files in a folder are on the disk."""
    if sys.platform == "win32":
        return  # Windows has no such call; its file system keeps a journal of names
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Wait until a file that other code wrote is on the disk."""
    with path.open("r+b") as file:  # Windows flushes only what may be written
        sync(file.fileno())


def replace_flushed(path: Path, content: bytes) -> None:
    """Write a small file atomically, replacing an earlier one.

    Raises:
        OSError: the folder cannot be written.
    """
    new = path.with_name(f".{path.name}.{os.urandom(8).hex()}")
    try:
        with new.open("xb") as file:
            file.write(content)
            file.flush()
            sync(file.fileno())
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
