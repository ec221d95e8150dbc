"""The boxes that JPEG 2000, AVIF, HEIF and JPEG XL are made of: where they lie, and what is in them.

Source: ISO/IEC 15444-1, annex I, and ISO/IEC 14496-12.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple


class Box(NamedTuple):
    """Where one lies."""

    kind: bytes
    """Four letters."""
    start: int
    inner: int
    """Where its content starts."""
    end: int
    """Behind it; beyond the end of a file that is cut off."""


def boxes(content: bytes, start: int = 0) -> Iterator[Box]:
    """The boxes in a file or in another box, from `start` on. One without a length ends with the file."""
    at = start
    while at + 8 <= len(content):
        size, kind = struct.unpack_from(">I4s", content, at)
        inner = at + 8
        if size == 1 and at + 16 <= len(content):
            (size,) = struct.unpack_from(">Q", content, inner)
            inner += 8
        end = at + size if size else max(len(content), inner)
        if end < inner:
            return
        yield Box(kind, at, inner, end)
        at = end


def bodies(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and content of each box; the first that is empty or cut off, and those behind it, are left out."""
    for kind, _, inner, end in boxes(content):
        if end == inner or end > len(content):
            return
        yield kind, content[inner:end]
