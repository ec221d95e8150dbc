"""Recognition of image files by their first bytes, without Pillow: used for files without an image extension.

Recognises the formats of `recognising` except TGA, which has no signature. For formats with a short signature, more of
the header must be valid, since any file may come here.
"""

from __future__ import annotations

import re
import struct

from clipsearch.images.codecs import jpegxl
from clipsearch.images.codecs.header_checks import is_pcx, is_sgi
from clipsearch.images.codecs.raw import SIGNATURES as RAW_SIGNATURES

HEAD = 1024
"""Bytes that are needed; only the brands of AVIF and HEIF can take more than 128."""

AVIF_BRANDS = frozenset({b"avif", b"avis"})
HEIF_BRANDS = frozenset({b"heic", b"heim", b"heis", b"heix", b"hevc", b"hevm", b"hevs", b"hevx", b"mif1", b"msf1"})

_LEAST = 16
"""Bytes of the smallest file that is considered."""
_BEGINNINGS = (
    (b"\xff\xd8\xff", ".jpg"),
    (b"\x89PNG\r\n\x1a\n", ".png"),
    (b"GIF87a", ".gif"),
    (b"GIF89a", ".gif"),
    *((beginning, ".tif") for beginning in (b"II*\0", b"MM\0*", b"II\0*", b"MM*\0", b"II+\0", b"MM\0+")),
    (b"\xff\x4f\xff\x51", ".j2k"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", ".jp2"),
    (b"8BPS", ".psd"),
    (b"DDS ", ".dds"),
    (b"qoif", ".qoi"),
    (b"icns", ".icns"),
    *((beginning, ".jxl") for beginning in (jpegxl.CODESTREAM, jpegxl.CONTAINER)),
    *((beginning, ".raw") for beginning in RAW_SIGNATURES),
)
_NETPBM = re.compile(rb"P[1-6](?:#[^\n]*\n|\s)+\d+(?:#[^\n]*\n|\s)+\d+\s|P[fF]\s+\d+\s+\d+\s+[-+]?\d")
_BITMAP_HEADERS = (12, 40, 52, 56, 64, 108, 124)
_OLD_BITMAP_HEADER = 12
_BITMAP_DEPTHS = (1, 2, 4, 8, 16, 24, 32)
_ICON_HEADER, _ICON_ENTRY = 6, 16


def image_ending(head: bytes, size: int) -> str | None:
    """Return the usual extension of an image file's format, or None if it is no image.

    Args:
        head: The first `HEAD` bytes of the file, or all that it has.
        size: Bytes of the whole file.
    """
    if len(head) < _LEAST:
        return None
    for beginning, ending in _BEGINNINGS:
        if head.startswith(beginning):
            return ending
    if head[4:8] == b"ftyp":
        return _ending_of_brands(head)
    if head.startswith(b"RIFF"):
        return ".webp" if head[8:12] == b"WEBP" else None
    others = ((".bmp", _is_bitmap), (".ico", _is_icon), (".pnm", _is_netpbm), (".pcx", _is_pcx), (".sgi", _is_sgi))
    return next((ending for ending, fits in others if fits(head, size)), None)


def _ending_of_brands(head: bytes) -> str | None:
    found = brands(head)
    if found & AVIF_BRANDS:
        return ".avif"
    if found & HEIF_BRANDS:
        return ".heic"
    return ".cr3" if head[8:12] == b"crx " else None


def brands(content: bytes) -> set[bytes]:
    """Major and compatible brands in the first box of a file."""
    box = content[: min(int.from_bytes(content[:4], "big"), HEAD)]
    return {content[8:12], *(box[at : at + 4] for at in range(16, len(box), 4))}


def _is_bitmap(head: bytes, _: int) -> bool:
    """Whether this is a BMP, or a BMP without its file header (DIB)."""
    start = 14 if head.startswith(b"BM") else 0
    try:
        (length,) = struct.unpack_from("<I", head, start)
        if length not in _BITMAP_HEADERS:
            return False
        layout = "<HHHH" if length == _OLD_BITMAP_HEADER else "<iiHH"
        width, height, planes, depth = struct.unpack_from(layout, head, start + 4)
    except struct.error:
        return False
    return bool(width and height) and planes == 1 and (depth in _BITMAP_DEPTHS or (depth == 0 and start > 0))


def _is_icon(head: bytes, size: int) -> bool:
    if not head.startswith(b"\0\0\1\0"):
        return False
    try:
        (count,) = struct.unpack_from("<H", head, 4)
        reserved, length, start = struct.unpack_from("<3xB4xII", head, _ICON_HEADER)
    except struct.error:
        return False
    fits: bool = _ICON_HEADER + count * _ICON_ENTRY <= start < start + length <= size
    return fits and count > 0 and reserved == 0


def _is_netpbm(head: bytes, _: int) -> bool:
    return _NETPBM.match(head) is not None


def _is_pcx(head: bytes, _: int) -> bool:
    return is_pcx(head)


def _is_sgi(head: bytes, _: int) -> bool:
    return is_sgi(head)
