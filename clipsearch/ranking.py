"""Exact top-k over a matrix of unit vectors. Knows nothing of where matrix or query come from."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_BLOCK_ROWS = 32_768
"""Rows converted to float32 at a time: 64 MB at 512 dimensions, whatever the size of the matrix."""


def cosines(matrix: npt.NDArray[np.float16], query: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(N,) float32 dot products of (N, D) unit rows with one (D,) unit vector, in [-1, 1]."""
    scores = np.empty(len(matrix), np.float32)
    for start in range(0, len(matrix), _BLOCK_ROWS):
        block = matrix[start : start + _BLOCK_ROWS].astype(np.float32)
        np.matmul(block, query, out=scores[start : start + len(block)])
    # Rounding to float16 makes rows a little longer or shorter than 1.
    return np.clip(scores, -1, 1, out=scores)


def top_k(scores: npt.NDArray[np.float32], k: int, alive: npt.NDArray[np.bool_] | None = None) -> npt.NDArray[np.int64]:
    """The rows of the `k` highest scores, best first, ties by row; all of those that tie with the last are included.

    `alive` (N,) says which rows take part. More than `k` rows come back only for ties, so that the caller can break
    them in an order of its own.
    """
    rows = np.arange(len(scores)) if alive is None else np.flatnonzero(alive)
    if k < len(rows):
        candidates = scores[rows]
        threshold = np.partition(candidates, len(rows) - k)[len(rows) - k]
        rows = rows[candidates >= threshold]
    return rows[np.argsort(-scores[rows], kind="stable")]
