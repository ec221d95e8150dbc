"""Absolute paths as bytes, the way records and searches carry them: names need not be UTF-8. Touches no file."""

from __future__ import annotations

import os
from pathlib import Path


def absolute(path: Path) -> bytes:
    """`path` from the top, without `..`, as bytes."""
    return os.fsencode(os.path.abspath(path))


def is_below(path: bytes, folder: bytes) -> bool:
    """Whether `path` is `folder` or lies in it (both absolute)."""
    return path == folder or path.startswith(inside(folder))


def inside(folder: bytes) -> bytes:
    """What every path in `folder` begins with."""
    return folder.rstrip(b"/") + b"/"
