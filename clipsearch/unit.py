"""The types of arrays that the package computes with, and the check that rows are unit vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
"""float32 numbers of any shape."""
Vectors = npt.NDArray[np.float32]
"""(D,) one embedding or (N, D) several."""
Matrix = npt.NDArray[np.float16]
"""(N, D) the embeddings of an index."""
Scores = npt.NDArray[np.float32]
"""Cosines of unit vectors, in [-1, 1], of any shape."""
Floats = npt.NDArray[np.floating[Any]]
"""Floating-point numbers of any width and shape."""

NOTHING = "what comes out is no vector (NaN, infinite or all zeros)"
"""The words of an error about a model that makes no unit vector."""
_NORM_TOLERANCE = 0.01
"""The largest accepted difference of a length from 1. Rounding a unit vector to float16 changes it by 2**-11 at
most."""


def are_unit(rows: npt.NDArray[np.floating]) -> npt.NDArray[np.bool_]:
    """Return (N,) booleans: whether each of (N, D) rows has a length of 1. Rows with NaN, and rows of zeros, do not."""
    with np.errstate(over="ignore", invalid="ignore"):
        numbers = rows.astype(np.float32, copy=False)
        norms = np.sqrt(np.einsum("ij,ij->i", numbers, numbers))
        return np.asarray(np.abs(norms - 1) <= _NORM_TOLERANCE)
