"""Pixels of every kind that Pillow knows into what a person sees: eight bits, RGB, on white. Opens no file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import GifImagePlugin, Image, ImageChops, ImagePalette, TiffImagePlugin

from clipsearch.images import jpeg2000, layouts
from clipsearch.images.colour import Conversion

_Samples = npt.NDArray[Any]
"""(H, W) or (H, W, C) of integers or real numbers."""

_PART = 1 << 20
"""So many pixels at a time, where steps in between take much memory: four copies of a picture, or float64."""

_OFTEN_WITHOUT_ALPHA = ("BMP", "DIB", "TGA")
"""Formats in which many programs leave the fourth byte of a pixel zero, although the header calls it alpha."""
_BITS_PER_SAMPLE, _PHOTOMETRIC, _COLOR_MAP, _SAMPLE_FORMAT = 258, 262, 320, 339
_WHITE_IS_ZERO = 0
_UNSIGNED = 1


def as_seen(image: Image.Image, to_srgb: Conversion | None = None) -> Image.Image:
    """`image` in RGB, on white where it is transparent; itself if there is nothing to do.

    A picture of up to eight bits comes out as Pillow's `convert("RGB")` makes it. A grey one with more is scaled here:
    `convert` does not scale but makes everything from 255 on white. `to_srgb` is what its colours still need.
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
    """`image` averaged down as long as neither side gets shorter than `at_least` pixels, if that is simple to do.

    Changing the colours of a large picture may take as long as decoding it, and of a smaller one it does not.
    """
    factor = min(image.size) // at_least
    is_simple = image.mode in ("RGB", "CMYK", "L") and not image.has_transparency_data
    return image.reduce(factor) if factor > 1 and is_simple else image


def mend_palette(image: Image.Image) -> None:
    """Take the colour map of a TIFF for what it is, before pixels are read: some old programs write 0 to 255 into it.

    The format has 0 to 65535, and Pillow keeps the upper eight bits, which leaves a black page. libtiff's tools tell
    the two apart in this way as well.
    """
    if isinstance(image, TiffImagePlugin.TiffImageFile) and image.mode in ("P", "PA"):
        levels = image.tag_v2.get(_COLOR_MAP, ())
        if levels and max(levels) <= 255:  # noqa: PLR2004
            image.palette = ImagePalette.raw("RGB;L", bytes(levels))


def in_order(image: Image.Image, content: bytes) -> Image.Image:
    """`image` with its channels in the order red, green, blue, alpha; `content` is the file it comes from.

    Pillow passes over two peculiarities of Photoshop's files: the fourth channel may be a selection that somebody
    saved, which is left out here, and in a bitmap one is black. In TGA of 16 bits the last one need not be alpha.
    """
    if image.format == "TGA" and not layouts.targa_has_alpha(content):
        return image.convert("RGB")
    if image.format == "PSD":
        if image.mode == "1":
            return ImageChops.invert(image)
        if image.mode == "RGBA" and not layouts.psd_has_alpha(content):
            return image.convert("RGB")
    order = jpeg2000.channels(content) if image.format == "JPEG2000" else None
    if order is None or order == list(range(len(order))) or sorted(order) != list(range(len(image.getbands()))):
        return image
    bands = image.split()
    return Image.merge(image.mode, [bands[channel] for channel in order])


def _frame_on_white(gif: GifImagePlugin.GifImageFile) -> Image.Image:
    """The first frame where it belongs on the screen. It may be smaller; around it browsers show what is behind."""
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
    """Edges of stripes that are together the whole picture."""
    rows = max(1, _PART // image.width)
    for top in range(0, image.height, rows):
        yield 0, top, image.width, min(top + rows, image.height)


def _wide_as_seen(image: Image.Image) -> npt.NDArray[np.uint8]:
    """(H, W) levels of a grey picture with more than eight bits a pixel: modes I, F and the kinds of I;16."""
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
    """Bits of a sample, whether it is unsigned, whether white is zero: TIFF says so, and Pillow leaves it to its users.

    (Pillow does follow these tags in pictures of up to eight bits.)
    """
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return 16, False, False
    tags = image.tag_v2
    unsigned = tags.get(_SAMPLE_FORMAT, (_UNSIGNED,))[0] == _UNSIGNED
    return tags.get(_BITS_PER_SAMPLE, (1,))[0], unsigned, tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO


def black_and_white(samples: _Samples) -> tuple[float, float]:
    """Which values are black and white, for they mean nothing by themselves.

    The usual ones if all values lie between them: 0 to 65535 for integers, 0 to 1 or else 0 to 255 for real numbers.
    Otherwise the least and the greatest. What is not finite counts for nothing.
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
    """`samples` of any shape as levels from 0 to 255."""
    found = np.empty(samples.shape, np.uint8)
    for start in range(0, samples.size, _PART):
        part = slice(start, start + _PART)
        found.ravel()[part] = _scaled(samples.ravel()[part], black, white)
    return found


def _scaled(samples: _Samples, black: float, white: float) -> npt.NDArray[np.float64]:
    """Levels from 0 to 255. Infinities become the ends of the range, and what is no number becomes black."""
    low, high = min(black, white), max(black, white)
    with np.errstate(invalid="ignore"):  # of a signalling NaN NumPy warns, and on stderr nobody could use that
        values = np.nan_to_num(samples.astype(np.float64), nan=black, neginf=low, posinf=high)
    contrast = 255 / (white - black) if white != black else 0
    return np.rint((values.clip(low, high) - black) * contrast)
