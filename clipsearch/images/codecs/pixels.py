"""Conversion of every pixel mode of Pillow to eight-bit RGB on white. Opens no file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import GifImagePlugin, Image, ImageChops, ImagePalette, TiffImagePlugin

from clipsearch.images.codecs import header_checks, jpeg2000
from clipsearch.images.codecs.colour import Conversion

_Samples = npt.NDArray[Any]
"""(H, W) or (H, W, C) of integers or real numbers."""

_PART = 1 << 20
"""Pixels that are converted at a time: intermediate steps take four copies of an image, or float64."""

_OFTEN_WITHOUT_ALPHA = ("BMP", "DIB", "TGA")
"""Formats in which many programs leave the alpha byte zero, although the header declares alpha."""
_BITS_PER_SAMPLE, _PHOTOMETRIC, _COLOR_MAP, _SAMPLE_FORMAT = 258, 262, 320, 339
_WHITE_IS_ZERO = 0
_UNSIGNED = 1


def as_seen(image: Image.Image, to_srgb: Conversion | None = None) -> Image.Image:
    """Convert `image` to RGB, on white where it is transparent; return it unchanged if there is nothing to do.

    An image of up to eight bits is the same as after Pillow's `convert("RGB")`. A grey image with more bits is scaled
    here, since `convert` clips at 255. `to_srgb` is applied to the colours.
    """
    if image.mode.startswith(("I", "F")):
        return _opaque(Image.fromarray(_wide_as_seen(image)), to_srgb)
    if image.mode == "La":
        image = image.convert("LA")  # the only way out of this mode
    if image.format in _OFTEN_WITHOUT_ALPHA and image.mode == "RGBA" and not image.getbbox(alpha_only=True):
        return _opaque(image.convert("RGB"), to_srgb)
    if isinstance(image, GifImagePlugin.GifImageFile):
        return _frame_on_white(image)
    if image.has_transparency_data:
        return _on_white(image, to_srgb)
    return _opaque(image, to_srgb)


def reduced(image: Image.Image, at_least: int) -> Image.Image:
    """Average `image` down by a whole factor so that neither side gets shorter than `at_least` pixels.

    Converting the colours of a large image may take as long as decoding it. Images in other modes than RGB, CMYK and L,
    or with transparency, are returned unchanged.
    """
    factor = min(image.size) // at_least
    is_simple = image.mode in ("RGB", "CMYK", "L") and not image.has_transparency_data
    return image.reduce(factor) if factor > 1 and is_simple else image


def mend_palette(image: Image.Image) -> None:
    """Correct the palette of a TIFF, before its pixels are read, if its values are 0 to 255 instead of 0 to 65535.

    Some old programs write that, and Pillow keeps the upper eight bits, which gives a black page. libtiff's tools
    detect it in the same way.
    """
    if isinstance(image, TiffImagePlugin.TiffImageFile) and image.mode in ("P", "PA"):
        levels = image.tag_v2.get(_COLOR_MAP, ())
        if levels and max(levels) <= 255:  # noqa: PLR2004
            image.palette = ImagePalette.raw("RGB;L", bytes(levels))


def mend_transparency(png: Image.Image, depth: int) -> None:
    """Scale the transparent colour to eight bits like the pixels; Pillow leaves it in the file's depth."""
    transparent = png.info.get("transparency")
    if png.mode == "L" and isinstance(transparent, int):
        white = 2**depth - 1
        png.info["transparency"] = (transparent & white) * 255 // white
    elif png.mode == "RGB" and depth == 16 and isinstance(transparent, tuple):  # noqa: PLR2004
        png.info["transparency"] = tuple(level >> 8 for level in transparent)


def in_order(image: Image.Image, content: bytes) -> Image.Image:
    """Put the channels of `image`, which was decoded from the file `content`, in the order red, green, blue, alpha.

    Pillow ignores that the fourth channel of a PSD may be a saved selection, that 1 is black in a PSD bitmap, and that
    the last bit of a 16-bit TGA need not be alpha.
    """
    if image.format == "TGA" and not header_checks.targa_has_alpha(content):
        return image.convert("RGB")
    if image.format == "PSD":
        if image.mode == "1":
            return ImageChops.invert(image)
        if image.mode == "RGBA" and not header_checks.psd_has_alpha(content):
            return image.convert("RGB")
    order = jpeg2000.channels(content) if image.format == "JPEG2000" else None
    if order is None or order == list(range(len(order))) or sorted(order) != list(range(len(image.getbands()))):
        return image
    bands = image.split()
    return Image.merge(image.mode, [bands[channel] for channel in order])


