"""Recognition of a file's format by its content, and of truncated files. Decodes nothing."""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterator

from PIL import Image

from clipsearch.images.codecs.header_checks import is_pcx, is_sgi
from clipsearch.images.codecs.signatures import AVIF_BRANDS, HEIF_BRANDS, brands
from clipsearch.images.codecs.tiff_tags import directory

DECODERS = (
    *("AVIF", "BMP", "DDS", "DIB", "GIF", "HEIF", "ICNS", "ICO", "JPEG", "JPEG2000", "PCX", "PNG", "PPM", "PSD", "QOI"),
    *("SGI", "TGA", "TIFF", "WEBP"),
)
"""The only Pillow decoders that are ever tried; none of them starts another program."""

_WITHOUT_SIGNATURE = ("AVIF", "HEIF", "PCX", "SGI", "TGA")
"""Formats that Pillow's check of the first bytes does not recognise reliably."""

_SHORTEST = 16
"""Bytes that Pillow checks; no image file is smaller."""


def format_of(content: bytes) -> str | None:
    """Return which of the `DECODERS` reads this content, or None."""
    Image.init()
    if content[4:8] == b"ftyp":
        return _format_of_brands(content)
    for name in DECODERS:
        if name not in _WITHOUT_SIGNATURE:
            _, accepts = Image.OPEN[name]
            if accepts is not None and len(content) >= _SHORTEST and accepts(content[:_SHORTEST]):
                return name
    whole_headers = (("PCX", is_pcx), ("SGI", is_sgi), ("TGA", _is_targa))
    return next((name for name, fits in whole_headers if fits(content)), None)


def _format_of_brands(content: bytes) -> str | None:
    """Tell AVIF from HEIF, whose files differ only in the brands in their first box."""
    found = brands(content)
    if found & AVIF_BRANDS:
        return "AVIF"
    if found & HEIF_BRANDS:
        _register_heif()
        return "HEIF"
    return None


@functools.cache
def _register_heif() -> None:
    import pillow_heif  # costs start-up time and is seldom needed

    pillow_heif.register_heif_opener()


def _is_targa(content: bytes) -> bool:
    """Whether this is TGA, which has a footer since version 2; before, the fields of its header must be consistent."""
    if content.endswith(b"TRUEVISION-XFILE.\0"):
        return True
    try:
        fields = struct.unpack_from("<BBBHHBHHHHBB", content)
    except struct.error:
        return False
    id_length, map_type, kind, first, colours, colour_bits, _, _, width, height, depth, descriptor = fields
    depths = {1: (8,), 2: (15, 16, 24, 32), 3: (8, 16)}.get(kind & 7, ())
    mapped = map_type == 1 and colours > 0 and colour_bits in (15, 16, 24, 32)
    unmapped = map_type == 0 and kind & 7 != 1 and first == colours == colour_bits == 0
    if kind & ~11 or depth not in depths or not (mapped or unmapped) or descriptor & 0xC0 or not width * height:
        return False
    start: int = 18 + id_length + colours * ((colour_bits + 7) // 8)
    size = (depth + 7) // 8
    # In run-length encoding, nothing is shorter than one pixel repeated 128 times.
    least: int = -(-width * height // 128) * (1 + size) if kind & 8 else width * height * size
    return start + least <= len(content)


def is_truncated(content: bytes, name: str) -> bool:
    """Whether a file is truncated, for the formats whose decoders do not report that."""
    if name == "JPEG2000":
        # There must be an end marker after the start; coded data never contains these two bytes.
        return content.find(b"\xff\xd9", max(content.find(b"\xff\x4f\xff\x51"), 0)) < 0
    if name == "TIFF":
        return _is_directory_truncated(content)
    if name == "WEBP":
        return 8 + int.from_bytes(content[4:8], "little") > len(content)
    return False


def _is_directory_truncated(tiff: bytes) -> bool:
    """Whether the first directory is incomplete; the meaning of its tags depends on the missing ones."""
    found = directory(tiff)
    return found is None or found.end > len(tiff)


def icon_sizes(content: bytes) -> Iterator[tuple[int, int]]:
    """Yield width and height of all images in a Windows icon, from their own headers."""
    (count,) = struct.unpack_from("<H", content, 4)
    for icon in range(count):
        (start,) = struct.unpack_from("<I", content, 6 + 16 * icon + 12)
        if content.startswith(b"\x89PNG", start):
            yield struct.unpack_from(">II", content, start + 16)
        else:
            width, height = struct.unpack_from("<ii", content, start + 4)
            yield abs(width), abs(height) // 2  # the mask is counted as well
