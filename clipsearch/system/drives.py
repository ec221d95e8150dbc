"""Identification of the file system that a folder is on, and detection of mount points."""

from __future__ import annotations

import os

from clipsearch.system.addresses import is_address

_CERTAIN = "id:"
_NO_DEVICE = -1


def drive_at(folder: bytes) -> str | None:
    """Return an identifier of the file system that `folder` is on; None if there is no such folder.

    Some file systems (ext4, btrfs, tmpfs, ...) have an id of their own. For others (FAT, XFS, all on Windows) it is the
    number of the device, which another drive in the same slot gets as well: see `is_certain`.
    """
    try:
        device = os.stat(folder).st_dev
        number = os.statvfs(folder).f_fsid if hasattr(os, "statvfs") else 0
    except OSError:
        return None
    return f"device:{device}" if number in (0, device) else f"{_CERTAIN}{number:x}"


def is_certain(drive: str | None) -> bool:
    """Return whether an identifier of `drive_at` belongs to one file system only."""
    return drive is not None and drive.startswith(_CERTAIN)


def is_mounted_at(folder: bytes) -> bool:
    """Return whether `folder` is a folder on another device than its parent."""
    if is_address(folder):
        return False
    try:
        return os.path.isdir(folder) and os.stat(folder).st_dev != os.stat(os.path.dirname(folder)).st_dev
    except OSError:
        return False


def device_of(path: bytes) -> int | None:
    """Return the device that a file or folder is on, for an address always the same; None if it does not exist."""
    if is_address(path):
        return _NO_DEVICE
    try:
        return os.stat(path).st_dev
    except OSError:
        return None
