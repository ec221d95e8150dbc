"""Image files in folders: what is there, as the file system describes it. Opens no file."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from clipsearch.errors import InputError
from clipsearch.paths import absolute

EXTENSIONS = frozenset({".avif", ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
"""Files with these endings (in any case) are taken for images when a folder is searched."""


@dataclass(frozen=True)
class ImageFile:
    """An image file as the file system describes it."""

    path: bytes
    """Absolute, as `os.fsencode` gives it: names need not be UTF-8."""
    size: int
    """Bytes."""
    mtime_ns: int


def find_images(root: Path) -> Iterator[ImageFile]:
    """All image files under `root` (or `root` itself if it is a file), sorted by path within each folder.

    Hidden files and folders are left out, and so are links to folders (they could lead in circles).

    Raises:
        InputError: `root` does not exist or cannot be read.
    """
    path = absolute(root)
    try:
        status = root.stat()
    except FileNotFoundError as error:
        raise InputError(f"No such file or folder: {root}") from error
    except OSError as error:
        raise InputError(f"Cannot read {root}: {error.strerror}") from error
    if stat.S_ISDIR(status.st_mode):
        yield from _walk(_listing(path))
    else:
        yield _describe(path, status)


def _listing(folder: bytes) -> list[os.DirEntry[bytes]]:
    try:
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if not entry.name.startswith(b".")), key=lambda e: e.name)
    except OSError as error:
        raise InputError(f"Cannot read the folder {os.fsdecode(folder)}: {error.strerror}") from error


def _walk(entries: list[os.DirEntry[bytes]]) -> Iterator[ImageFile]:
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(_listing(entry.path))
        elif os.path.splitext(os.fsdecode(entry.name))[1].lower() in EXTENSIONS:
            try:
                status = entry.stat()
            except OSError:
                continue  # a dangling link, or gone since the folder was listed
            if stat.S_ISREG(status.st_mode):
                yield _describe(entry.path, status)


def _describe(path: bytes, status: os.stat_result) -> ImageFile:
    return ImageFile(path, status.st_size, status.st_mtime_ns)
