"""A damaged picture: the pixels that are there, and what share of it is missing.

Decoders fill in what they do not find, or leave it as it was, and say neither where nor how much. So the file is
decoded twice, over two backgrounds and with two different ends where the format needs one: where the two pictures
agree, the pixels come from the file. Only files that were refused as they are come here, so good ones cost nothing.

Knows nothing of where a file comes from, nor of formats that its decoder refuses whole.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile

from clipsearch.errors import UnreadableImageError
from clipsearch.images.cut_files import Ends, Jpeg, Scan, read_jpeg
from clipsearch.images.shares import percent

LEAST_SHARE = 0.5
"""Of a picture that must be there."""

_GREY = (128, 128, 128)
"""The background, and what is shown where nothing is known."""
_EDGE_ROWS, _FADING = 16, 0.05
"""Over how many rows a mean is taken, and over which share of the height the last row fades."""
_WIDE = ("I", "F")
"""How the names of modes begin that have other levels than 0 to 255."""

_PART = 1 << 20
"""So many pixels are compared at a time."""


class TooLittleError(UnreadableImageError):
    """Less of a picture is there than the least share."""


class Loss(NamedTuple):
    """What a picture lacks."""

    share: float
    """0 to 1."""
    made_up: npt.NDArray[np.bool_] | None
    """(H, W) pixels; None if the decoder has filled them in well."""
    is_interlaced: bool = False
    """Whether every other line, or every other pixel, may be one of them."""

    def painted(self, image: Image.Image) -> Image.Image:
        """An RGB picture with the colours that are next to what is missing in its place."""
        lost = self.made_up
        if lost is None or not lost.any() or lost.shape != (image.height, image.width):
            return image
        pixels = np.array(image)
        if self.is_interlaced:
            lost = _spread(pixels, lost)
        if lost[0].any() and not lost[-1].any():  # it is stored upside down
            _fill_below(pixels[::-1], lost[::-1])
        else:
            _fill_below(pixels, lost)
        return Image.fromarray(pixels)


NOTHING = Loss(0.0, None)
"""Is missing."""


def load_both(image: ImageFile.ImageFile, other: ImageFile.ImageFile, given: Ends) -> Loss:
    """Load as much of two images, opened from `given`, as there is; what is missing of the first.

    Raises:
        TooLittleError: less than the least share is there.
        UnreadableImageError: nothing is.
    """
    _load_over(image, is_shown=True)
    _load_over(other, is_shown=False)
    if (image.size, image.mode) != (other.size, other.mode):
        raise UnreadableImageError("broken image: its size is not clear")
    loss = _loss(image, other, given)
    if loss.share >= 1:
        raise UnreadableImageError("broken image")
    if 1 - loss.share < LEAST_SHARE:
        raise TooLittleError(f"{percent(1 - loss.share)} of it is there")
    return loss


def _loss(image: ImageFile.ImageFile, other: ImageFile.ImageFile, given: Ends) -> Loss:
    made_up = _made_up(image, other)
    if image.format in ("JPEG", "MPO"):
        return _jpeg_loss(given.shown, made_up)
    if image.format in ("WEBP", "AVIF", "HEIF") and made_up.any():
        return _lost_below(made_up)
    if given.missing is not None:
        return Loss(given.missing, made_up)
    return Loss(float(made_up.mean()), made_up, bool(image.info.get("interlace")) or image.format == "GIF")


def _load_over(image: ImageFile.ImageFile, *, is_shown: bool) -> None:
    """Load an image over one of two backgrounds, as far as that goes."""
    prepare = image.load_prepare

    def prepare_over() -> None:
        prepare()
        # Of levels without a fixed range the least: what is black and white is told by what is found in them.
        one, another = (0, 1) if image.mode.startswith(_WIDE) else (_GREY[0], 0)
        # An alpha that is zero everywhere means nothing in some formats, and must stay so.
        alone, alpha = (one, 0) if is_shown else (another, 255)
        levels = [alpha if band in "Aa" else alone for band in image.getbands()]
        image.im.paste(tuple(levels) if len(levels) > 1 else alone, (0, 0, *image.im.size))

    image.load_prepare = prepare_over  # type: ignore[method-assign]
    with _as_far_as_it_goes():
        image.load()
    del image.load_prepare  # which holds the image, and would keep it in memory
    if image._im is None:  # noqa: SLF001  (asking for `im` raises)
        raise UnreadableImageError("broken image")
    if image.tile:
        image.tile = []  # so that nothing loads it again
        with _as_far_as_it_goes():
            image.load_end()


def _made_up(image: Image.Image, other: Image.Image) -> npt.NDArray[np.bool_]:
    """(H, W) the pixels that two pictures do not agree on."""
    made_up = np.empty((image.height, image.width), np.bool_)
    rows = max(1, _PART // image.width)
    for top in range(0, image.height, rows):
        box = (0, top, image.width, min(top + rows, image.height))
        part: npt.NDArray[np.generic] = np.asarray(image.crop(box))
        differ = np.not_equal(part, np.asarray(other.crop(box)))
        made_up[top : box[3]] = differ.reshape(box[3] - top, image.width, -1).any(axis=2)
    return made_up


@contextmanager
def _as_far_as_it_goes() -> Iterator[None]:
    """Within: of broken data decoders raise whatever they stumble over; what they have done so far counts."""
    try:
        yield
    except (MemoryError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise
    except Exception:  # noqa: BLE001, S110
        pass


def _spread(pixels: npt.NDArray[np.uint8], lost: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Give (H, W, 3) pixels that are lost the colours of those left of them and above; what is lost all the same."""
    lost = lost.copy()
    for step in (1, 2, 4):  # as far as the passes of PNG and GIF are apart
        for to, source in ((np.s_[:, step:], np.s_[:, :-step]), (np.s_[step:], np.s_[:-step])):
            found = lost[to] & ~lost[source]
            pixels[to][found] = pixels[source][found]
            lost[to] &= ~found
    return lost


