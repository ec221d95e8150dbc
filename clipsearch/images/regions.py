"""The layout of regions: which parts of a large image get vectors of their own. Knows nothing of models and pixels.

Regions are squares, since models look at squares: CLIP cuts an image to its middle, SigLIP distorts it. All regions of
an image have the same size, cover it completely, and overlap, so that few things are cut by all of them. An image that
is only some times larger than the input of the model has few and large regions; in a larger one, smaller things are
worth finding. docs/quality.md says what was compared.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from clipsearch.images.codecs.box import Box

_LEAST = 1.5
"""Images whose shorter side is less than this times the input of the model have no regions."""


class _Grid(NamedTuple):
    """What the regions of an image are like."""

    share: float
    """Share of the image's area that one region has, as far as it fits and a whole number of rows allows."""
    overlap: float
    """Share of a region's side that the next one covers as well."""

    def number(self, total: int, length: float) -> int:
        """Return how many regions `length` pixels long, with about this overlap, are about `total` pixels long."""
        return round((total / length - 1) / (1 - self.overlap)) + 1

    def enough(self, total: int, length: int) -> int:
        """Return how many are needed to cover `total` pixels with at least half of this overlap."""
        return max(self.number(total, length), math.ceil((total / length - 1) / (1 - self.overlap / 2)) + 1)


_COARSE = _Grid(share=1 / 4, overlap=1 / 4)
"""2 x 2 regions in a square, 3 x 2 in a photo of 4:3 or 3:2, 4 x 2 in a screenshot of 16:9."""
_FINE = _Grid(share=1 / 6, overlap=1 / 2)
"""4 x 4 regions in a square, 4 x 3 in a photo of 4:3, 5 x 3 in one of 3:2, 6 x 3 in 16:9."""
_LARGE = 8
"""Images whose shorter side is at least this times the input of the model are divided as in `_FINE`."""


def layout(width: int, height: int, side: int) -> list[Box]:
    """Divide an upright image into overlapping square regions; none if it is hardly larger than the model's input.

    An image that is at most sixteen times as long as it is high gets 22 at most. Panoramas, of which the whole view
    shows only the middle, get one row of squares as high as the image.

    Args:
        width: of the image, in pixels.
        height: of the image, in pixels.
        side: the length of the sides of the model's input, in pixels.

    Returns:
        Boxes in whole pixels, row by row from the top. They cover the image.
    """
    short, long = sorted((width, height))
    if short < _LEAST * side:
        return []
    grid = _FINE if short >= _LARGE * side else _COARSE
    # 1. How many regions lie along the shorter side, and how large they are then.
    wanted = min(short, math.sqrt(grid.share * width * height))
    along_short = grid.number(short, wanted)
    if along_short == 1:
        grid = _COARSE  # a thing that is higher than half of a panorama is not found any better with more overlap
    length = math.ceil(short / (1 + (along_short - 1) * (1 - grid.overlap)))
    # 2. How many along the longer side; they are moved a little, so that the last one ends at the edge.
    along_long = grid.enough(long, length)
    columns, rows = (along_long, along_short) if width >= height else (along_short, along_long)
    return [
        Box(left, top, left + length, top + length)
        for top in _starts(height, length, rows)
        for left in _starts(width, length, columns)
    ]


def _starts(total: int, length: int, count: int) -> list[int]:
    """Spread `count` pieces of `length` pixels evenly over `total` pixels."""
    return [round(i * (total - length) / (count - 1)) for i in range(count)] if count > 1 else [0]
