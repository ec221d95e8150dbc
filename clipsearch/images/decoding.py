"""The content of one image file into a picture as a person sees it."""

from __future__ import annotations

import io
from dataclasses import dataclass
from datetime import datetime

from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from clipsearch.errors import UnreadableImageError

DECODERS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
"""The only Pillow decoders that are ever tried, by content; none of them starts another program."""


@dataclass(frozen=True)
class Picture:
    """One decoded image."""

    image: Image.Image
    """RGB and upright; the first frame of an animation, on white where it was transparent."""
    width: int
    """Pixels, upright and before any reduction."""
    height: int
    taken_at: str | None
    """ISO 8601 local time from EXIF, where the file tells."""


def decode(content: bytes) -> Picture:
    """Decode an image file's content.

    Raises:
        UnreadableImageError: the content is no supported image, is truncated or is broken.
    """
    try:
        with Image.open(io.BytesIO(content), formats=DECODERS) as image:
            taken_at = _taken_at(image)
            upright = ImageOps.exif_transpose(image)
            rgb = _on_white(upright)
    except UnidentifiedImageError as error:
        raise UnreadableImageError("empty file" if not content else "not an image of a known format") from error
    except Image.DecompressionBombError as error:
        raise UnreadableImageError(f"too large to decode safely: {error}") from error
    # Decoders report damage in whatever way they notice it.
    except (
        OSError,
        SyntaxError,
        ValueError,
        IndexError,
        KeyError,
        TypeError,
        EOFError,
        OverflowError,
    ) as error:
        raise UnreadableImageError(f"broken image: {error}") from error
    return Picture(rgb, rgb.width, rgb.height, taken_at)


def _on_white(image: Image.Image) -> Image.Image:
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _taken_at(image: Image.Image) -> str | None:
    exif = image.getexif()
    text = exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.DateTimeOriginal) or exif.get(ExifTags.Base.DateTime)
    try:
        return datetime.strptime(str(text), "%Y:%m:%d %H:%M:%S").isoformat()  # noqa: DTZ007  (EXIF has no zone)
    except ValueError:
        return None
