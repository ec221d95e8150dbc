"""Kinds of images that Pillow does not support or shows wrongly, and the second decoder reads; recognised by headers.

Decodes nothing. Each kind has a name, by which it is refused if the second decoder is not installed.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Literal

from clipsearch.errors import UnreadableImageError
from clipsearch.images.codecs import avif, jpeg2000, jpegxl
from clipsearch.images.codecs.optional_packages import is_installed
from clipsearch.images.codecs.tiff_tags import whole_numbers

Codec = Literal["avif", "jpeg", "jpeg2000", "jpegls", "jpegxl", "qoi", "tiff"]

Channels = Literal["usual", "CMYK", "without alpha", "premultiplied"]


@dataclass(frozen=True)
class Header:
    """What the second decoder must know about an image."""

    codec: Codec
    kind: str
    """Name for users: "TIFF with real numbers in colour"."""
    width: int
    """Pixels, as stored."""
    height: int
    """Pixels, as stored."""
    bits: int = 8
    """Bits of a sample; white is 2**bits - 1 if samples are integers."""
    orientation: int = 1
    """EXIF orientation that the container declares."""
    channels: Channels = "usual"
    """How the decoded channels are interpreted, if the decoder does not say."""
    extra: str = "formats"
    """Extra of clipsearch that must be installed."""


def header(content: bytes, name: str | None) -> Header | None:
    """Return the header of an image for the second decoder, or None if it is not for it.

    Args:
        content: The file.
        name: Pillow's name of its format, or None if Pillow does not know it.

    Raises:
        UnreadableImageError: neither decoder reads this kind correctly, or the header of a JPEG XL is broken.
    """
    if content.startswith((jpegxl.CODESTREAM, jpegxl.CONTAINER)):
        return _jpeg_xl(content)
    finders = {"AVIF": _avif, "JPEG": _jpeg, "JPEG2000": _jpeg_2000, "QOI": _qoi, "TIFF": _tiff}
    return finders[name](content) if name in finders else None


def _jpeg_xl(content: bytes) -> Header:
    found = jpegxl.header(content)
    if found is None:
        raise UnreadableImageError("broken image: JPEG XL whose header makes no sense, or is cut off")
    if jpegxl.BLACK in found.extras:
        raise UnreadableImageError("unsupported: JPEG XL in CMYK")
    channels: Channels = "premultiplied" if found.is_premultiplied else "usual"
    if found.extras[:1] != (jpegxl.ALPHA,):
        channels = "without alpha"
    return Header("jpegxl", "JPEG XL", found.width, found.height, found.bits, channels=channels, extra="jxl")


_UNKNOWN_MATRICES = (3, 10, 11, 13, 14)
"""Matrix coefficients (ITU-T H.273) that libavif does not support."""


def _avif(content: bytes) -> Header | None:
    found = avif.header(content)
    if found is None:
        return None
    if found.matrix in _UNKNOWN_MATRICES:
        raise UnreadableImageError(f"unsupported: AVIF whose colours are coded by a rare formula ({found.matrix})")
    if not found.alpha_lacks_size:
        return None
    kind = "AVIF whose transparency does not say its size"
    return Header("avif", kind, found.width, found.height, found.bits, found.orientation)


def _jpeg_2000(content: bytes) -> Header | None:
    found = jpeg2000.header(content)
    if found is None or min(found.width, found.height) <= 0 or not 1 <= len(found.bits) <= 4:  # noqa: PLR2004
        return None
    depth = max(found.bits)
    kind = None
    if found.has_palette:
        kind = "with a palette"
    elif found.in_tiles and found.has_coarse_channels:
        kind = "in tiles whose colours have a lower resolution"
    elif found.has_signs:
        kind = "with signed numbers"
    elif min(found.bits) < 8 or (depth > 8 and len(found.bits) > 1) or depth > 16:  # noqa: PLR2004
        # Pillow scales fewer bits to 240 of 255, and more in colour so that the lightest becomes black.
        kind = f"with {len(found.bits)} x {depth} bits"
    if kind is None:
        return None
    channels: Channels = "CMYK" if found.colour_space == jpeg2000.CMYK else "usual"
    return Header("jpeg2000", f"JPEG 2000 {kind}", found.width, found.height, depth, channels=channels)


_END_OF_QOI = bytes(7) + b"\1"


def _qoi(content: bytes) -> Header | None:
    """Only if the second decoder is installed: Pillow reads QOI too, but in Python, with the interpreter lock."""
    if not content.endswith(_END_OF_QOI) or not is_installed("formats"):
        return None
    width, height = struct.unpack_from(">2I", content, 4)
    return Header("qoi", "QOI", width, height)


# --- JPEG ---

_ALONE = {0x01, *range(0xD0, 0xD9)}
"""Markers without parameters."""
_START_OF_SCAN, _JPEG_LS = 0xDA, 0xF7
_FRAMES = {0xC0, 0xC1, 0xC2, 0xC3, 0xC9, 0xCA, 0xCB, _JPEG_LS}
"""Markers of frame headers, which have the size, of the coding processes that a decoder supports."""
_LOSSLESS = {0xC3, 0xCB}


def is_lossless_jpeg(content: bytes) -> bool:
    """Whether a JPEG is lossless. Pillow 12.0 crashes if it is asked to decode one at reduced size."""
    return (frame := _frame(content)) is not None and frame[0] in _LOSSLESS


def _jpeg(content: bytes) -> Header | None:
    if (frame := _frame(content)) is None:
        return None
    marker, bits, height, width, channels = frame
    if not width * height or not 2 <= bits <= 16 or channels not in (1, 3):  # noqa: PLR2004
        return None
    if marker == _JPEG_LS:
        return Header("jpegls", "JPEG-LS", width, height, bits)
    if bits == 8:  # noqa: PLR2004
        return None
    return Header("jpeg", f"{'lossless ' * (marker in _LOSSLESS)}JPEG with {bits} bits", width, height, bits)


def _frame(content: bytes) -> tuple[int, int, int, int, int] | None:
    """Return marker, bits, height, width and channels of a JPEG's first frame (ITU-T T.81, B.2.2); None if missing."""
    at = 2
    while at + 10 <= len(content) and content[at] == 0xFF:  # noqa: PLR2004
        marker = content[at + 1]
        if marker == 0xFF:  # noqa: PLR2004
            at += 1  # a byte that fills up
            continue
        if marker in _FRAMES:
            bits, height, width, channels = struct.unpack_from(">BHHB", content, at + 4)
            return marker, bits, height, width, channels
        if marker == _START_OF_SCAN:
            return None
        at += 2 if marker in _ALONE else 2 + int.from_bytes(content[at + 2 : at + 4], "big")
    return None


