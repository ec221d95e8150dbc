"""The regions of an index: vectors of parts of large images, and where in the images they are."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from clipsearch.unit import Matrix


class Regions(NamedTuple):
    """The R regions of one commit. Those of an image are next to each other."""

    matrix: Matrix
    """(R, D) unit vectors, memory-mapped."""
    images: npt.NDArray[np.int32]
    """(R,) the row in `embeddings.npy` of the image that each region is a part of; it may be dead."""
    boxes: npt.NDArray[np.int32]
    """(R, 4) left, top, right and bottom edge in pixels of the upright image."""
