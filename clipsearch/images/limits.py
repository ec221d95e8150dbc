"""How large a picture and its file may be on this machine, and how many are decoded at the same time."""

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
"""That decoding takes; measured were 8 for a JPEG, 20 for a WebP with transparency, 25 for such a JPEG 2000."""
_SHARE_OF_MEMORY = 4
"""One picture may take a quarter of it."""
_MEMORY_IF_UNKNOWN = 8 << 30
_BYTES_PER_PIXEL_IN_FILE = 16
"""The most that a file has for a pixel: four floats, in an uncompressed TIFF."""
_BYTES_BESIDE = 256 << 20
"""What else may be in a file: profiles, previews, the other pages and frames."""
_pillow_limit = threading.Lock()


@functools.cache
def default_max_pixels() -> int:
    """The pixels of the largest picture that fits this machine: decoding it takes a quarter of the memory at most."""
    return _memory() // _SHARE_OF_MEMORY // _BYTES_PER_PIXEL


def max_bytes(max_pixels: int | None = None) -> int:
    """Of the largest file that a picture of `max_pixels` can need; without a number, the largest picture here."""
    return (default_max_pixels() if max_pixels is None else max_pixels) * _BYTES_PER_PIXEL_IN_FILE + _BYTES_BESIDE


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


class TooLargeError(UnreadableImageError):
    """The picture has more pixels than are allowed; nothing but another limit helps."""


def check_size(width: int, height: int, limit: int) -> None:
    """Refuse a picture of too many pixels.

    Raises:
        TooLargeError: it has more than `limit`.
    """
    if width * height > limit:
        raise TooLargeError(f"too large: {width} x {height} pixels, {more_than(limit)}")


def more_than(limit: int) -> str:
    """The reason."""
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
    """There is not enough memory for the picture now; another time there may be."""


@contextlib.contextmanager
def enough_memory() -> Iterator[None]:
    """Within: what does not fit into memory is a `NoMemoryError`, which ends no run."""
    try:
        yield
    except MemoryError as error:
        raise NoMemoryError("too large: there is not enough memory for it") from error


def raise_pillow_limit(limit: int) -> None:
    """Pillow has one limit of its own for the whole process: it must not be below ours."""
    from PIL import Image  # who only reads files does not need it

    with _pillow_limit:
        if Image.MAX_IMAGE_PIXELS is not None and limit > Image.MAX_IMAGE_PIXELS:
            Image.MAX_IMAGE_PIXELS = limit


class _UnderWay:
    """The pixels that all threads are decoding. Who comes first goes first, so that no large picture waits for ever."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[object] = deque()
        self._pixels = 0

    @contextlib.contextmanager
    def turn(self, pixels: int, limit: int) -> Iterator[None]:
        """Within: so many more are; they wait until all together are no more than `limit`, or until no others are."""
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


in_turn = _UnderWay().turn
"""Around decoding a picture of so many pixels, with the limit of one picture: several threads together keep to it."""
