"""BMP whose channels lie in the bits of a pixel in a way that Pillow does not know: masks say where.

Neither Pillow nor the second decoder reads these right (imagecodecs keeps the lower eight of ten bits), and it is one
line of arithmetic for each channel.

Source: Microsoft's description of BITMAPINFOHEADER and BITMAPV5HEADER.
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
_MASKS, _MASKS_WITH_ALPHA = 3, 6
"""The two kinds of compression that say so."""
_OS2 = 64
"""The size of OS/2's header, in which these numbers mean something else."""
_LARGEST_TABLE = 1 << 16


@dataclass(frozen=True)
class Layout:
    """Where the pixels are."""

    width: int
    height: int
    bits: int
    """Of a pixel: 16 or 32."""
    masks: tuple[int, ...]
    """Red, green, blue, alpha; zero if there is none."""
    start: int
    """Bytes before the first line."""
    upside_down: bool


def layout(content: bytes) -> Layout | None:
    """What the header says, if Pillow cannot read such a file (with or without the file header); else None."""
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
    return Layout(width, abs(height), bits, (*masks, 0)[:4], start, height > 0)


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
    line = (found.width * found.bits + 31) // 32 * 4
    if found.start + line * found.height > len(content):
        raise UnreadableImageError(TRUNCATED)
    lines = np.frombuffer(content, np.uint8, line * found.height, found.start).reshape(found.height, line)
    pixels = lines[:, : found.width * found.bits // 8].view(f"<u{found.bits // 8}")
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
