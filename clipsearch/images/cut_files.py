"""A file that is cut off with ends that its decoder takes, so that it gives the pixels that are there.

Reads headers only; what of the decoded pixels comes from the file is the matter of `damage`.
"""

from __future__ import annotations

import random
import re
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

from clipsearch.images.boxes import boxes
from clipsearch.images.stripping import segments, webp, webp_chunks

_NOISE = 1 << 16
"""Bytes of it: more than a decoder reads ahead."""
_END = b"\xff\xd9"
"""Of a JPEG and of a JPEG 2000."""
_PADDING = 16
"""Bytes of the same kind at the end, from which on they are no data but what was left where nothing was written."""


class Ends(NamedTuple):
    """Two files with the same beginning, the first of which is to be shown."""

    shown: bytes
    other: bytes
    missing: float | None = None
    """The share of the picture's bytes that is not there, where its headers tell."""


def ends(content: bytes, name: str, decodes: Callable[[bytes], bool]) -> Iterator[Ends]:
    """The ways to have a decoder of the format `name` give the pixels that are in `content`; none if there is none.

    `decodes` says whether the decoder takes a file whole.
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
        # Where pixels are packed, what stands for nothing written would be taken for some.
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
"""What ends the coded data of a scan."""
_FRAMES = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))
_LOSSLESS = (0xC3, 0xC7, 0xCB, 0xCF)
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9


class Scan(NamedTuple):
    """One pass over the picture."""

    components: tuple[int, ...]
    first: int
    last: int
    """Coefficients, 0 to 63."""
    bits_left: int
    """Of each coefficient, that later scans have."""


class Jpeg(NamedTuple):
    """What a JPEG says of its own parts."""

    sampling: dict[int, tuple[int, int]]
    """Of each component: horizontal and vertical factor."""
    is_lossless: bool
    scans: list[Scan]
    is_ended: bool
    cut: int
    """Where the part starts that is cut off; else the end of the file."""


def read_jpeg(content: bytes) -> Jpeg:
    """What `content` says of its parts, as far as it goes."""
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
    """With an end marker, and with noise before it; both the same if nothing was cut off."""
    jpeg = read_jpeg(content)
    if jpeg.is_ended:
        return Ends(content, content)
    there = _without_padding(content[: jpeg.cut])
    if there.endswith(b"\xff"):
        there = there[:-1]  # one half of what stands for such a byte, or of a marker
    noise = random.Random(0).randbytes(_NOISE).replace(b"\xff", b"\x7f")  # noqa: S311  (any will do)
    return Ends(there + _END, there + noise + _END)


# --- JPEG 2000 ---

_CODESTREAM, _TILE_PART, _TILE_PART_BYTES = b"\xff\x4f\xff\x51", b"\xff\x90", 12


def _jpeg2000_ends(content: bytes) -> Iterator[Ends]:
    """The last tile filled with zeros, which mean that nothing more is known; how much is missing is told in bytes."""
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
    """How many tiles a JPEG 2000 has."""
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
"""Bytes that are left out before what is missing: a decoder that refuses one end may take another."""


_MOST_FILLED = 4
"""Times as much as is there: of less than that not half of a picture can come."""


def _two_ends(files: Iterator[tuple[bytes, float]], decodes: Callable[[bytes], bool]) -> Iterator[Ends]:
    """Of the first two files that the decoder takes; each with the share of it that is missing."""
    good = ((file, missing) for file, missing in files if decodes(file))
    first, second = next(good, None), next(good, None)
    if first is not None and second is not None:
        yield Ends(first[0], second[0], first[1])


def _filled(data: bytes, missing: int) -> Iterator[bytes]:
    """`data` with as many bytes behind it as are missing."""
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
