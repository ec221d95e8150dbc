"""BMP and DDS images whose channels are given by bit masks, and the ICC profile of a BMP.

Neither Pillow nor the second decoder reads all of these BMPs right (imagecodecs keeps the lower eight of ten bits), and
Pillow reads such a DDS pixel by pixel in Python while it holds the interpreter lock. NumPy does it in one line a
channel.

Source: Microsoft's descriptions of BITMAPINFOHEADER, BITMAPV5HEADER, DDS_HEADER and DDS_PIXELFORMAT.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import BmpImagePlugin, Image

from clipsearch.errors import UnreadableImageError
from clipsearch.images.codecs.header_checks import TRUNCATED

_FILE_HEADER = 14
_OLDEST, _WITH_ALPHA_MASK = 40, 56
"""Sizes of two headers in bytes: masks follow the oldest, and from the other on there is a mask for alpha."""
_WITH_PROFILE = 124
"""Size in bytes of the first header that says where an ICC profile lies."""
_MASKS, _MASKS_WITH_ALPHA = 3, 6
"""Values of the compression field that mean bit masks."""
_OS2 = 64
"""Size in bytes of the OS/2 header, in which these compression values mean something else."""
_LARGEST_TABLE = 1 << 16
"""Entries of the lookup table of a channel; wider channels lose their lowest bits."""
_DDS_HEADER = 128
_DDS_COLOURS, _DDS_ALPHA = 0x40, 1
"""Flags of a DDS pixel format."""


@dataclass(frozen=True)
class Layout:
    """Where the pixels of an uncompressed image lie in its file."""

    width: int
    height: int
    bits: int
    """Bits of a pixel: 16, 24 or 32."""
    masks: tuple[int, ...]
    """Bit masks of red, green, blue and alpha; zero for a channel that is not there."""
    start: int
    """Offset of the first row in bytes."""
    line: int
    """Bytes from one row to the next."""
    upside_down: bool
    """Whether the bottom row is stored first."""


def layout(content: bytes) -> Layout | None:
    """Layout of a BMP or DDS that `decode` reads; None if Pillow reads it, or it is broken."""
    return _dds(content) if content.startswith(b"DDS ") else _bmp(content)


def _dds(content: bytes) -> Layout | None:
    try:
        height, width = struct.unpack_from("<2I", content, 12)
        flags, _, bits, *masks = struct.unpack_from("<7I", content, 80)
    except struct.error:
        return None
    if not flags & _DDS_COLOURS or bits not in (16, 24, 32) or not width * height:
        return None
    if not flags & _DDS_ALPHA:
        masks[3] = 0
    if not any(masks[:3]) or not all(mask < 1 << bits for mask in masks):
        return None
    return Layout(width, height, bits, tuple(masks), _DDS_HEADER, width * bits // 8, upside_down=False)


def _bmp(content: bytes) -> Layout | None:
    """Layout of a BMP, with or without its file header, that Pillow cannot read."""
    at = _FILE_HEADER if content.startswith(b"BM") else 0
    try:
        size, width, height, bits, compression = struct.unpack_from("<Iii2xHI", content, at)
        if compression not in (_MASKS, _MASKS_WITH_ALPHA) or bits not in (16, 32) or size == _OS2:
            return None
        number = 4 if compression == _MASKS_WITH_ALPHA or size >= _WITH_ALPHA_MASK else 3
        masks = struct.unpack_from(f"<{number}I", content, at + _OLDEST)
        start = max(size, _OLDEST + 4 * number) if not at else struct.unpack_from("<I", content, 10)[0]
    except struct.error:
        return None
    if width <= 0 or not height or not all(mask < 1 << bits for mask in masks) or not any(masks[:3]):
        return None
    if compression == _MASKS and not any(masks[3:]) and _is_known(content):
        return None
    line = (width * bits + 31) // 32 * 4
    return Layout(width, abs(height), bits, (*masks, 0)[:4], start, line, height > 0)


def profile(content: bytes) -> bytes:
    """ICC profile of a BMP, with or without its file header; empty if it has none. Pillow does not read it."""
    at = _FILE_HEADER if content.startswith(b"BM") else 0
    if content[at + 56 : at + 60] != b"DEBM" or int.from_bytes(content[at : at + 4], "little") < _WITH_PROFILE:
        return b""
    start, size = (int.from_bytes(content[at + field : at + field + 4], "little") for field in (112, 116))
    return content[at + start : at + start + size]


def _is_known(content: bytes) -> bool:
    plugin = BmpImagePlugin.BmpImageFile if content.startswith(b"BM") else BmpImagePlugin.DibImageFile
    try:
        plugin(io.BytesIO(content)).close()
    except OSError:
        return False
    return True


def decode(content: bytes, found: Layout) -> Image.Image:
    """Decode `content` to RGB, or to RGBA if any alpha is not zero.

    Raises:
        UnreadableImageError: the file is truncated.
    """
    size = found.line * found.height
    if found.start + size > len(content):
        raise UnreadableImageError(TRUNCATED)
    lines = np.frombuffer(content, np.uint8, size, found.start).reshape(found.height, found.line)
    lines = lines[:, : found.width * found.bits // 8]
    if found.bits == 24:  # noqa: PLR2004
        lines = np.pad(lines.reshape(found.height, found.width, 3), ((0, 0), (0, 0), (0, 1))).reshape(found.height, -1)
    pixels = lines.view("<u2" if found.bits == 16 else "<u4")  # noqa: PLR2004
    if found.upside_down:
        pixels = pixels[::-1]
    channels = [_channel(pixels, mask) for mask in found.masks]
    if not channels[3].any():  # as many programs leave it
        channels.pop()
    return Image.merge("RGBA"[: len(channels)], [Image.fromarray(channel) for channel in channels])


def _channel(pixels: npt.NDArray[np.unsignedinteger], mask: int) -> npt.NDArray[np.uint8]:
    """Extract the channel under `mask` from (H, W) pixels, scaled to 0 to 255."""
    if not mask:
        return np.zeros(pixels.shape, np.uint8)
    shift = (mask & -mask).bit_length() - 1
    while mask >> shift >= _LARGEST_TABLE:
        shift += 1
    white = mask >> shift
    levels = np.rint(np.arange(white + 1) * (255 / white)).astype(np.uint8)
    found: npt.NDArray[np.uint8] = levels[(pixels & mask) >> shift]
    return found
