"""Small upright pictures of hits, for pages and terminals."""

from __future__ import annotations

import os

from PIL import Image

from clipsearch.images.decoding import decode
from clipsearch.images.reading import read_file


def thumbnail(path: bytes, side: int) -> Image.Image:
    """The picture in the file `path`, RGB and upright, made smaller so that neither side is longer than `side` pixels.

    Threads may call this at the same time; decoding lets go of Python's lock.

    Raises:
        UnreadableImageError: it cannot be read any more, or is gone.
    """
    # What a JPEG decoder leaves out already is made smaller just as well: 47 dB or more from the full picture's.
    picture = decode(read_file(path).data, os.path.basename(path), at_least=side)
    width, height = picture.width, picture.height
    scale = min(1, side / max(width, height))
    wanted = max(1, round(width * scale)), max(1, round(height * scale))
    # `reducing_gap`: large pictures are averaged first, which is faster and not to be seen here.
    return picture.image.resize(wanted, Image.Resampling.LANCZOS, picture.box, reducing_gap=2.0)
