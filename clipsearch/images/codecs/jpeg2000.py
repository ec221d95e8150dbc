"""Header of a JPEG 2000 file: size, channels and colours. Decodes nothing.

Source: ISO/IEC 15444-1, A.5.1 (the size marker) and annex I (the boxes).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from clipsearch.images.codecs.boxes import bodies

_SIZE_MARKER = b"\xff\x4f\xff\x51"
_COLOUR, _WHOLE_IMAGE = 0, 0
_SIGNED = 0x80
_BY_NUMBER, _BY_PROFILE = b"\1", (b"\2", b"\3")
"""Methods of a colour specification box: an enumerated colour space, and an ICC profile (restricted, or any)."""
CMYK, CIELAB = 12, 14
"""Enumerated colour spaces."""


@dataclass(frozen=True)
class Header:
    """What the header of a JPEG 2000 file says."""

    width: int
    """Pixels."""
    height: int
    """Pixels."""
    bits: tuple[int, ...]
    """Bits of a sample in each channel."""
    has_signs: bool
    """Whether samples of any channel are signed."""
    in_tiles: bool
    """Whether it has more than one tile."""
    has_coarse_channels: bool
    """Whether any channel is subsampled."""
    has_palette: bool
    """Whether samples are indices into a palette."""
    colour_space: int | None
    """Enumerated colour space: `CMYK`, `CIELAB` or another number of the format; None if there is none."""


def header(content: bytes) -> Header | None:
    """Read the header of a JPEG 2000 file; None if it is truncated."""
    start = content.find(_SIZE_MARKER)
    try:
        right, lower, left, upper, width, height, x, y, number = struct.unpack_from(">8IH", content, start + 8)
        channels = [struct.unpack_from(">3B", content, start + 42 + 3 * channel) for channel in range(number)]
    except struct.error:
        return None
    box = next((body for kind, body in bodies(content) if kind == b"jp2h"), b"")
    return Header(
        right - left,
        lower - upper,
        tuple((depth & ~_SIGNED) + 1 for depth, _, _ in channels),
        any(depth & _SIGNED for depth, _, _ in channels),
        x + width < right or y + height < lower or (left, upper) != (x, y),
        any((x_step, y_step) != (1, 1) for _, x_step, y_step in channels),
        any(kind == b"pclr" for kind, _ in bodies(box)),
        next((int.from_bytes(body[3:7], "big") for kind, body in bodies(box) if _names_space(kind, body)), None),
    )


def _names_space(kind: bytes, body: bytes) -> bool:
    return kind == b"colr" and len(body) >= 7 and body[:1] == _BY_NUMBER  # noqa: PLR2004


def channels(content: bytes) -> list[int] | None:
    """Return the channels of red, green, blue and alpha, or of grey and alpha; None if the file has no such box."""
    box = next((body for kind, body in bodies(content) if kind == b"jp2h"), b"")
    definitions = next((body for kind, body in bodies(box) if kind == b"cdef"), b"")
    try:
        (number,) = struct.unpack_from(">H", definitions)
        entries = [struct.unpack_from(">3H", definitions, 2 + 6 * entry) for entry in range(number)]
    except struct.error:
        return None
    colours = sorted((meant, channel) for channel, kind, meant in entries if kind == _COLOUR and meant)
    alphas = [channel for channel, kind, meant in entries if kind != _COLOUR and meant == _WHOLE_IMAGE]
    return [channel for _, channel in colours] + alphas


def profile(content: bytes) -> bytes:
    """ICC profile of a JPEG 2000 file; empty if it has none. Pillow does not read it."""
    box = next((body for kind, body in bodies(content) if kind == b"jp2h"), b"")
    colours = next((body for kind, body in bodies(box) if kind == b"colr" and body[:1] in _BY_PROFILE), b"")
    return colours[3:]
