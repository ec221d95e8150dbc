"""One image that a caller named or opened, whole, as a person sees it."""

from __future__ import annotations

import os

from PIL import Image

from clipsearch.errors import InputError, UnreadableImageError
from clipsearch.images.codecs.decoding import decode
from clipsearch.images.codecs.pixels import as_seen
from clipsearch.images.reading import read_image


def open_image(image: str | os.PathLike[str] | Image.Image) -> Image.Image:
    """Return an image in RGB, upright, on white where it is transparent.

    Args:
        image: A path, or a Pillow image.

    Raises:
        InputError: it cannot be read.
    """
    if isinstance(image, Image.Image):
        return as_seen(image)
    name = os.fsencode(image)
    try:
        decoded = decode(read_image(name), os.path.basename(name))
    except UnreadableImageError as error:
        raise InputError(f"Cannot read the image {os.fsdecode(name)}: {error}") from error
    left, top, right, bottom = decoded.box
    return decoded.image.crop((int(left), int(top), int(right), int(bottom)))
