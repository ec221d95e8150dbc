"""Exact top-k over a matrix of unit vectors. Knows nothing of where matrix or query come from."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_BLOCK_ROWS = 256
"""Rows converted to float32 at a time: half a megabyte at 512 dimensions, which stays in a core's own cache."""


def cosines(matrix: npt.NDArray[np.float16], query: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(N,) float32 dot products of (N, D) unit rows with one (D,) unit vector, in [-1, 1]."""
    scores = np.empty(len(matrix), np.float32)
    # One buffer for all blocks: with fresh memory for each it takes three times as long. And always all of it: BLAS
    # adds up odd rows at the end in another order, and equal rows are to have equal scores, wherever they are.
    block = np.zeros((_BLOCK_ROWS, matrix.shape[1]), np.float32)
    for start in range(0, len(matrix), _BLOCK_ROWS):
        rows = matrix[start : start + _BLOCK_ROWS]
        block[: len(rows)] = rows
        scores[start : start + len(rows)] = (block @ query)[: len(rows)]
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
