"""Preprocessing of a decoded image to a whole view and a grid of crops, as Phi-3-vision's "HD transform" makes them.

Knows nothing of image towers: each view is preprocessed like an image of its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image

from clipsearch.models.preprocessing import ENOUGH, REDUCING_GAP

if TYPE_CHECKING:
    from clipsearch.models.preprocessing import Box, Preprocessing

_PADDING = (255, 255, 255)
"""The colour beside an image that does not fill its crops."""


@dataclass(frozen=True)
class Crops:
    """Resize of an image to h x w squares of the model's input, padded where its proportions differ."""

    side: int
    """Length of the sides of the model's input in pixels."""
    most: int
    """Largest number of squares."""
    resample: Image.Resampling
    exact: bool
    """Whether to do without shortcuts, as for `Preprocessing`."""

    @classmethod
    def of(cls, preprocessing: Preprocessing, most: int) -> Crops:
        """Crops for a model whose preprocessing has a square result.

        Raises:
            ValueError: it has none.
        """
        height, width = preprocessing.seen or (0, 1)
        if height != width:
            raise ValueError("the model's input is no square")
        return cls(width, most, preprocessing.resample, preprocessing.exact)

    def grid(self, width: float, height: float) -> tuple[int, int]:
        """Return h and w, the rows and columns of squares for an image of this width and height.

        The longer side gets as many squares as `most` allows where the shorter one gets what it then needs.
        """
        ratio = max(width, height) / min(width, height)
        along = max(n for n in range(1, self.most + 1) if n * math.ceil(n / ratio) <= self.most)
        across = math.ceil(along / ratio)
        return (across, along) if width >= height else (along, across)

    @property
    def enough(self) -> int | None:
        """Least length of both sides of a decoded image in pixels; None if the image is needed in full."""
        # The shorter side of the squares together is longest where there are as many rows as columns.
        return None if self.exact else math.ceil(ENOUGH * self.side * math.sqrt(self.most))

    def __call__(self, image: Image.Image, box: Box) -> npt.NDArray[np.uint8]:
        """Resize and pad the part of an RGB image in `box` to (h * side, w * side, 3) uint8."""
        width, height = box[2] - box[0], box[3] - box[1]
        rows, columns = self.grid(width, height)
        padded = Image.new("RGB", (columns * self.side, rows * self.side), _PADDING)
        # The longer side fills its squares. In this order, divisions give the published lengths to the pixel.
        shorter = max(1, int(max(padded.size) / (max(width, height) / min(width, height))))
        size = (padded.width, shorter) if width >= height else (shorter, padded.height)
        resized = image.resize(size, self.resample, box, None if self.exact else REDUCING_GAP)
        padded.paste(resized, ((padded.width - size[0]) // 2, (padded.height - size[1]) // 2))
        return np.asarray(padded)

    def views(self, pixels: npt.NDArray[np.uint8]) -> Iterator[npt.NDArray[np.uint8]]:
        """Yield (side, side, 3) views of a result of this preprocessing: the whole of it, then squares row by row."""
        yield np.asarray(Image.fromarray(pixels).resize((self.side, self.side), self.resample))
        for top in range(0, pixels.shape[0], self.side):
            for left in range(0, pixels.shape[1], self.side):
                yield pixels[top : top + self.side, left : left + self.side]
