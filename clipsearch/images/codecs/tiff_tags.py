"""The first directory of a TIFF: its position, and its integer tags. Decodes nothing.

Source: TIFF 6.0, section 2, and the description of BigTIFF.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

_BIG = (b"+\0", b"\0+")
"""Version number of BigTIFF, which has 8-byte offsets, in both byte orders."""
_LETTERS = {1: "B", 3: "H", 4: "I", 16: "Q"}
"""Integer type of a tag -> its format character in `struct`."""
_MOST_VALUES = 16
"""Most values of a tag that is read: the tags needed here have one value a channel."""


class Directory(NamedTuple):
    """Position of a directory, which may be truncated."""

    order: str
    """Byte order, as a format character of `struct`."""
    is_big: bool
    """Whether this is a BigTIFF."""
    start: int
    """Offset of the directory."""
    first: int
    """Offset of its first entry."""
    entries: int
    """Number of its entries."""
    entry_bytes: int
    """Bytes of an entry."""

    @property
    def end(self) -> int:
        """Offset after its last entry, which may lie past the end of the file."""
        return self.first + self.entries * self.entry_bytes


def directory(tiff: bytes) -> Directory | None:
    """Find the first directory; None if the file is truncated before the number of its entries."""
    order, is_big = "<" if tiff.startswith(b"II") else ">", tiff[2:4] in _BIG
    where, number, entry = ("8xQ", "Q", 20) if is_big else ("4xI", "H", 12)
    try:
        (start,) = struct.unpack_from(order + where, tiff)
        (entries,) = struct.unpack_from(order + number, tiff, start)
    except (struct.error, OverflowError):  # the latter for offsets that are too large for Python
        return None
    return Directory(order, is_big, start, start + struct.calcsize(order + number), entries, entry)


def whole_numbers(tiff: bytes) -> dict[int, tuple[int, ...]]:
    """Tag -> values of the integer tags with up to 16 values; empty if the directory or its data is truncated."""
    found = directory(tiff)
    if found is None or found.end > len(tiff):
        return {}
    entry, inside, letter = ("HHQ8s", 8, "Q") if found.is_big else ("HHI4s", 4, "I")
    tags = {}
    try:
        for tag, kind, values, data in struct.iter_unpack(found.order + entry, tiff[found.first : found.end]):
            if kind not in _LETTERS or not 1 <= values <= _MOST_VALUES:
                continue
            form = f"{found.order}{values}{_LETTERS[kind]}"
            (place,) = struct.unpack(found.order + letter, data)
            outside = struct.calcsize(form) > inside
            tags[tag] = struct.unpack_from(form, tiff, place) if outside else struct.unpack_from(form, data)
    except (struct.error, OverflowError):
        return {}
    return tags
