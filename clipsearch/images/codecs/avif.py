"""Header of an AVIF file: size, orientation, colours and transparency of its image. Decodes nothing.

Source: ISO/IEC 23008-12 (the boxes of HEIF) and AOM's "AV1 Image File Format".
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from clipsearch.images.codecs.boxes import bodies

_ALPHA = (b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha\0", b"urn:mpeg:hevc:2015:auxid:1\0")
_TURNED = (1, 8, 3, 6)
"""EXIF orientation for each number of quarter turns to the left."""
_MIRRORED = {(0, 0): 4, (0, 1): 2, (1, 0): 5, (1, 1): 7, (2, 0): 2, (2, 1): 4, (3, 0): 7, (3, 1): 5}
"""EXIF orientation for (quarter turns, axis) of an image that is mirrored after it is turned."""


@dataclass(frozen=True)
class Header:
    """What the boxes say of the primary image of a file."""

    width: int
    """Pixels, as stored: before `orientation` is applied."""
    height: int
    """Pixels, as stored."""
    bits: int
    """Bits of a sample: 8, 10 or 12."""
    orientation: int
    """EXIF orientation, 1 to 8."""
    matrix: int | None
    """Matrix coefficients between RGB and YCbCr (ITU-T H.273, table 4), or None if the file does not say."""
    alpha_lacks_size: bool
    """Whether the alpha plane has no size of its own. The format requires one; some encoders leave it out."""


def header(content: bytes) -> Header | None:
    """Read the header of an AVIF file; None if it is broken, truncated or an image sequence."""
    try:
        items, number = _items(content)
        own = dict(items[number])
        width, height = struct.unpack_from(">II", own[b"ispe"], 4)
        turns = own.get(b"irot", b"\0")[0] & 3
        orientation = _MIRRORED[turns, own[b"imir"][0] & 1] if b"imir" in own else _TURNED[turns]
        alphas = [dict(found) for found in items.values() if dict(found).get(b"auxC", b"")[4:] in _ALPHA]
        depth = own[b"av1C"][2] if b"av1C" in own else 0  # of a grid, its tiles have it
    except (StopIteration, LookupError, struct.error):
        return None
    codes = _colours(content, b"nclx")
    matrix = int.from_bytes(codes[4:6], "big") if codes else None
    bits = (12 if depth & 0x20 else 10) if depth & 0x40 else 8
    return Header(width, height, bits, orientation, matrix, any(b"ispe" not in alpha for alpha in alphas))


def colour_codes(content: bytes) -> tuple[int, int] | None:
    """Colour primaries and transfer characteristics (ITU-T H.273) of the image, or None if the file has none."""
    body = _colours(content, b"nclx")
    return struct.unpack_from(">2H", body) if len(body) >= 4 else None  # noqa: PLR2004


def profile(content: bytes) -> bytes:
    """ICC profile of the image, or empty bytes if it has none."""
    return _colours(content, b"prof") or _colours(content, b"rICC")


def _colours(content: bytes, kind: bytes) -> bytes:
    """Content of the image's `colr` box of this kind (a gain map has a `colr` box of its own), or empty bytes."""
    try:
        items, number = _items(content)
        return next(body[4:] for name, body in items[number] if name == b"colr" and body[:4] == kind)
    except (StopIteration, LookupError, struct.error):
        return b""


def _items(content: bytes) -> tuple[dict[int, list[tuple[bytes, bytes]]], int]:
    """Properties (kind, content) of each item by its number, and the number of the primary item."""
    meta = next(body for kind, body in bodies(content) if kind == b"meta")
    parts = dict(reversed(list(bodies(meta[4:]))))
    properties = dict(reversed(list(bodies(parts[b"iprp"]))))
    known = list(bodies(properties[b"ipco"]))
    number = struct.unpack_from(">I" if parts[b"pitm"][0] else ">H", parts[b"pitm"], 4)[0]
    return {item: [known[at - 1] for at in links if at] for item, links in _associations(properties[b"ipma"])}, number


def _associations(box: bytes) -> Iterator[tuple[int, list[int]]]:
    """Yield the number of each item, and the 1-based numbers of its properties."""
    version, wide = box[0], box[3] & 1
    (count,) = struct.unpack_from(">I", box, 4)
    at = 8
    for _ in range(count):
        item, links = struct.unpack_from(">IB" if version else ">HB", box, at)
        at += 5 if version else 3
        numbers = struct.unpack_from(f">{links}{'H' if wide else 'B'}", box, at)
        at += links * (2 if wide else 1)
        yield item, [number & (0x7FFF if wide else 0x7F) for number in numbers]
