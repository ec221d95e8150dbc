"""Unit vectors that are close to one another, each given to the first that is close enough. Knows nothing of pictures.

A group is a star: all in it are close to its keeper. Joining whatever is close to any member would make chains, whose
ends have little in common.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

from clipsearch.search.topk import Rows, Scores
from clipsearch.system import cores
from clipsearch.system.progress import SILENT, Progress
from clipsearch.unit import Matrix

_BLOCK, _CHUNK = 1024, 2048
"""Rows that are looked at as keepers at a time, and rows that one thread compares them with: 8 MB of cosines."""
_FREE = -1


def near(vectors: Matrix, threshold: float, progress: Progress = SILENT) -> tuple[Rows, Scores]:
    """For each of (N, D) unit vectors, the best first, the number of its keeper (N,) and the cosine with it (N,).

    A row belongs to the first keeper with which its cosine is `threshold` or more. Where there is none, it is a keeper,
    and its own with 1.
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
    """Rows that find their keepers."""

    def __init__(self, vectors: Matrix, threshold: float) -> None:
        self.keepers = np.full(len(vectors), _FREE, np.int64)
        self.scores = np.ones(len(vectors), np.float32)
        self._vectors, self._threshold = vectors, threshold

    def free(self, start: int, end: int) -> Rows:
        """The numbers of rows from `start` to `end` that have no keeper yet."""
        return np.flatnonzero(self.keepers[start:end] == _FREE) + start

    def keepers_among(self, block: Rows) -> Rows:
        """Make keepers of free rows, or give them to one of these; the numbers of the new keepers."""
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
        """Give each free row of a chunk to the first of the keepers `found` (their vectors: `keepers`) it is close to.

        Each chunk is another part of the arrays, so threads need not wait for each other.
        """
        rows = self.free(start, start + _CHUNK)
        if len(rows):
            cosines = _cosines(self._vectors[rows], keepers)
            taken = np.flatnonzero(cosines.max(axis=1) >= self._threshold)
            first = (cosines[taken] >= self._threshold).argmax(axis=1)
            self._give(rows[taken], found[first], cosines[taken, first])

    def _give(self, rows: Rows, keepers: Rows, cosines: Scores) -> None:
        self.keepers[rows] = keepers
        self.scores[rows] = np.minimum(cosines, 1)  # rounding to float16 makes rows a little longer than 1


def _cosines(rows: Matrix | Scores, others: Matrix | Scores) -> Scores:
    """(N, K) cosines of (N, D) and (K, D).

    By BLAS in float32: with as many on both sides it takes half of the time of the kernels that ranking has, whose
    strength is that they need not convert what is read only once.
    """
    return np.asarray(rows.astype(np.float32, copy=False) @ others.astype(np.float32, copy=False).T)
