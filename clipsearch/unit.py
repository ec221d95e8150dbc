"""Arrays of numbers by name, and whether rows are unit vectors. Knows nothing of where they come from."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
"""Numbers of any shape."""
Vectors = npt.NDArray[np.float32]
"""(D,) or (N, D)."""
Matrix = npt.NDArray[np.float16]
"""(N, D) the rows of an index."""
Floats = npt.NDArray[np.floating[Any]]
"""Of any width."""

NOTHING = "what comes out is no vector (NaN, infinite or all zeros)"
"""What is said of a model that makes none."""
_NORM_TOLERANCE = 0.01
"""Rounding a unit vector to float16 changes its length by 2**-11 at most; this is far beyond."""


def are_unit(rows: npt.NDArray[np.floating]) -> npt.NDArray[np.bool_]:
    """(N,) whether each of (N, D) rows has a length of 1: numbers that are none, and zeros, do not have it."""
    with np.errstate(over="ignore", invalid="ignore"):
        numbers = rows.astype(np.float32, copy=False)
        norms = np.sqrt(np.einsum("ij,ij->i", numbers, numbers))
        return np.asarray(np.abs(norms - 1) <= _NORM_TOLERANCE)
