"""Boxes, the containers of JPEG 2000, AVIF, HEIF and JPEG XL: where they lie and what they contain.

Source: ISO/IEC 15444-1, annex I, and ISO/IEC 14496-12.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple


class Box(NamedTuple):
    """Position of one box in a file, as byte offsets."""

    kind: bytes
    """Type of the box, four letters."""
    start: int
    """Offset of its header."""
    inner: int
    """Offset of its content."""
    end: int
    """Offset just past its content; in a truncated file, past the end of the file."""


def boxes(content: bytes, start: int = 0) -> Iterator[Box]:
    """Yield the boxes of a file, or of the content of another box, from offset `start` on.

    A box without a length extends to the end of the file.
    """
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
    """Yield kind and content of each box, up to the first that is empty or truncated."""
    for kind, _, inner, end in boxes(content):
        if end == inner or end > len(content):
            return
        yield kind, content[inner:end]
