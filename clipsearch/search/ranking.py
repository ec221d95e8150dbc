"""Ranks the images of one commit for vectors of queries. Knows nothing of models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from clipsearch.errors import InputError
from clipsearch.index.format import Record
from clipsearch.index.matrix_file import announce
from clipsearch.index.reading import Store
from clipsearch.index.selection import Selection
from clipsearch.search.confidence import NegativePrompts
from clipsearch.search.topk import Cut, Ranked, Rows, assigned, best_unit_rows, scores_of
from clipsearch.unit import Matrix, Vectors

if TYPE_CHECKING:
    from clipsearch.index.regions import Regions
    from clipsearch.search.approximate import Approximate
    from clipsearch.search.kept_scores import KeptScores
    from clipsearch.search.region_ranking import Best, RegionRanking

_FEW = 64
"""If fewer than one row in this number is compared, the system is told beforehand which ones: reading only these from a
disk is faster than reading all. The pages of files hold 2 to 5 rows, so it is told of one page in some twenty."""


class Asked(NamedTuple):
    """The vectors of one query, for ranking and for confidence."""

    vector: Vectors
    """(D,) the vector that images are ranked by."""
    wanted: Vectors | None
    """(D,) the positive terms alone; None for a query without positive terms or with images."""
    unwanted: tuple[str, ...]
    """The texts of the negative terms; empty where `wanted` is None."""
    away: Vectors | None
    """(U, D) the vectors of `unwanted`; None if it is empty."""


class Limits(NamedTuple):
    """What hits there may be: how many at most, and the thresholds that they have to reach."""

    k: int | None
    score: float | None
    confidence: float | None
    distinct: float | None
    whole: bool
    """Whether whole images are compared only, without their regions."""
    approximate: bool = False
    """Whether only images are compared that may be among the best by their codes."""

    @classmethod
    def checked(
        cls,
        k: int | None,
        score: float | None,
        confidence: float | None,
        distinct: float | None,
        *,
        whole: bool,
        approximate: bool = False,
    ) -> Limits:
        """Check that each value is in its range, or raise an InputError."""
        if k is not None and k < 1:
            raise InputError(f"k must be at least 1, not {k}.")
        if score is not None and not -1 <= score <= 1:
            raise InputError(f"A score is a cosine, from -1 to 1; no image can have {score:g}.")
        if confidence is not None and not 0 <= confidence <= 1:
            raise InputError(f"A confidence is from 0 to 1; no image can have {confidence:g}.")
        if distinct is not None and not 0 < distinct <= 1:
            raise InputError(f"Pictures are alike from a cosine above 0 and up to 1 on, as in 0.95; not {distinct:g}.")
        return cls(k, score, confidence, distinct, whole, approximate)


class Fit(NamedTuple):
    """An image that fits a query."""

    score: float
    record: Record
    region: int = -1
    """The number of the region that fits best; negative for the whole image."""
    source: int = 0
    """The number of the ranking that found it, if there are several."""


class Ranking:
    """Ranks the images that take part in one search. Use it within one `Store.snapshot`."""

    def __init__(
        self,
        store: Store,
        selection: Selection,
        regions: Regions | None = None,
        approximate: Approximate | None = None,
        kept: KeptScores | None = None,
    ) -> None:
        """Rank the selected images of `store`, and `regions` of them.

        With `approximate`, and without regions, only those images are compared that it chooses. Without both, `kept`
        spares the matrix being read for what it has of earlier searches.
        """
        self._store = store
        self._matrix, self._mask = selection
        self._approximate = approximate
        self._broken: set[int] = set()
        self._regions: RegionRanking | None = None
        if regions is not None and len(regions.images):
            from clipsearch.search.region_ranking import RegionRanking

            self._regions = RegionRanking(regions, *selection, alive=store.matrix()[1])
        self._kept = None if approximate or self._regions else kept

    @property
    def broken(self) -> int:
        """The number of images found so far that have a row which is not a unit vector."""
        return len(self._broken | self._regions.broken_images() if self._regions else self._broken)

    @property
    def total(self) -> int:
        """The number of rows, dead ones and those that do not take part included."""
        return len(self._matrix)

    @property
    def regions(self) -> RegionRanking | None:
        """The regions that are ranked; None if there are none."""
        return self._regions

    def strengths(self, negatives: NegativePrompts) -> npt.NDArray[np.float64] | None:
        """Return (N,) those of all rows (see `NegativePrompts.strengths`); None if they are not kept."""
        if self._kept is None or not negatives.are_for_all:
            return None
        return self._kept.strengths(self._store.version(), self._matrix, negatives)

    def fits(
        self, queries: Vectors, slopes: Sequence[float], k: int, cut: Cut | None, least: float | None
    ) -> list[list[Fit]]:
        """Return the `k` best images of each of (Q, D) queries, and all that tie with the last, ties by path.

        Args:
            queries: unit vectors.
            slopes: (Q,) the penalty of regions for each query, as a factor; see `RegionRanking`.
            k: the number of images.
            cut: a further condition that images have to fulfil.
            least: the least score of an image; None for any.
        """
        return self._in_order(self._best(queries, slopes, k, cut), least)

    def vectors(self, rows: Rows) -> Matrix:
        """Return the (M, D) vectors of M rows."""
        return np.asarray(self._matrix[rows])

    def row_of(self, path: bytes) -> int | None:
        """Return the row of the image with this absolute path; None if there is none."""
        return self._store.row_of(path)

    def with_content(self, digest: bytes | None) -> set[bytes]:
        """Return the paths of all images that take part and have this content."""
        found = self._store.rows_with(digest) if digest else []
        return {path for path, row in found if self._mask is None or self._mask[row]}

    def close_to(self, keepers: Matrix, own: Sequence[int], threshold: float) -> Rows:
        """Count, for each of (K, D) vectors, the images that take part and are close to it, without the rows `own`.

        An image that is close to several is counted for the first of them only.
        """
        return assigned(self._matrix, keepers, own, threshold, self._mask)

    def _best(self, queries: Vectors, slopes: Sequence[float], k: int, cut: Cut | None) -> Sequence[Ranked | Best]:
        """Return the `k` best images of each query, and all that tie with the last."""
        mask = self._mask
        if self._approximate:
            mask = self._approximate.candidates(queries, k, mask, len(self._matrix))
        scores = None
        if self._kept is not None and len(queries) == 1 and (cut is None or not len(cut.vectors)):
            scores = self._kept.scores(self._store.version(), self._matrix, queries[0], mask)
        if scores is None and mask is not None and np.count_nonzero(mask) * _FEW < len(mask):
            announce(self._matrix, np.flatnonzero(mask))
        wholes = best_unit_rows(self._matrix, queries, k, mask, cut, broken=self._broken, scores=scores)
        return self._regions.best(queries, np.array(slopes), wholes, k, cut) if self._regions else wholes

    def _in_order(self, rankings: Sequence[Ranked | Best], least: float | None) -> list[list[Fit]]:
        """Return the images with at least the score `least`, ties by path."""
        floor = -np.inf if least is None else least
        found = [
            [one for one in zip(*(column.tolist() for column in ranked), strict=True) if one[1] >= floor]
            for ranked in rankings
        ]
        rows = list(dict.fromkeys(row for ranked in found for row, *_ in ranked))
        records = dict(zip(rows, self._store.images(rows, len(self._matrix)), strict=True))
        return [
            sorted(
                (Fit(score, records[row], *region) for row, score, *region in ranked),
                key=lambda fit: (-fit.score, fit.record.path),
            )
            for ranked in found
        ]

    def confidence(
        self, wanted: Vectors, slope: float, negatives: NegativePrompts, found: Sequence[Fit]
    ) -> npt.NDArray[np.float64]:
        """Return (K,) the confidence of K images that were found; if a region fits best, it is that of the region."""
        rows = np.array([one.record.row for one in found], np.int64)
        cosines = scores_of(self._matrix, rows, np.vstack([wanted, negatives.vectors]))
        if self._regions:
            numbers = np.array([one.region for one in found], np.int64)
            places = np.flatnonzero(numbers >= 0)
            cosines[:, places] = self._regions.scores_of(numbers[places], wanted, slope, negatives.vectors)
        return np.asarray(negatives.confidence(cosines[:1], cosines[1:])[0])
