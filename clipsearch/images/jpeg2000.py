"""What a JPEG 2000 file says of its channels, and which ones Pillow decodes wrongly. Decodes nothing.

Source: ISO/IEC 15444-1, A.5.1 (the size marker) and I.5.3.6 (the channel definition box).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from clipsearch.errors import UnreadableImageError

_SIZE_MARKER = b"\xff\x4f\xff\x51"
_COLOUR, _WHOLE_IMAGE = 0, 0


def check(content: bytes) -> None:
    """Refuse what would come out garbled: tiles of channels with different resolutions.

    Raises:
        UnreadableImageError: the file is one of them.
    """
    start = content.find(_SIZE_MARKER)
    try:
        right, lower, left, upper, width, height, x, y, number = struct.unpack_from(">8IH", content, start + 8)
        steps = [struct.unpack_from(">2B", content, start + 42 + 3 * channel + 1) for channel in range(number)]
    except struct.error:
        return  # the decoder will say that it is cut off
    is_tiled = x + width < right or y + height < lower or (left, upper) != (x, y)
    if is_tiled and any(step != (1, 1) for step in steps):
        raise UnreadableImageError("unsupported: JPEG 2000 in tiles whose colours have a lower resolution")


def channels(content: bytes) -> list[int] | None:
    """Which channel of the file is red, which green, which blue, and then which alpha; None if it does not say.

    Of a grey picture: which is grey, and then which alpha.
    """
    header = next((body for kind, body in _boxes(content) if kind == b"jp2h"), b"")
    definitions = next((body for kind, body in _boxes(header) if kind == b"cdef"), b"")
    try:
        (number,) = struct.unpack_from(">H", definitions)
        entries = [struct.unpack_from(">3H", definitions, 2 + 6 * entry) for entry in range(number)]
    except struct.error:
        return None
    colours = sorted((meant, channel) for channel, kind, meant in entries if kind == _COLOUR and meant)
    alphas = [channel for channel, kind, meant in entries if kind != _COLOUR and meant == _WHOLE_IMAGE]
    return [channel for _, channel in colours] + alphas


def _boxes(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and content of each box."""
    at = 0
    while at + 8 <= len(content):
        size, kind = struct.unpack_from(">I4s", content, at)
        start = at + 8
        if size == 1 and at + 16 <= len(content):
            (size,) = struct.unpack_from(">Q", content, start)
            start += 8
        end = at + size if size else len(content)  # 0: to the end of the file
        if end <= start or end > len(content):
            return
        yield kind, content[start:end]
        at = end
