"""Truncated files completed so that a decoder accepts them and gives the pixels that are there.

Reads headers only. Which of the decoded pixels come from the file is decided in `damage`.
"""

from __future__ import annotations

import random
import re
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

from clipsearch.images.codecs.boxes import boxes
from clipsearch.images.codecs.metadata_stripping import segments, webp, webp_chunks

_NOISE = 1 << 16
"""Bytes of filling: more than a decoder reads ahead."""
_END = b"\xff\xd9"
"""End marker of JPEG and of JPEG 2000."""
_PADDING = 16
"""A run of at least this many equal bytes (0 or 255) at the end is no data but unwritten space."""


class Ends(NamedTuple):
    """The same truncated file completed in two ways; where the decoded pixels differ, they are made up."""

    shown: bytes
    """The file whose pixels are used."""
    other: bytes
    """The file that is only compared."""
    missing: float | None = None
    """Share of the image's bytes that is missing, 0 to 1; None if the headers do not say."""


def ends(content: bytes, name: str, decodes: Callable[[bytes], bool]) -> Iterator[Ends]:
    """Yield the ways to complete a truncated file, if there are any.

    Args:
        content: The truncated file.
        name: Pillow's name of its format.
        decodes: Says whether the decoder accepts a file.
    """
    if name == "JPEG":
        yield _jpeg_ends(content)
    elif name == "JPEG2000":
        yield from _jpeg2000_ends(content)
    elif name == "WEBP":
        yield from _two_ends(_webp_files(content), decodes)
    elif name in ("AVIF", "HEIF"):
        yield from _two_ends(_box_files(content), decodes)
    else:
        # In compressed data, a decoder would take unwritten space for pixels.
        there = _without_padding(content) if name in ("PNG", "GIF") else content
        yield Ends(there, there)


def _without_padding(content: bytes) -> bytes:
    for byte in (b"\0", b"\xff"):
        less = content.rstrip(byte)
        if len(content) - len(less) >= _PADDING:
            return less
    return content


# --- JPEG ---

_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
"""Marker that ends the coded data of a scan."""
_FRAMES = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))
_LOSSLESS = (0xC3, 0xC7, 0xCB, 0xCF)
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9


class Scan(NamedTuple):
    """One scan of a JPEG: a pass over the image for some components and coefficients."""

    components: tuple[int, ...]
    """Numbers of its colour components."""
    first: int
    """First DCT coefficient, 0 to 63."""
    last: int
    """Last DCT coefficient, 0 to 63."""
    bits_left: int
    """Low bits of each coefficient that are left for later scans."""


class Jpeg(NamedTuple):
    """Structure of a JPEG, as far as the file goes."""

    sampling: dict[int, tuple[int, int]]
    """Number of each component -> its horizontal and vertical sampling factor."""
    is_lossless: bool
    """Whether it is coded without DCT."""
    scans: list[Scan]
    """The scans, the last of which may be truncated."""
    is_ended: bool
    """Whether there is an end marker."""
    cut: int
    """Offset of a segment whose header is truncated, or the length of the file."""


def read_jpeg(content: bytes) -> Jpeg:
    """Read the structure of a JPEG, which may be truncated."""
    sampling: dict[int, tuple[int, int]] = {}
    scans: list[Scan] = []
    is_lossless = is_ended = False
    at = 2
    while not is_ended:
        found = list(segments(content, at))
        for segment in found:
            data = content[segment.start + 4 : segment.end]
            if segment.end > len(content):
                return Jpeg(sampling, is_lossless, scans, is_ended, segment.start)
            if segment.marker in _FRAMES and len(data) > 5:  # noqa: PLR2004
                is_lossless = segment.marker in _LOSSLESS
                sampling |= {data[i]: (data[i + 1] >> 4, data[i + 1] & 15) for i in range(6, len(data) - 2, 3)}
            elif segment.marker == _START_OF_SCAN and data and len(data) >= 4 + 2 * data[0]:
                first, last, bits = data[1 + 2 * data[0] : 4 + 2 * data[0]]
                scans.append(Scan(tuple(data[1 : 1 + 2 * data[0] : 2]), first, last, bits & 15))
            is_ended = is_ended or segment.marker == _END_OF_IMAGE
        if not found or found[-1].marker != _START_OF_SCAN:
            break
        marker = _MARKER.search(content, found[-1].end)
        if marker is None:
            break
        at = marker.start()
    return Jpeg(sampling, is_lossless, scans, is_ended, len(content))