def _fill_below(pixels: npt.NDArray[np.uint8], lost: npt.NDArray[np.bool_]) -> None:
    """Fill (H, W, 3) pixels that are lost: the last row before them, fading into the mean colour there.

    Of grey, white, mirrored and repeated rows, it is this that changes a picture's vector least (docs/reliability.md).
    """
    rows = np.flatnonzero(lost.any(axis=1))
    if not rows.size:
        return
    first = int(rows[0])
    mean = pixels[max(0, first - _EDGE_ROWS) : first].mean(axis=(0, 1)) if first else np.array(_GREY)
    edge = pixels[max(0, first - 1)].astype(np.float32) if first else mean
    for row in rows.tolist():
        weight = math.exp((first - row) / (_FADING * len(pixels)))
        filled = weight * edge + (1 - weight) * mean
        pixels[row] = np.where(lost[row][:, np.newaxis], filled.astype(np.uint8), pixels[row])


def _lost_below(made_up: npt.NDArray[np.bool_]) -> Loss:
    """Everything from the first row on that was made up: what is coded there depends on what came before."""
    rows = np.flatnonzero(made_up.any(axis=1))
    first = int(rows[0]) if rows.size else len(made_up)
    lost = np.zeros_like(made_up)
    lost[first:] = True
    return Loss(1 - first / len(made_up), lost)


# --- JPEG ---

_COEFFICIENTS = 64
_DC_BITS = 10
"""Roughly: of the mean of a block."""


def _jpeg_loss(content: bytes, made_up: npt.NDArray[np.bool_]) -> Loss:
    """What a JPEG lacks: a share of its area, and of what is known of each block there.

    A progressive one tells the mean of each block first and details later. The mean counts for one half.
    """
    jpeg = read_jpeg(content)
    lost = _unreached(made_up, 8 * max((v for _, v in jpeg.sampling.values()), default=1))
    before, after = _known(jpeg, jpeg.scans[:-1]), _known(jpeg, jpeg.scans)
    share = 1 - (before + (1 - float(lost.mean())) * (after - before))
    return Loss(share, None if before else lost)  # after the first scan there is something everywhere


def _unreached(made_up: npt.NDArray[np.bool_], block_rows: int) -> npt.NDArray[np.bool_]:
    """The area from the first block on that was made up; blocks come row by row."""
    lost = np.zeros_like(made_up)
    rows = np.flatnonzero(made_up.any(axis=1))
    if rows.size:
        # Where colours have a lower resolution, the last row before it shows a trace of what was made up.
        top = min(int(rows[0]) + 1, len(made_up) - 1) // block_rows * block_rows
        columns = np.flatnonzero(made_up[top : top + block_rows].any(axis=0))
        lost[top : top + block_rows, columns[0] if columns.size else 0 :] = True
        lost[top + block_rows :] = True
    return lost


def _known(jpeg: Jpeg, scans: list[Scan]) -> float:
    """What complete scans tell of a picture, from 0 to 1."""
    weights = {component: h * v for component, (h, v) in jpeg.sampling.items()}
    known = 0.0
    for component, weight in weights.items():
        left: dict[int, int] = {}
        for scan in scans:
            if component in scan.components:
                span = range(_COEFFICIENTS) if jpeg.is_lossless else range(scan.first, min(scan.last, 63) + 1)
                left |= dict.fromkeys(span, scan.bits_left)
        mean = max(0.0, 1 - left[0] / _DC_BITS) if 0 in left else 0.0
        details = sum(1 / (1 + bits) for coefficient, bits in left.items() if coefficient) / (_COEFFICIENTS - 1)
        known += weight * (mean + details) / 2
    return known / (sum(weights.values()) or 1)
