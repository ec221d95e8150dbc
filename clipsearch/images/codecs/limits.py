"""Limits of image and file size by this machine's memory, and of how many images are decoded at the same time."""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from clipsearch.errors import UnreadableImageError

_BYTES_PER_PIXEL = 20
"""Memory for decoding. Measured: 8 for a JPEG, 20 for a WebP and 25 for a JPEG 2000, both with transparency."""
_SHARE_OF_MEMORY = 4
"""One image may take a quarter of the memory."""
_MEMORY_IF_UNKNOWN = 8 << 30
_BYTES_PER_PIXEL_IN_FILE = 16
"""Most bytes that a file needs for a pixel: four floats in an uncompressed TIFF."""
_BYTES_BESIDE = 256 << 20
"""Bytes allowed for the rest of a file: profiles, previews, other pages and frames."""
_pillow_limit = threading.Lock()


@functools.cache
def default_max_pixels() -> int:
    """Pixels of the largest image that may be decoded by default: decoding it takes a quarter of the memory."""
    return _memory() // _SHARE_OF_MEMORY // _BYTES_PER_PIXEL


def max_bytes(max_pixels: int | None = None) -> int:
    """Bytes of the largest file that an image of `max_pixels` (by default `default_max_pixels`) can need."""
    return (default_max_pixels() if max_pixels is None else max_pixels) * _BYTES_PER_PIXEL_IN_FILE + _BYTES_BESIDE


def _memory(root: Path = Path("/")) -> int:
    """Bytes of memory of this machine, or of its container if that is less."""
    found = list(_control_group_limits(root))
    with contextlib.suppress(AttributeError, ValueError, OSError):  # not every system knows these names
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min((size for size in found if size > 0), default=_MEMORY_IF_UNKNOWN)


def _control_group_limits(root: Path) -> Iterator[int]:
    """Yield the memory limits of this process's control group and its parents (Linux, cgroup versions 1 and 2)."""
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


class TooLargeError(UnreadableImageError):
    """The image has more pixels than allowed; only a higher limit helps."""


def check_size(width: int, height: int, limit: int) -> None:
    """Refuse an image of too many pixels.

    Raises:
        TooLargeError: it has more than `limit`.
    """
    if width * height > limit:
        raise TooLargeError(f"too large: {width} x {height} pixels, {more_than(limit)}")


def more_than(limit: int) -> str:
    """Words for an image that exceeds `limit` pixels."""
    millions = limit / 1_000_000
    number = f"{millions:g}" if millions < 1 else f"{millions:,.0f}"
    return f"more than the limit of {number} million"


def check_bytes(size: int, limit: int) -> None:
    """Refuse a file of too many bytes.

    Raises:
        UnreadableImageError: it has more than `limit`.
    """
    if size > limit:
        raise UnreadableImageError(
            f"too large: {size / 1e6:,.0f} MB or more, and no picture of the allowed size needs more than "
            f"{limit / 1e6:,.0f}"
        )


class NoMemoryError(UnreadableImageError):
    """There is not enough memory for the image at the moment."""


@contextlib.contextmanager
def enough_memory() -> Iterator[None]:
    """Turn a MemoryError within into a `NoMemoryError`, which makes one image unreadable and ends no run."""
    try:
        yield
    except MemoryError as error:
        raise NoMemoryError("too large: there is not enough memory for it") from error


def raise_pillow_limit(limit: int) -> None:
    """Raise Pillow's own limit, which holds for the whole process, to at least `limit` pixels."""
    from PIL import Image  # not needed to read files without decoding them

    with _pillow_limit:
        if Image.MAX_IMAGE_PIXELS is not None and limit > Image.MAX_IMAGE_PIXELS:
            Image.MAX_IMAGE_PIXELS = limit


class _PixelBudget:
    """Limit on the pixels that all threads decode at the same time. First come, first served: none starves."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[object] = deque()
        self._pixels = 0

    @contextlib.contextmanager
    def turn(self, pixels: int, limit: int) -> Iterator[None]:
        """Take `pixels` of the budget within; wait until the sum is at most `limit`, or nothing else is decoded."""
        ticket = object()
        with self._changed:
            self._waiting.append(ticket)
            try:
                self._changed.wait_for(
                    lambda: self._waiting[0] is ticket and (not self._pixels or self._pixels + pixels <= limit)
                )
                self._pixels += pixels
            finally:
                self._waiting.remove(ticket)
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._pixels -= pixels
                self._changed.notify_all()


in_turn = _PixelBudget().turn
"""Context manager around decoding an image of `pixels`: all threads together stay within the `limit` of one image."""