def _jpeg_ends(content: bytes) -> Ends:
    """Complete a JPEG with an end marker, and with noise and an end marker; unchanged if it has one already."""
    jpeg = read_jpeg(content)
    if jpeg.is_ended:
        return Ends(content, content)
    there = _without_padding(content[: jpeg.cut])
    if there.endswith(b"\xff"):
        there = there[:-1]  # the first half of an escaped 0xFF, or of a marker
    noise = random.Random(0).randbytes(_NOISE).replace(b"\xff", b"\x7f")  # noqa: S311  (any will do)
    return Ends(there + _END, there + noise + _END)


# --- JPEG 2000 ---

_CODESTREAM, _TILE_PART, _TILE_PART_BYTES = b"\xff\x4f\xff\x51", b"\xff\x90", 12


def _jpeg2000_ends(content: bytes) -> Iterator[Ends]:
    """Complete a JPEG 2000: its last tile is filled with zeros, which mean that no more detail is known."""
    start = content.find(_CODESTREAM)
    content = _without_padding(content)
    at = content.find(_TILE_PART, start)
    if start < 0 or at < 0:
        return
    tiles, parts, whole = _tiles(content, start), 0.0, content.find(_END, start) >= 0
    if whole:
        yield Ends(content, content)
        return
    total = next((end for kind, _, inner, end in boxes(content) if kind == b"jp2c" and inner <= start), 0)
    while content[at : at + 2] == _TILE_PART and at + _TILE_PART_BYTES <= len(content):
        (size,) = struct.unpack_from(">I", content, at + 6)
        end = at + size if size else len(content)
        parts += min(1.0, (len(content) - at) / max(1, end - at))
        at = max(end, at + _TILE_PART_BYTES)
    there = (len(content) - start) / (total - start) if total > len(content) else min(1.0, parts / tiles)
    filled = content + bytes(min(max(0, at - len(content)), len(content))) if at > len(content) else content[:at]
    ended = filled + _END
    yield Ends(ended, ended, 1 - there)


def _tiles(content: bytes, start: int) -> int:
    """Number of tiles of a JPEG 2000."""
    try:
        sizes: tuple[int, ...] = struct.unpack_from(">8I", content, start + 8)
    except struct.error:
        return 1
    right, lower, _, _, width, height, x, y = sizes
    if not width or not height:
        return 1
    return max(1, -(-(right - x) // width) * -(-(lower - y) // height))


# --- formats whose parts say how long they are ---

_SHORTER = (0, 64, 256, 1024)
"""Bytes that are dropped from the end before filling: a decoder that refuses one end may accept another."""
_MOST_FILLED = 4
"""Missing bytes for each byte that is there: with more missing, not half of the image can be decoded."""


def _two_ends(files: Iterator[tuple[bytes, float]], decodes: Callable[[bytes], bool]) -> Iterator[Ends]:
    """Yield the first two files that the decoder accepts. `files` are (file, share that is missing)."""
    good = ((file, missing) for file, missing in files if decodes(file))
    first, second = next(good, None), next(good, None)
    if first is not None and second is not None:
        yield Ends(first[0], second[0], first[1])


def _filled(data: bytes, missing: int) -> Iterator[bytes]:
    """Yield `data` with filling of different kinds in place of its `missing` bytes."""
    for shorter in _SHORTER:
        there = data[: len(data) - shorter]
        for filling in (b"\0", b"\xff"):
            yield there + filling * (missing + shorter)


def _webp_files(content: bytes) -> Iterator[tuple[bytes, float]]:
    chunks = list(webp_chunks(content))
    if not chunks:
        return
    (kind, data, missing), before = chunks[-1], [(kind, data) for kind, data, _ in chunks[:-1]]
    if kind in (b"VP8 ", b"VP8L") and 0 < missing <= _MOST_FILLED * len(data):
        for filled in _filled(data, missing + _NOISE):
            yield webp([*before, (kind, filled)]), missing / (len(data) + missing)


def _box_files(content: bytes) -> Iterator[tuple[bytes, float]]:
    *_, (kind, start, _, end) = [(b"", 0, 0, 0), *boxes(content)]
    missing = end - len(content)
    if kind == b"mdat" and 0 < missing <= _MOST_FILLED * len(content):
        for filled in _filled(content, missing):
            yield filled, missing / (end - start)
