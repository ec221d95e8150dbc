"""How large a picture may be on this machine, and that large ones are decoded one at a time."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from PIL import Image

from clipsearch.errors import UnreadableImageError

_BYTES_PER_PIXEL = 20
"""That decoding takes; measured were 8 for a JPEG, 20 for a WebP with transparency, 25 for such a JPEG 2000."""
_SHARE_OF_MEMORY = 4
"""One picture may take a quarter of it."""
_MEMORY_IF_UNKNOWN = 8 << 30
_LARGE = 8
"""Pictures with more than an eighth of the pixels allowed take turns."""
_turn = threading.Lock()
_pillow_limit = threading.Lock()


@functools.cache
def default_max_pixels() -> int:
    """The pixels of the largest picture that fits this machine: decoding it takes a quarter of the memory at most."""
    return _memory() // _SHARE_OF_MEMORY // _BYTES_PER_PIXEL


def _memory(root: Path = Path("/")) -> int:
    """Bytes of memory in this machine, or in its container if that is less."""
    found = list(_control_group_limits(root))
    with contextlib.suppress(AttributeError, ValueError, OSError):  # Windows has no sysconf
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min((size for size in found if size > 0), default=_MEMORY_IF_UNKNOWN)


def _control_group_limits(root: Path) -> Iterator[int]:
    """The memory limits (Linux) of this process's control group and those around it, in versions 1 and 2."""
    try:
        lines = (root / "proc/self/cgroup").read_text("utf-8", "replace").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if not controllers:
            top, name = root / "sys/fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):
            top, name = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        own = PurePosixPath(group.lstrip("/"))
        for folder in (own, *own.parents):
            with contextlib.suppress(OSError, ValueError):  # outside of our view, or "max"
                yield int((top / folder / name).read_text("utf-8"))


def check_size(width: int, height: int, limit: int) -> None:
    """Refuse a picture of too many pixels.

    Raises:
        UnreadableImageError: it has more than `limit`.
    """
    if width * height > limit:
        raise UnreadableImageError(f"too large: {width} x {height} pixels, {more_than(limit)}")


def more_than(limit: int) -> str:
    """The reason, in words that name the way out."""
    millions = limit / 1_000_000
    number = f"{millions:g}" if millions < 1 else f"{millions:,.0f}"
    return f"more than the limit of {number} million (--max-pixels)"


def raise_pillow_limit(limit: int) -> None:
    """Pillow has one limit of its own for the whole process: it must not be below ours."""
    with _pillow_limit:
        if Image.MAX_IMAGE_PIXELS is not None and limit > Image.MAX_IMAGE_PIXELS:
            Image.MAX_IMAGE_PIXELS = limit


@contextlib.contextmanager
def in_turn(pixels: int, limit: int) -> Iterator[None]:
    """Of several threads, only one at a time decodes a large picture."""
    if pixels <= limit // _LARGE:
        yield
        return
    with _turn:
        yield
