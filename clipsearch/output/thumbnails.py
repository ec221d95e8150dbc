"""Thumbnails of image files, for pages and terminals."""

from __future__ import annotations

import os

from PIL import Image

from clipsearch.images.decoding import decode
from clipsearch.images.reading import read_file


def thumbnail(path: bytes, side: int) -> Image.Image:
    """Return the image in the file `path`, RGB and upright, reduced so that neither side is longer than `side` pixels.

    Threads may call this at the same time; decoding releases the interpreter lock.

    Raises:
        UnreadableImageError: it cannot be read, or is gone.
    """
    # Reducing a JPEG in its decoder gives nearly the same pixels as reducing the full image: PSNR of 47 dB or more.
    decoded = decode(read_file(path).data, os.path.basename(path), at_least=side)
    width, height = decoded.width, decoded.height
    scale = min(1, side / max(width, height))
    wanted = max(1, round(width * scale)), max(1, round(height * scale))
    # `reducing_gap`: large images are averaged first, which is faster and makes no visible difference.
    return decoded.image.resize(wanted, Image.Resampling.LANCZOS, decoded.box, reducing_gap=2.0)
