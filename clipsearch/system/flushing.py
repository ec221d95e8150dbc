"""Waiting until something is on the disk itself, so that a power cut does not take it.

A file system may write a new name before the content behind it, and after a power cut the name then stands for nothing
or for zeros. So the content is flushed first, then it gets its name, and then the folder is flushed.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

if sys.platform == "darwin":
    import fcntl


def sync(descriptor: int) -> None:
    """Wait until a file, or a folder's list of names, is on the disk itself."""
    if sys.platform == "darwin":  # its fsync leaves data in the drive's own memory
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fsync(descriptor)


def sync_folder(folder: Path | bytes) -> None:
    """Wait until new and renamed files of a folder are on the disk under these names."""
    if sys.platform == "win32":
        return  # Windows has no such call; its file system keeps a journal of names
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Wait until a file that somebody else wrote is on the disk itself."""
    with path.open("r+b") as file:  # Windows flushes only what may be written
        sync(file.fileno())


def replace_flushed(path: Path, content: bytes) -> None:
    """Put a small file in the place of another, whole or not at all.

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