def _frame_on_white(gif: GifImagePlugin.GifImageFile) -> Image.Image:
    """Place the first frame of a GIF on its canvas, which is white around it: browsers show the page there."""
    seen = _on_white(gif) if gif.has_transparency_data else gif.convert("RGB")
    frame = gif.dispose_extent
    if frame == (0, 0, *gif.size):
        return seen
    screen = Image.new("RGB", gif.size, "white")
    screen.paste(seen.crop(frame), frame)
    return screen


def _opaque(image: Image.Image, to_srgb: Conversion | None) -> Image.Image:
    if to_srgb is None:
        return image if image.mode == "RGB" else image.convert("RGB")
    seen = Image.new("RGB", image.size)
    for box in _parts(image):
        part = image.crop(box)
        seen.paste(to_srgb(part if image.mode in ("RGB", "CMYK") else part.convert("RGB")), box)
    return seen


def _on_white(image: Image.Image, to_srgb: Conversion | None = None) -> Image.Image:
    seen = Image.new("RGB", image.size)
    for box in _parts(image):
        part = image.crop(box).convert("RGBA")
        if to_srgb is not None:
            part = to_srgb(part)
        white = Image.new("RGBA", part.size, "white")
        seen.paste(Image.alpha_composite(white, part).convert("RGB"), box)
    return seen


def _parts(image: Image.Image) -> Iterator[tuple[int, int, int, int]]:
    """Yield boxes of horizontal stripes that cover the image."""
    rows = max(1, _PART // image.width)
    for top in range(0, image.height, rows):
        yield 0, top, image.width, min(top + rows, image.height)


def _wide_as_seen(image: Image.Image) -> npt.NDArray[np.uint8]:
    """Scale a grey image with more than eight bits (modes I, F and I;16) to (H, W) levels from 0 to 255."""
    samples: _Samples = np.asarray(image)
    bits, unsigned, white_is_zero = _tiff_tags(image)
    if image.mode == "I" and bits == 32 and unsigned:  # noqa: PLR2004
        samples = samples.view(np.uint32)
    black, white = (0, 2**bits - 1) if image.mode.startswith("I;16") else black_and_white(samples)
    if white_is_zero:
        black, white = white, black
    seen = levels(samples, black, white)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        seen[samples == transparent] = 255
    return seen


def _tiff_tags(image: Image.Image) -> tuple[int, bool, bool]:
    """Bits of a sample, whether it is unsigned, and whether white is zero, by the tags of a TIFF.

    Pillow follows these tags only in images of up to eight bits.
    """
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return 16, False, False
    tags = image.tag_v2
    unsigned = tags.get(_SAMPLE_FORMAT, (_UNSIGNED,))[0] == _UNSIGNED
    return tags.get(_BITS_PER_SAMPLE, (1,))[0], unsigned, tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO


def black_and_white(samples: _Samples) -> tuple[float, float]:
    """Return the values that are shown as black and white, for samples without a fixed range.

    These are 0 and 65535 for integers, and 0 and 1, or else 0 and 255, for real numbers, if all samples lie between
    them; otherwise the least and the greatest sample. Infinities and NaN are ignored.
    """
    real = samples.dtype.kind == "f"
    known = samples[np.isfinite(samples)] if real else samples
    if not known.size:
        return 0, 1
    least, greatest = float(known.min()), float(known.max())
    for usual in (1, 255) if real else (65535,):
        if least >= 0 and greatest <= usual:
            return 0, usual
    return least, greatest


def levels(samples: _Samples, black: float, white: float) -> npt.NDArray[np.uint8]:
    """Scale `samples` of any shape to uint8 levels from 0 (`black`) to 255 (`white`)."""
    found = np.empty(samples.shape, np.uint8)
    for start in range(0, samples.size, _PART):
        part = slice(start, start + _PART)
        found.ravel()[part] = _scaled(samples.ravel()[part], black, white)
    return found


def _scaled(samples: _Samples, black: float, white: float) -> npt.NDArray[np.float64]:
    """Scale to 0 to 255. Infinities become the ends of the range, and NaN becomes black."""
    low, high = min(black, white), max(black, white)
    with np.errstate(invalid="ignore"):  # NumPy would warn of a signalling NaN
        values = np.nan_to_num(samples.astype(np.float64), nan=black, neginf=low, posinf=high)
    contrast = 255 / (white - black) if white != black else 0
    return np.rint((values.clip(low, high) - black) * contrast)
