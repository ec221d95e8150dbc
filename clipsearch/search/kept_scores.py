"""The scores of all rows of an index that its next search is likely to need again: those of the last query.

Who moves a slider or changes a filter asks the same words again and again. What makes a confidence of a cosine depends
on the picture alone, so it is kept for all words. Both are of one commit; the next one begins anew.
"""

from __future__ import annotations

import threading

import numpy as np
import numpy.typing as npt

from clipsearch.search.confidence import NegativePrompts
from clipsearch.search.topk import Mask, of_all_rows
from clipsearch.unit import Matrix, Scores, Vectors

MOST_ROWS = 5_000_000
"""Number of rows up to which scores are kept: 4 bytes a row for the last query, and 8 for all queries with a cut-off by
confidence, so at most 60 MB."""
_SPARSE = 8
"""If fewer than one row in this number takes part, the scores of all rows are not worth the reading of them."""

_Key = tuple[int, int, bytes]
"""Commit and number of rows, and the bytes of a vector."""


class KeptScores:
    """Keeps scores of one index. Threads may share it."""

    def __init__(self) -> None:
        self._scores: tuple[_Key, Scores] | None = None
        self._strengths: tuple[_Key, npt.NDArray[np.float64]] | None = None
        self._computing = threading.Lock()

    def scores(self, commit: int, matrix: Matrix, query: Vectors, mask: Mask | None) -> Scores | None:
        """Return the (1, N) cosines of a (D,) query with all rows, NaN for broken ones; None if it is not worth it.

        Args:
            commit: a number that changes with the index.
            matrix: (N, D) rows of that commit.
            query: the query.
            mask: (N,) which rows take part; None for all.
        """
        if len(matrix) > MOST_ROWS:
            return None
        key, known = (commit, len(matrix), query.tobytes()), self._scores
        if known is not None and known[0] == key:
            return known[1]
        if mask is not None and np.count_nonzero(mask) * _SPARSE < len(mask):
            return None
        scores = of_all_rows(matrix, query[None], lambda scores: scores)
        self._scores = key, scores
        return scores

    def strengths(self, commit: int, matrix: Matrix, negatives: NegativePrompts) -> npt.NDArray[np.float64] | None:
        """Return (N,) what `NegativePrompts.strengths` gives for all rows; None if they are too many.

        They are computed once, also if several threads ask for them at the same time.
        """
        if len(matrix) > MOST_ROWS:
            return None
        key = commit, len(matrix), b""
        with self._computing:
            if self._strengths is None or self._strengths[0] != key:
                self._strengths = key, of_all_rows(matrix, negatives.vectors, negatives.strengths)
            return self._strengths[1]
