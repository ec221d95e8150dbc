"""Waiting until something is on the disk itself, so that a power cut does not take it."""

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
