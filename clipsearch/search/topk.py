"""Exact top-k over a matrix of unit vectors.

The matrix is read once for all queries, in order, in chunks that are divided between threads. Only rows that may still
be among the best of a query are kept. The module knows nothing of where matrix and queries come from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol, TypeVar

import numkong
import numpy as np
import numpy.typing as npt

from clipsearch.system import cores
from clipsearch.unit import Array, Matrix, Scores, are_unit

Mask = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.int64]

_CHUNK_ROWS, _LEAST_ROWS = 32_768, 1024
"""The largest and the smallest number of rows of a chunk."""
_CHUNK_SCORES = 1 << 22
"""Largest number of scores of a chunk (16 MB): with many queries, chunks have fewer rows."""
_TOGETHER = 32
"""Number of chunks after which what was found in them is reduced to the best, so that memory does not grow with the
matrix if many rows are wanted."""
_KEEPERS = 4096
"""Number of keepers that other rows are compared with at a time."""
_SPARSE = 8
"""If fewer than one row in this number takes part, the rows that do are copied together before they are scored."""
_LOW_BITS = np.float32(2**11)
"""The precision of float16: its rounding error is smaller than the rounded number by this factor."""

_Number = TypeVar("_Number", np.float32, np.float64)

_LARGEST = 1.05
"""Upper bound of a cosine with a row rounded to float16; a larger score belongs to a row that is not a unit vector."""


class Ranked(NamedTuple):
    """The best rows of one query."""

    rows: npt.NDArray[np.int64]
    """(K,) rows by decreasing score, ties by row; more than `k` only if rows tie with the last."""
    scores: Scores
    """(K,) cosines in [-1, 1]."""


_NONE = Ranked(np.empty(0, np.int64), np.empty(0, np.float32))


class Cut(NamedTuple):
    """A condition on scores that rows have to fulfil to be ranked."""

    vectors: npt.NDArray[np.float32]
    """(M, D) further unit vectors whose scores the condition needs."""
    takes_part: Callable[[Scores, npt.NDArray[Any]], Mask]
    """Returns (Q, N) booleans for (Q, N) scores of the queries and (M, N) scores of `vectors` with N rows."""
    prompts: int
    """The number of `vectors`, from the first on, that are prompts and no queries."""
    known: npt.NDArray[np.float64] | None = None
    """(N,) what `takes_part` gets, for the rows in question, in place of scores of `vectors`, which are none then."""


class Penalty(NamedTuple):
    """Numbers that are subtracted from scores before rows are ranked and cut off."""

    amounts: Array
    """(Q + M, P) for each query, and each vector of the cut, the number for rows of each of P classes."""
    class_of: npt.NDArray[np.integer[Any]]
    """(N,) the class of each row, from 0 on."""


class Kernel(Protocol):
    """Computes scores of its queries with rows of a matrix."""

    met_nan: bool
    """Whether a score so far was NaN because a row is broken. Such a row is never ranked."""

    def __call__(self, rows: npt.NDArray[Any], /) -> Scores:
        """Return the (Q, N) scores of N rows; NaN for those that are not to be found."""
        ...


def best(
    matrix: npt.NDArray[Any],
    queries: npt.NDArray[np.float32],
    k: int,
    mask: Mask | None = None,
    cut: Cut | None = None,
    *,
    broken: set[int] | None = None,
    penalty: Penalty | None = None,
    kernel: Kernel | None = None,
) -> list[Ranked]:
    """Find, for each query, the `k` rows with the highest cosine, less the penalty if there is one.

    Args:
        matrix: (N, D) unit vectors.
        queries: (Q, D) unit vectors.
        k: the number of rows. All rows that tie with the last are included, so that the caller can break ties.
        mask: (N,) whether each row takes part; None if all do.
        cut: a further condition, on scores.
        broken: rows that are not finite or too long are never ranked, and are added to this set.
        penalty: what is subtracted from the scores.
        kernel: what computes scores of the queries with rows of `matrix`, which then is any matrix; without a cut that
            has vectors.

    Returns:
        The ranking of each of Q queries.
    """
    if not len(queries):
        return []
    score = kernel or _Kernel(queries if cut is None else np.concatenate([queries, cut.vectors]))
    step = max(_LEAST_ROWS, min(_CHUNK_ROWS, _CHUNK_SCORES // len(queries)))
    floors = np.full(len(queries), -np.inf, np.float32)  # lower scores are not among the best; threads raise these

    def best_of_chunk(start: int) -> list[Ranked]:
        # 1. Score the rows that take part.
        chunk = matrix[start : start + step]
        rows = np.arange(len(chunk)) if mask is None else np.flatnonzero(mask[start : start + step])
        if len(rows) * _SPARSE < len(chunk):
            scores = score(chunk[rows])
        else:
            scores = score(chunk) if mask is None else score(chunk)[:, rows]
        # 2. Keep, for each query, the rows that are not worse than the best of other chunks.
        if broken is not None and score.met_nan:
            broken.update((rows[np.isnan(scores).any(axis=0)] + start).tolist())
        if penalty is not None:
            classes = penalty.class_of[start : start + step]
            scores -= penalty.amounts[:, classes if len(rows) == len(chunk) else classes[rows]]
        others: npt.NDArray[Any] = scores[len(queries) :]
        scores = scores[: len(queries)]
        if cut is not None and cut.known is not None:
            others = cut.known[start : start + step]
            others = others if len(rows) == len(chunk) else others[rows]
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
    ranking = [_NONE for _ in queries]
    workers = min(cores.available(), len(starts))
    with ThreadPoolExecutor(workers or 1, thread_name_prefix="rank") as pool:
        mapped = map if workers < 2 else pool.map  # noqa: PLR2004  (a single thread would only cost start-up time)
        for first in range(0, len(starts), _TOGETHER):
            chunks = list(mapped(best_of_chunk, starts[first : first + _TOGETHER]))
            for query, found in enumerate(ranking):
                ranking[query], floor = _head(_joined([found, *(chunk[query] for chunk in chunks)]), k)
                floors[query] = max(floor, floors[query])
    return [_sorted(found) for found in ranking]


def best_unit_rows(
    matrix: Matrix,
    queries: npt.NDArray[np.float32],
    k: int,
    mask: Mask | None,
    cut: Cut | None,
    *,
    broken: set[int],
    penalty: Penalty | None = None,
    scores: Scores | None = None,
) -> list[Ranked]:
    """Find the same as `best`, without rows that are not unit vectors, which are added to `broken`.

    With (Q, N) `scores` of the queries with all rows, the matrix is not read for them; then the cut has no vectors.
    """
    scored, kernel = (matrix, None) if scores is None else (scores.T, _Scored())
    while True:
        ranking = best(scored, queries, k, mask, cut, broken=broken, penalty=penalty, kernel=kernel)
        # np.unique is avoided: importing it takes as long as ranking a query.
        rows = np.sort(np.concatenate([ranked.rows for ranked in ranking]))
        found = rows[np.diff(rows, prepend=-1) > 0]
        parts = [found[start : start + _CHUNK_ROWS] for start in range(0, len(found), _CHUNK_ROWS)]
        wrong = np.concatenate([found[:0], *(part[~are_unit(matrix[part])] for part in parts)])
        if not len(wrong):
            return ranking
        # A row of zeros or of another length has a score that is not a cosine.
        broken.update(wrong.tolist())
        mask = np.ones(len(matrix), np.bool_) if mask is None else mask.copy()
        mask[wrong] = False


def scores_of(matrix: Matrix, rows: npt.NDArray[np.int64], vectors: npt.NDArray[np.float32]) -> Scores:
    """Return (Q, K) cosines of (Q, D) unit vectors with K rows of a matrix, equal to the scores of `best`."""
    score = _Kernel(vectors)
    starts = range(0, len(rows), _CHUNK_ROWS)
    return np.hstack([score(matrix[rows[start : start + _CHUNK_ROWS]]) for start in starts] or [score(matrix[:0])])


def of_all_rows(
    matrix: Matrix, vectors: npt.NDArray[np.float32], work: Callable[[Scores], npt.NDArray[_Number]]
) -> npt.NDArray[_Number]:
    """Return what `work` makes of the (Q, M) cosines of Q unit vectors with M rows at a time, joined for all rows."""
    score = _Kernel(vectors)
    step = max(_LEAST_ROWS, min(_CHUNK_ROWS, _CHUNK_SCORES // len(vectors)))
    with ThreadPoolExecutor(cores.available(), thread_name_prefix="rank") as pool:
        starts = range(0, len(matrix), step)
        parts = list(pool.map(lambda start: work(score(matrix[start : start + step])), starts))
    return np.concatenate(parts, axis=-1)


def assigned(matrix: Matrix, keepers: Matrix, own: Sequence[int], threshold: float, mask: Mask | None = None) -> Rows:
    """Count, for each of (K, D) `keepers`, the rows of (N, D) unit vectors whose cosine with it is `threshold` or more.

    `mask` (N,) says which rows take part, and the rows `own` do not. A row that is close to several keepers is counted
    for the first of them only.

    Returns:
        (K,) counts.
    """
    counts = np.zeros(len(keepers), np.int64)
    free = np.ones(len(matrix), np.bool_) if mask is None else mask.copy()
    free[list(own)] = False
    for first in range(0, len(keepers), _KEEPERS):
        some = keepers[first : first + _KEEPERS].astype(np.float32)
        score = _Kernel(some / np.linalg.norm(some, axis=1, keepdims=True))
        step = max(_LEAST_ROWS, min(_CHUNK_ROWS, _CHUNK_SCORES // len(some)))
        for start in range(0, len(matrix), step):
            available = free[start : start + step]
            close = (score(matrix[start : start + step]) >= threshold) & available
            taken = close.any(axis=0)
            available[taken] = False  # a view, so this changes `free`
            counts += np.bincount(first + close[:, taken].argmax(axis=0), minlength=len(keepers))
    return counts


def _head(ranked: Ranked, k: int) -> tuple[Ranked, float]:
    """Keep the `k` best rows and all that tie with the last, in their order; return them and the score of the last."""
    rows, scores = ranked
    if len(rows) < k:
        return ranked, -np.inf
    last = np.partition(scores, len(scores) - k)[len(scores) - k]
    among = scores >= last
    return Ranked(rows[among], scores[among]), float(last)


def _joined(parts: list[Ranked]) -> Ranked:
    return Ranked(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _sorted(ranked: Ranked) -> Ranked:
    order = np.argsort(-ranked.scores, kind="stable")
    return Ranked(ranked.rows[order], ranked.scores[order])


class _Scored:
    """Takes rows of scores as they are."""

    met_nan = True  # one may be

    def __call__(self, rows: npt.NDArray[Any]) -> Scores:
        """Return (Q, N) scores for (N, Q) of them."""
        return rows.T


class _Kernel:
    """Computes cosines of all queries with rows of the matrix, by SIMD kernels that read float16.

    The kernels need both sides in the same type and accumulate in float32. So each query is split into two float16
    vectors: the query rounded to float16, and the rounding error scaled up by a power of two. The sum of both products
    is as exact as with a float32 query.
    """

    def __init__(self, queries: npt.NDArray[np.float32]) -> None:
        self.met_nan = False
        """Whether a score so far was not a cosine. Such a score is NaN and is never ranked."""
        high = queries.astype(np.float16)
        low = ((queries - high) * _LOW_BITS).astype(np.float16)
        self._number = len(queries)
        self._packed = numkong.dots_pack(np.concatenate([high, low]))

    def __call__(self, rows: Matrix) -> Scores:
        """Return the (Q, N) cosines of the queries with (N, D) rows."""
        if not len(rows):
            return np.empty((self._number, 0), np.float32)
        products = np.asarray(numkong.dots_packed(rows, self._packed), np.float32).T
        scores = products[: self._number] + products[self._number :] / _LOW_BITS
        if not (scores.min() >= -_LARGEST and scores.max() <= _LARGEST):  # written so that NaN is found, too
            self.met_nan = True
            scores[~(np.abs(scores) <= _LARGEST)] = np.nan
        # Rounding to float16 makes rows slightly longer or shorter than 1.
        return np.clip(scores, -1, 1, out=scores)
