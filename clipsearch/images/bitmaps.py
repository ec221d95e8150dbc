"""BMP and DDS whose channels lie in any bits of a pixel: masks say where. And the profiles of BMP.

Neither Pillow nor the second decoder reads all of these BMPs right (imagecodecs keeps the lower eight of ten bits), and
Pillow reads such a DDS pixel by pixel in Python, while all threads wait. It is one line of arithmetic for each channel.

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
from clipsearch.images.layouts import TRUNCATED

_FILE_HEADER = 14
_OLDEST, _WITH_ALPHA_MASK = 40, 56
"""Sizes of headers: masks come behind the oldest; from the other on there is one for alpha."""
_WITH_PROFILE = 124
"""The size of the first header that tells where a profile lies."""
_MASKS, _MASKS_WITH_ALPHA = 3, 6
"""The two kinds of compression that say so."""
_OS2 = 64
"""The size of OS/2's header, in which these numbers mean something else."""
_LARGEST_TABLE = 1 << 16
_DDS_HEADER = 128
_DDS_COLOURS, _DDS_ALPHA = 0x40, 1
"""Flags of its pixels."""


@dataclass(frozen=True)
class Layout:
    """Where the pixels are."""

    width: int
    height: int
    bits: int
    """Of a pixel: 16, 24 or 32."""
    masks: tuple[int, ...]
    """Red, green, blue, alpha; zero if there is none."""
    start: int
    """Bytes before the first line."""
    line: int
    """Bytes from one line to the next."""
    upside_down: bool


def layout(content: bytes) -> Layout | None:
    """What the header says, if this is a picture to be read here; else None."""
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
    """Only if Pillow cannot read such a file (with or without the file header)."""
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
    """The ICC profile in a file (with or without the file header); empty if there is none. Pillow does not tell it."""
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
    """The picture, RGB or, where some alpha is not zero, RGBA.

    Raises:
        UnreadableImageError: the file is cut off.
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
    """(H, W) from 0 to 255."""
    if not mask:
        return np.zeros(pixels.shape, np.uint8)
    shift = (mask & -mask).bit_length() - 1
    while mask >> shift >= _LARGEST_TABLE:
        shift += 1
    white = mask >> shift
    levels = np.rint(np.arange(white + 1) * (255 / white)).astype(np.uint8)
    found: npt.NDArray[np.uint8] = levels[(pixels & mask) >> shift]
    return found
