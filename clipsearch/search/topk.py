"""Exact top-k over a matrix of unit vectors. Knows nothing of where matrix or queries come from.

The matrix is read once, in order, in chunks that several threads share, however many queries there are. Only rows that
may still be among the best of a query are kept.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numkong
import numpy as np
import numpy.typing as npt

from clipsearch.system import cores
from clipsearch.unit import Matrix

Scores = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.int64]

_CHUNK_ROWS, _LEAST_ROWS = 32_768, 1024
"""Rows that one thread takes at a time."""
_CHUNK_SCORES = 1 << 22
"""Number of scores of a chunk at most (16 MB): with many queries the chunks are shorter."""
_KEEPERS = 4096
"""Rows that the others are compared with at a time."""
_SPARSE = 8
"""If fewer than one row in this many takes part, rows are gathered instead of all being scored."""
_LOW_BITS = np.float32(2**11)
"""Steps of float16 from one power of two to the next: what it leaves of a float32 is smaller by this factor."""

_LARGEST = 1.05
"""A cosine with a row that was rounded is less; what is more is no cosine, but that of no unit vector."""


class Ranked(NamedTuple):
    """The best rows of one query."""

    rows: npt.NDArray[np.int64]
    """(K,), best first, ties by row. More than asked for only where rows tie with the last."""
    scores: Scores
    """(K,) cosines in [-1, 1]."""


class Cut(NamedTuple):
    """Which rows take part in the ranking of a query, where that depends on scores."""

    vectors: npt.NDArray[np.float32]
    """(M, D) unit vectors, whose scores are needed to tell."""
    takes_part: Callable[[Scores, Scores], Mask]
    """(Q, N) whether, from (Q, N) scores of the queries and (M, N) of `vectors` with N rows."""


def best(
    matrix: Matrix,
    queries: npt.NDArray[np.float32],
    k: int,
    mask: Mask | None = None,
    cut: Cut | None = None,
    *,
    broken: set[int] | None = None,
) -> list[Ranked]:
    """The `k` rows of (N, D) unit vectors with the highest cosine to each of (Q, D) unit vectors.

    `mask` (N,) says which rows take part, and so does `cut`. Rows that are no vectors (NaN, infinite) never do, and are
    put into `broken`. All rows that tie with the last are included,
    so that the caller can break ties in an order of its own.
    """
    if not len(queries):
        return []
    score = _Kernel(queries if cut is None else np.concatenate([queries, cut.vectors]))
    step = max(_LEAST_ROWS, min(_CHUNK_ROWS, _CHUNK_SCORES // len(queries)))
    floors = np.full(len(queries), -np.inf, np.float32)  # rows below are not among the best; threads raise them

    def best_of_chunk(start: int) -> list[Ranked]:
        # 1. Which rows, and their scores.
        chunk = matrix[start : start + step]
        rows = np.arange(len(chunk)) if mask is None else np.flatnonzero(mask[start : start + step])
        if len(rows) * _SPARSE < len(chunk):
            scores = score(chunk[rows])
        else:
            scores = score(chunk) if mask is None else score(chunk)[:, rows]
        # 2. For each query, those that are as good as what other chunks have.
        if broken is not None and score.met_nan:
            broken.update((rows[np.isnan(scores).any(axis=0)] + start).tolist())
        scores, others = scores[: len(queries)], scores[len(queries) :]
        takes_part = None if cut is None else cut.takes_part(scores, others)
        found = []
        for query, line in enumerate(scores):
            hopeful = line >= floors[query]
            hopeful = np.flatnonzero(hopeful if takes_part is None else hopeful & takes_part[query])
            ranked, floor = _head(Ranked(rows[hopeful] + start, line[hopeful]), k)
            floors[query] = max(floor, floors[query])
            found.append(ranked)
        return found

    starts = range(0, len(matrix), step)
    workers = min(cores.available(), len(starts))
    if workers < 2:  # noqa: PLR2004  (a thread for its own sake costs start-up time)
        chunks = [best_of_chunk(start) for start in starts]
    else:
        with ThreadPoolExecutor(workers, thread_name_prefix="rank") as pool:
            chunks = list(pool.map(best_of_chunk, starts))
    return [_sorted(_head(_joined([chunk[query] for chunk in chunks]), k)[0]) for query in range(len(queries))]


def scores_of(matrix: Matrix, rows: npt.NDArray[np.int64], vectors: npt.NDArray[np.float32]) -> Scores:
    """(Q, K) cosines of (Q, D) unit vectors with K rows of a matrix; the numbers are those of `best`."""
    score = _Kernel(vectors)
    starts = range(0, len(rows), _CHUNK_ROWS)
    return np.hstack([score(matrix[rows[start : start + _CHUNK_ROWS]]) for start in starts] or [score(matrix[:0])])


def assigned(matrix: Matrix, rows: npt.NDArray[np.int64], threshold: float, mask: Mask | None = None) -> Rows:
    """For each of K `rows` of (N, D) unit vectors how many others are close to it: cosine `threshold` or more, (K,).

    `mask` (N,) says which take part. What is close to several counts for the first of them only.
    """
    counts = np.zeros(len(rows), np.int64)
    free = np.ones(len(matrix), np.bool_) if mask is None else mask.copy()
    free[rows] = False
    for first in range(0, len(rows), _KEEPERS):
        keepers = matrix[rows[first : first + _KEEPERS]].astype(np.float32)
        score = _Kernel(keepers / np.linalg.norm(keepers, axis=1, keepdims=True))
        step = max(_LEAST_ROWS, min(_CHUNK_ROWS, _CHUNK_SCORES // len(keepers)))
        for start in range(0, len(matrix), step):
            available = free[start : start + step]
            close = (score(matrix[start : start + step]) >= threshold) & available
            taken = close.any(axis=0)
            available[taken] = False  # a view: in `free`, too
            counts += np.bincount(first + close[:, taken].argmax(axis=0), minlength=len(rows))
    return counts


def _head(ranked: Ranked, k: int) -> tuple[Ranked, float]:
    """The `k` best and all that tie with the last, in their order, and the score of the last."""
    rows, scores = ranked
    if len(rows) < k:
        return ranked, -np.inf
    last = np.partition(scores, len(scores) - k)[len(scores) - k]
    among = scores >= last
    return Ranked(rows[among], scores[among]), float(last)


def _joined(parts: list[Ranked]) -> Ranked:
    none = np.empty(0, np.int64), np.empty(0, np.float32)
    return Ranked(*(np.concatenate(column) for column in zip(none, *parts, strict=True)))


def _sorted(ranked: Ranked) -> Ranked:
    order = np.argsort(-ranked.scores, kind="stable")
    return Ranked(ranked.rows[order], ranked.scores[order])


class _Kernel:
    """Cosines of chunks of the matrix and all queries, by SIMD kernels that read float16 as it is.

    They add up in float32, and want both sides in the same type. So each query goes in as two: its float16, and what
    that leaves, made larger by a power of two. Together they give what a float32 query gives.
    """

    def __init__(self, queries: npt.NDArray[np.float32]) -> None:
        self.met_nan = False
        """Whether a score so far was no cosine. It stands as NaN then, and never ranks."""
        high = queries.astype(np.float16)
        low = ((queries - high) * _LOW_BITS).astype(np.float16)
        self._number = len(queries)
        self._packed = numkong.dots_pack(np.concatenate([high, low]))

    def __call__(self, rows: Matrix) -> Scores:
        """(Q, N) of (N, D)."""
        if not len(rows):
            return np.empty((self._number, 0), np.float32)
        products = np.asarray(numkong.dots_packed(rows, self._packed), np.float32).T
        scores = products[: self._number] + products[self._number :] / _LOW_BITS
        if not (scores.min() >= -_LARGEST and scores.max() <= _LARGEST):  # so that NaN is found too
            self.met_nan = True
            scores[~(np.abs(scores) <= _LARGEST)] = np.nan
        # Rounding to float16 makes rows a little longer or shorter than 1.
        return np.clip(scores, -1, 1, out=scores)
