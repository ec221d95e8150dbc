"""The first directory of a TIFF: where it lies, and the whole numbers in it. Decodes nothing.

Source: TIFF 6.0, section 2, and the description of BigTIFF.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

_BIG = (b"+\0", b"\0+")
"""In place of the usual asterisk: the form with offsets of eight bytes."""
_LETTERS = {1: "B", 3: "H", 4: "I", 16: "Q"}
"""`struct`'s letters for the types that whole numbers have."""
_MOST_VALUES = 16
"""Of one tag: what is asked for here has a value for each channel."""


class Directory(NamedTuple):
    """Where a directory lies, whole or not."""

    order: str
    """Of bytes, as `struct` has it."""
    is_big: bool
    """Whether this is a BigTIFF."""
    start: int
    first: int
    """Where its first entry is."""
    entries: int
    entry_bytes: int

    @property
    def end(self) -> int:
        """Behind its last entry; maybe beyond the end of the file."""
        return self.first + self.entries * self.entry_bytes


def directory(tiff: bytes) -> Directory | None:
    """The first one; None if the file is cut off before it says how many entries there are."""
    order, is_big = "<" if tiff.startswith(b"II") else ">", tiff[2:4] in _BIG
    where, number, entry = ("8xQ", "Q", 20) if is_big else ("4xI", "H", 12)
    try:
        (start,) = struct.unpack_from(order + where, tiff)
        (entries,) = struct.unpack_from(order + number, tiff, start)
    except (struct.error, OverflowError):  # the latter for places beyond what Python can count
        return None
    return Directory(order, is_big, start, start + struct.calcsize(order + number), entries, entry)


def whole_numbers(tiff: bytes) -> dict[int, tuple[int, ...]]:
    """Tag -> values, of up to 16; empty if the directory, or what it points to, is cut off."""
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
