"""Damaged images: the pixels that are there, and the share that is missing.

Decoders fill in missing pixels, or leave them unchanged, and say neither where nor how many. So the file is decoded
twice, over two backgrounds and, where the format needs it, completed in two ways: pixels that are the same in both come
from the file. This is done only for files that the decoder has refused, so good ones cost nothing. Knows nothing of
file names.
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
from clipsearch.images.codecs.missing_share import percent
from clipsearch.images.codecs.truncated_files import Ends, Jpeg, Scan, read_jpeg

LEAST_SHARE = 0.5
"""Least share of an image that must be there, or it counts as unreadable."""

_GREY = (128, 128, 128)
"""The background, and the colour of pixels of which nothing is known."""
_EDGE_ROWS, _FADING = 16, 0.05
"""Rows over which the mean colour is taken, and the share of the height over which the last row fades into it."""
_WIDE = ("I", "F")
"""Prefixes of Pillow's modes whose levels are not 0 to 255."""

_PART = 1 << 20
"""Pixels that are compared at a time."""


class TooLittleError(UnreadableImageError):
    """Less than `LEAST_SHARE` of the image is there."""


class Loss(NamedTuple):
    """The part of an image that is missing."""

    share: float
    """Share of the image that is missing, 0 to 1."""
    made_up: npt.NDArray[np.bool_] | None
    """(H, W) mask of the pixels that are not from the file; None if the decoder has filled them in well."""
    is_interlaced: bool = False
    """Whether missing pixels may alternate with good ones."""

    def painted(self, image: Image.Image) -> Image.Image:
        """Fill the missing pixels of an RGB image with the colours next to them."""
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
"""The loss of an image that is whole."""


def load_both(image: ImageFile.ImageFile, other: ImageFile.ImageFile, given: Ends) -> Loss:
    """Load two images, opened from the two files of `given`, as far as possible; return what the first lacks.

    Raises:
        TooLittleError: less than `LEAST_SHARE` is there.
        UnreadableImageError: nothing is there.
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
    """Load as much as possible of an image, over one of two backgrounds."""
    prepare = image.load_prepare

    def prepare_over() -> None:
        prepare()
        # Modes without a fixed range get the lowest levels: black and white depend on the values that occur.
        one, another = (0, 1) if image.mode.startswith(_WIDE) else (_GREY[0], 0)
        # In some formats, an alpha that is zero everywhere means no alpha, and must stay so.
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
    """(H, W) mask of the pixels in which two images differ."""
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
    """Suppress the errors of a decoder within: broken data raises anything, and the pixels so far are kept."""
    try:
        yield
    except (MemoryError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise
    except Exception:  # noqa: BLE001, S110
        pass


def _spread(pixels: npt.NDArray[np.uint8], lost: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Copy colours into lost pixels of (H, W, 3) from the left and from above; return the mask of those still lost."""
    lost = lost.copy()
    for step in (1, 2, 4):  # as far as the passes of PNG and GIF are apart
        for to, source in ((np.s_[:, step:], np.s_[:, :-step]), (np.s_[step:], np.s_[:-step])):
            found = lost[to] & ~lost[source]
            pixels[to][found] = pixels[source][found]
            lost[to] &= ~found
    return lost


def _fill_below(pixels: npt.NDArray[np.uint8], lost: npt.NDArray[np.bool_]) -> None:
    """Fill lost pixels of (H, W, 3) with the last good row, fading into the mean colour of the rows above.

    Compared with grey, white, mirrored and repeated rows, this changes the vector least (docs/reliability.md).
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
    """Count everything from the first made-up row on as lost, since the coding of a row depends on those before."""
    rows = np.flatnonzero(made_up.any(axis=1))
    first = int(rows[0]) if rows.size else len(made_up)
    lost = np.zeros_like(made_up)
    lost[first:] = True
    return Loss(1 - first / len(made_up), lost)


# --- JPEG ---

_COEFFICIENTS = 64
_DC_BITS = 10
"""Significant bits of the mean of a block, roughly."""


def _jpeg_loss(content: bytes, made_up: npt.NDArray[np.bool_]) -> Loss:
    """Loss of a JPEG: missing area, and missing detail in the blocks that are there.

    A progressive JPEG has the mean of each block first and details later. The mean counts as one half of a block.
    """
    jpeg = read_jpeg(content)
    lost = _unreached(made_up, 8 * max((v for _, v in jpeg.sampling.values()), default=1))
    before, after = _known(jpeg, jpeg.scans[:-1]), _known(jpeg, jpeg.scans)
    share = 1 - (before + (1 - float(lost.mean())) * (after - before))
    return Loss(share, None if before else lost)  # after the first scan there is something everywhere


def _unreached(made_up: npt.NDArray[np.bool_], block_rows: int) -> npt.NDArray[np.bool_]:
    """(H, W) mask of everything from the first made-up block on; blocks are coded row by row."""
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
    """Share of the image's information in these scans, as if complete, from 0 to 1."""
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
