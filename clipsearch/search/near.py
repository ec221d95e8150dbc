"""Groups unit vectors that are close to each other, each with the first that is close enough.

A group is a star: all its members are close to its keeper. Single linkage, which joins vectors that are close to any
member, would make chains whose ends have little in common. The module knows nothing of images.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

from clipsearch.search.topk import Rows
from clipsearch.system import cores
from clipsearch.system.progress import SILENT, Progress
from clipsearch.unit import Matrix, Scores

_BLOCK, _CHUNK = 1024, 2048
"""Number of rows examined as keepers at a time, and number of rows that a thread compares them with: 8 MB of
cosines."""
_FREE = -1
"""The keeper of a row that has none yet."""


def near(vectors: Matrix, threshold: float, progress: Progress = SILENT) -> tuple[Rows, Scores]:
    """Find the keeper of each of (N, D) unit vectors, the best first.

    A row belongs to the first keeper with which its cosine is at least `threshold`. If there is none, the row becomes a
    keeper, and is its own keeper with a cosine of 1.

    Returns:
        (N,) the row of the keeper of each row, and (N,) the cosine with it.
    """
    stars = _Stars(vectors, threshold)
    progress.start(len(vectors))
    with ThreadPoolExecutor(cores.available(), thread_name_prefix="near") as pool:
        for start in range(0, len(vectors), _BLOCK):
            found = stars.keepers_among(stars.free(start, start + _BLOCK))
            if len(found):
                take = partial(stars.take, found, vectors[found].astype(np.float32))
                list(pool.map(take, range(start + _BLOCK, len(vectors), _CHUNK)))
            done = min(_BLOCK, len(vectors) - start)
            progress.advance(done, known=done)
    return stars.keepers, stars.scores


# -- how ---------------------------------------------------------------------------------------------------------


class _Stars:
    """The keeper of each row, while they are being found."""

    def __init__(self, vectors: Matrix, threshold: float) -> None:
        self.keepers = np.full(len(vectors), _FREE, np.int64)
        self.scores = np.ones(len(vectors), np.float32)
        self._vectors, self._threshold = vectors, threshold

    def free(self, start: int, end: int) -> Rows:
        """Return the rows from `start` to `end` that have no keeper yet."""
        return np.flatnonzero(self.keepers[start:end] == _FREE) + start

    def keepers_among(self, block: Rows) -> Rows:
        """Make each free row of `block` a keeper or the member of one, and return the new keepers."""
        cosines = _cosines(self._vectors[block], self._vectors[block])
        close = np.triu(cosines >= self._threshold, 1)
        free = np.ones(len(block), np.bool_)
        for one in np.flatnonzero(close.any(axis=1)):
            if free[one]:
                taken = np.flatnonzero(close[one] & free)
                free[taken] = False
                self._give(block[taken], block[one], cosines[one, taken])
        self.keepers[block[free]] = block[free]
        return block[free]

    def take(self, found: Rows, keepers: Matrix | Scores, start: int) -> None:
        """Assign each free row of a chunk to the first of the keepers `found` that it is close to.

        `keepers` are the vectors of `found`. Chunks are disjoint parts of the arrays, so threads need no lock.
        """
        rows = self.free(start, start + _CHUNK)
        if len(rows):
            cosines = _cosines(self._vectors[rows], keepers)
            taken = np.flatnonzero(cosines.max(axis=1) >= self._threshold)
            first = (cosines[taken] >= self._threshold).argmax(axis=1)
            self._give(rows[taken], found[first], cosines[taken, first])

    def _give(self, rows: Rows, keepers: Rows, cosines: Scores) -> None:
        self.keepers[rows] = keepers
        self.scores[rows] = np.minimum(cosines, 1)  # rounding to float16 makes some rows longer than 1


def _cosines(rows: Matrix | Scores, others: Matrix | Scores) -> Scores:
    """Return the (N, K) cosines of (N, D) and (K, D) unit vectors, by BLAS in float32.

    With large N and K this takes half the time of the kernels of `topk`, which are made for rows that are read once and
    therefore not worth converting.
    """
    return np.asarray(rows.astype(np.float32, copy=False) @ others.astype(np.float32, copy=False).T)
