"""Which decoder a file's content is for, and whether its end is missing. Decodes nothing."""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterator

from PIL import Image

from clipsearch.images.layouts import is_pcx, is_sgi
from clipsearch.images.signatures import AVIF_BRANDS, HEIF_BRANDS, brands
from clipsearch.images.tiff_tags import directory

DECODERS = (
    *("AVIF", "BMP", "DDS", "DIB", "GIF", "HEIF", "ICNS", "ICO", "JPEG", "JPEG2000", "PCX", "PNG", "PPM", "PSD", "QOI"),
    *("SGI", "TGA", "TIFF", "WEBP"),
)
"""The only Pillow decoders that are ever tried; none of them starts another program."""

_WITHOUT_SIGNATURE = ("AVIF", "HEIF", "PCX", "SGI", "TGA")
"""Told apart by more than their first bytes."""

_SHORTEST = 16
"""Bytes that Pillow looks at; there is no smaller picture."""


def format_of(content: bytes) -> str | None:
    """Which of the `DECODERS` is for this content."""
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
    """AVIF and HEIF have the same form: the brands in the first box tell what is inside."""
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
    """Whether this is TGA. The format has no signature but, since version 2, a footer; else the header must fit."""
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


def is_cut(content: bytes, name: str) -> bool:
    """Whether the end is missing, in the formats whose decoders make some picture of the rest, or do not say so."""
    if name == "JPEG2000":
        # There must be an end marker behind the start; coded data never holds these two bytes.
        return content.find(b"\xff\xd9", max(content.find(b"\xff\x4f\xff\x51"), 0)) < 0
    if name == "TIFF":
        return _is_directory_cut(content)
    if name == "WEBP":
        return 8 + int.from_bytes(content[4:8], "little") > len(content)
    return False


def _is_directory_cut(tiff: bytes) -> bool:
    """Whether tags of the first image are missing: then others mean something else."""
    found = directory(tiff)
    return found is None or found.end > len(tiff)


def icon_sizes(content: bytes) -> Iterator[tuple[int, int]]:
    """Width and height of all pictures in a Windows icon, as their own headers have it."""
    (count,) = struct.unpack_from("<H", content, 4)
    for icon in range(count):
        (start,) = struct.unpack_from("<I", content, 6 + 16 * icon + 12)
        if content.startswith(b"\x89PNG", start):
            yield struct.unpack_from(">II", content, start + 16)
        else:
            width, height = struct.unpack_from("<ii", content, start + 4)
            yield abs(width), abs(height) // 2  # the mask is counted as well