# --- TIFF ---

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_SAMPLES, _PLANES, _EXTRA, _FORMAT = 277, 284, 338, 339
_SUBSAMPLING = 530
_GREY_KINDS, _CMYK, _YCBCR = (0, 1), 5, 6
_COLOURS = {2: "RGB", 5: "CMYK", 6: "YCbCr", 8: "CIELAB", 9: "CIELAB", 32844: "LogL", 32845: "LogLuv"}
_UNSIGNED, _SIGNED, _REAL = 1, 2, 3
_FORMATS = {_SIGNED: "signed numbers", _REAL: "real numbers"}
_COMPRESSIONS = {33005: "JPEG 2000", 34712: "JPEG 2000", 34887: "LERC", 34933: "PNG", 50002: "JPEG XL"}
"""Compressions of TIFF that Pillow lacks and the second decoder has."""
_GREY_OF_PILLOW = {
    *((1, _UNSIGNED, bits, order) for bits in (1, 2, 4, 8, 16) for order in "<>"),
    *((1, _UNSIGNED, bits, "<") for bits in (12, 32)),
    *((1, _SIGNED, bits, order) for bits in (8, 16, 32) for order in "<>"),
    *((0, _UNSIGNED, bits, order) for bits in (1, 2, 4, 8) for order in "<>"),
    (0, _UNSIGNED, 16, "<"),
    *((white_is_zero, _REAL, 32, order) for white_is_zero in (0, 1) for order in "<>"),
}
"""Photometric interpretation, format, bits, byte order."""


def _tiff(content: bytes) -> Header | None:
    order = "<" if content.startswith(b"II") else ">"
    tags = whole_numbers(content)
    photometric, planes = tags.get(_PHOTOMETRIC, (0,))[0], tags.get(_PLANES, (1,))[0]
    samples = tags.get(_SAMPLES, (1,))[0]
    bits, compression = tags.get(_BITS, (1,)), tags.get(_COMPRESSION, (1,))[0]
    numbers = {0: _UNSIGNED, 4: _UNSIGNED}.get(form := tags.get(_FORMAT, (_UNSIGNED,))[0], form)
    width, height = tags.get(_WIDTH, (0,))[0], tags.get(_HEIGHT, (0,))[0]
    if not width * height or not 1 <= samples <= 8 or not 1 <= max(bits) <= 64 or numbers > _REAL:  # noqa: PLR2004
        return None
    kind = None
    if order == ">" and content[2:4] == b"\0+":
        kind = "BigTIFF in big-endian order"
    elif compression in _COMPRESSIONS:
        kind = f"TIFF with {_COMPRESSIONS[compression]} inside"
    elif photometric in _GREY_KINDS and samples == 1:
        if (photometric, numbers, bits[0], order) not in _GREY_OF_PILLOW:
            kind = f"grey TIFF with {bits[0]} bits{_of(numbers)}"
    elif photometric == _YCBCR and compression == 1 and tags.get(_SUBSAMPLING, (2, 2)) != (1, 1):
        kind = "TIFF in YCbCr with coarser colours, not compressed"
    elif not _pillow_reads_colours(photometric, samples, bits, numbers, planes):
        name = _COLOURS.get(photometric, "grey with transparency")
        kind = f"TIFF in {name} with {samples} x {max(bits)} bits{_of(numbers)}"
    return Header("tiff", kind, width, height, max(bits)) if kind else None


def _of(numbers: int) -> str:
    return f" of {_FORMATS[numbers]}" if numbers in _FORMATS else ""


def _pillow_reads_colours(photometric: int, samples: int, bits: tuple[int, ...], numbers: int, planes: int) -> bool:
    if photometric not in _COLOURS and not (photometric in _GREY_KINDS and samples == 2):  # noqa: PLR2004
        return True  # whatever it is, the second decoder does not know it
    if numbers != _UNSIGNED or len(set(bits)) > 1:
        return False
    if photometric in (2, _CMYK):
        most = {8: {2: 6, _CMYK: 4}, 16: {2: 4, _CMYK: 4}}.get(bits[0], {})
        return samples <= most.get(photometric, 0)
    if photometric == 8:  # noqa: PLR2004
        return bits[0] == 8 and samples == 3 and planes == 1  # noqa: PLR2004
    return photometric in (1, _YCBCR) and bits[0] == 8 and planes == 1  # noqa: PLR2004
