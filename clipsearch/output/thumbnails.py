"""Thumbnails of image files, whole or of a region, for pages and terminals."""

from __future__ import annotations

import os

from PIL import Image, ImageDraw

from clipsearch.errors import UnreadableImageError
from clipsearch.images.codecs.box import Box
from clipsearch.images.codecs.decoding import DecodedImage, decode
from clipsearch.images.reading import read_file

Edges = tuple[int, int, int, int]
"""Left, top, right and bottom of a region, in pixels of the upright image at full size."""

FRAME, CASING = "#ffd60a", "#000000"
"""Colours of the outline of a region: a bright line on a dark one, so that it is seen on any picture."""

_SMALL = 64
"""Longest side in pixels of an image in which an outline has to be thin, so as not to cover everything."""


def thumbnail(path: bytes, side: int) -> Image.Image:
    """Return the image in the file `path`, RGB and upright, reduced so that neither side is longer than `side` pixels.

    Threads may call this at the same time; decoding releases the interpreter lock.

    Raises:
        UnreadableImageError: it cannot be read, or is gone.
    """
    # Reducing a JPEG in its decoder gives nearly the same pixels as reducing the full image: PSNR of 47 dB or more.
    return reduced(decode(read_file(path).data, os.path.basename(path), at_least=side), side)


def reduced(decoded: DecodedImage, side: int) -> Image.Image:
    """Return a decoded image, reduced so that neither side is longer than `side` pixels."""
    return _reduced(decoded.image, decoded.width, decoded.height, side, decoded.box)


def thumbnail_of_region(path: bytes, box: Edges, size: tuple[int, int] | None, side: int) -> Image.Image:
    """Return a region of an image like `thumbnail`; a JPEG is decoded at the scale that the region needs.

    Args:
        path: The file.
        box: The region.
        size: Width and height of the upright image, as far as they are known; else all of it is decoded.
        side: The longest side of what is returned, in pixels.

    Raises:
        UnreadableImageError: it cannot be read, is gone, or has become too small for the region.
    """
    longest = max(box[2] - box[0], box[3] - box[1])
    at_least = -(-min(size) * side // longest) if size else None
    decoded = decode(read_file(path).data, os.path.basename(path), at_least=at_least)
    _check(decoded, box)
    left, top, right, bottom = decoded.box
    x, y = (right - left) / decoded.width, (bottom - top) / decoded.height
    content = left + box[0] * x, top + box[1] * y, left + box[2] * x, top + box[3] * y
    return _reduced(decoded.image, box[2] - box[0], box[3] - box[1], side, content)


def cut(decoded: DecodedImage, box: Edges) -> Image.Image:
    """Return a region of a decoded image with all its pixels.

    Raises:
        UnreadableImageError: the region is not within it.
    """
    _check(decoded, box)
    return decoded.part(Box(*box))


def outlined(image: Image.Image, box: Edges, size: tuple[int, int]) -> Image.Image:
    """Return a thumbnail of an image of `size` (width, height) pixels with the outline of a region."""
    x, y = image.width / size[0], image.height / size[1]
    left, top = round(box[0] * x), round(box[1] * y)
    right, bottom = max(left, round(box[2] * x) - 1), max(top, round(box[3] * y) - 1)
    drawn = image.copy()
    draw = ImageDraw.Draw(drawn)
    line = 1 if max(image.size) < _SMALL else max(2, round(max(image.size) / 160))
    draw.rectangle((left - line // 2, top - line // 2, right + line // 2, bottom + line // 2), None, CASING, 2 * line)
    draw.rectangle((left, top, right, bottom), None, FRAME, line)
    return drawn


def in_words(box: Edges) -> str:
    """Return a region as `images.codecs.box.parse_box` reads it."""
    return ",".join(map(str, box))


def _check(decoded: DecodedImage, box: Edges) -> None:
    """Check that a region lies within an image.

    Raises:
        UnreadableImageError: it does not.
    """
    if box[2] > decoded.width or box[3] > decoded.height:
        raise UnreadableImageError(
            f"it has changed since it was indexed: now it has {decoded.width} x {decoded.height} pixels, "
            f"and the region was {in_words(box)}"
        )


def _reduced(
    image: Image.Image, width: int, height: int, side: int, content: tuple[float, float, float, float]
) -> Image.Image:
    """Reduce the `content` of an image that is `width` x `height` pixels large at full size."""
    scale = min(1, side / max(width, height))
    wanted = max(1, round(width * scale)), max(1, round(height * scale))
    # `reducing_gap`: large images are averaged first, which is faster and makes no visible difference.
    return image.resize(wanted, Image.Resampling.LANCZOS, content, reducing_gap=2.0)
