"""Which file system a folder is on, and whether one is mounted there, as far as the system tells."""

from __future__ import annotations

import os

_CERTAIN = "id:"


def drive_at(folder: bytes) -> str | None:
    """What is to be known again of the file system that `folder` is on; None if there is no such folder.

    Some (ext4, btrfs, tmpfs, ...) have an id of their own. Of others (FAT, XFS, all on Windows) there is the device's
    number only, which the next drive in the same slot gets as well: see `is_certain`.
    """
    try:
        device = os.stat(folder).st_dev
        number = os.statvfs(folder).f_fsid if hasattr(os, "statvfs") else 0
    except OSError:
        return None
    return f"device:{device}" if number in (0, device) else f"{_CERTAIN}{number:x}"


def is_certain(drive: str | None) -> bool:
    """Whether no other file system is called so."""
    return drive is not None and drive.startswith(_CERTAIN)


def is_mounted_at(folder: bytes) -> bool:
    """Whether `folder` is one, and on another device than the folder above it."""
    try:
        return os.path.isdir(folder) and os.stat(folder).st_dev != os.stat(os.path.dirname(folder)).st_dev
    except OSError:
        return False
