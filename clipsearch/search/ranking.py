"""Ranks the images of one commit for vectors of queries, and makes hits of the best. Knows nothing of models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from clipsearch.errors import InputError
from clipsearch.index.format import Record
from clipsearch.index.reading import Store
from clipsearch.index.selection import Selection
from clipsearch.search.confidence import NegativePrompts
from clipsearch.search.hit import Hit
from clipsearch.search.topk import Cut, Mask, Ranked, best_unit_rows, scores_of
from clipsearch.unit import Vectors

if TYPE_CHECKING:
    from clipsearch.index.regions import Regions
    from clipsearch.search.approximate import Approximate
    from clipsearch.search.region_ranking import Best, RegionRanking

_MORE = 4
"""Factor by which the number of candidates grows when too many of them are alike."""


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


class _Fit(NamedTuple):
    """An image that fits a query."""

    score: float
    record: Record
    region: int = -1
    """The number of the region that fits best; negative for the whole image."""


class Ranking:
    """Ranks the images that take part in one search. Use it within one `Store.snapshot`."""

    def __init__(
        self,
        store: Store,
        selection: Selection,
        regions: Regions | None = None,
        approximate: Approximate | None = None,
    ) -> None:
        """Rank the selected images of `store`, and `regions` of them.

        With `approximate`, and without regions, only those images are compared that it chooses.
        """
        self._store = store
        self._matrix, self._mask = selection
        self._approximate = approximate
        self._broken: set[int] = set()
        self._regions: RegionRanking | None = None
        if regions is not None and len(regions.images):
            from clipsearch.search.region_ranking import RegionRanking

            self._regions = RegionRanking(regions, *selection, alive=store.matrix()[1])

    @property
    def broken(self) -> int:
        """The number of images found so far that have a row which is not a unit vector."""
        return len(self._broken | self._regions.broken_images() if self._regions else self._broken)

    def hits(
        self,
        asked: list[Asked],
        negatives: NegativePrompts | None,
        limits: Limits,
        neutral: Callable[[], Vectors],
    ) -> list[list[Hit]]:
        """Rank queries with the same unwanted texts in one pass.

        Args:
            asked: the Q queries.
            negatives: the neutral prompts and the unwanted texts; None if no query has `Asked.wanted`.
            limits: what hits there may be.
            neutral: returns the (V, D) vectors of texts that fit any image; is called if regions are ranked.

        Returns:
            The hits of each query.
        """
        queries = np.stack([one.vector for one in asked])
        cut = None
        if limits.confidence is not None and negatives:
            cut = _cut(negatives, [one.wanted for one in asked if one.wanted is not None], limits.confidence)
        slopes = self._slopes(asked, neutral)
        out = []
        for one, slope, found in zip(asked, slopes, self._chosen(queries, slopes, cut, limits), strict=True):
            sure: Sequence[float | None] = [None] * len(found)
            if negatives and one.wanted is not None:
                sure = self._confidence(one.wanted, slope, negatives, found)
            alike: list[int | None] = [None] * len(found)
            if limits.distinct is not None:
                from clipsearch.search.distinct import others

                records = [one.record for one in found]
                alike = [*others(self._store, self._matrix, self._mask, records, limits.distinct)]
            out.append([*map(self._hit, range(1, len(found) + 1), found, sure, alike)])
        return out

    def _slopes(self, asked: list[Asked], neutral: Callable[[], Vectors]) -> list[float]:
        """Return the penalty of regions for each query, as a factor; see `RegionRanking`.

        Queries in words all have the same, so that their scores can be compared.
        """
        if self._regions is None:
            return [0.0] * len(asked)
        in_words = any(one.wanted is not None for one in asked)
        slope = self._regions.slope_of_words(neutral()) if in_words else 0.0
        return [slope if one.wanted is not None else self._regions.slope_of(one.vector) for one in asked]

    def _chosen(self, queries: Vectors, slopes: Sequence[float], cut: Cut | None, limits: Limits) -> list[list[_Fit]]:
        """Return the best images of (Q, D) queries, at most `limits.k` for each, ties by path."""
        total = len(self._matrix)
        asked_for = k = total if limits.k is None else limits.k
        while True:
            ranking = self._in_order(self._best(queries, slopes, asked_for, cut), limits.score)
            if limits.distinct is None:
                return [found[:k] for found in ranking]
            from clipsearch.search.distinct import firsts

            # If many are alike, more candidates are needed to find `k` that are not.
            chosen = []
            for found in ranking:
                places = firsts(self._matrix, [one.record for one in found], limits.distinct)
                chosen.append([found[place] for place in places[:k]])
            complete = (len(few) == k or len(found) < asked_for for few, found in zip(chosen, ranking, strict=True))
            if asked_for >= total or all(complete):
                return chosen
            asked_for = min(total, _MORE * asked_for)

    def _hit(self, rank: int, fit: _Fit, confidence: float | None, others: int | None) -> Hit:
        box = self._regions.box(fit.region) if self._regions else None
        with_regions = self._regions is not None
        return Hit.of(
            fit.record, rank, fit.score, confidence=confidence, others=others, box=box, among_regions=with_regions
        )

    def _best(self, queries: Vectors, slopes: Sequence[float], k: int, cut: Cut | None) -> Sequence[Ranked | Best]:
        """Return the `k` best images of each query, and all that tie with the last."""
        mask = self._mask
        if self._approximate:
            mask = self._approximate.candidates(queries, k, mask, len(self._matrix))
        wholes = best_unit_rows(self._matrix, queries, k, mask, cut, broken=self._broken)
        return self._regions.best(queries, np.array(slopes), wholes, k, cut) if self._regions else wholes

    def _in_order(self, rankings: Sequence[Ranked | Best], least: float | None) -> list[list[_Fit]]:
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
                (_Fit(score, records[row], *region) for row, score, *region in ranked),
                key=lambda fit: (-fit.score, fit.record.path),
            )
            for ranked in found
        ]

    def _confidence(self, wanted: Vectors, slope: float, negatives: NegativePrompts, found: list[_Fit]) -> list[float]:
        """Return the confidence of images that were found; where a region fits best, it is that of the region."""
        rows = np.array([one.record.row for one in found], np.int64)
        cosines = scores_of(self._matrix, rows, np.vstack([wanted, negatives.vectors]))
        if self._regions:
            numbers = np.array([one.region for one in found], np.int64)
            places = np.flatnonzero(numbers >= 0)
            cosines[:, places] = self._regions.scores_of(numbers[places], wanted, slope, negatives.vectors)
        return [*map(float, negatives.confidence(cosines[:1], cosines[1:])[0])]


def _cut(negatives: NegativePrompts, wanted: list[Vectors], least: float) -> Cut:
    """Make a cut that excludes rows whose confidence is less than `least`."""
    prompts = len(negatives.vectors)
    stay_away = prompts > negatives.neutral
    # Without unwanted texts, queries equal `wanted`, whose scores ranking computes anyway.
    vectors = np.concatenate([negatives.vectors, *([np.stack(wanted)] if stay_away else [])])

    def takes_part(scores: Vectors, others: Vectors) -> Mask:
        judged = others[prompts:] if stay_away else scores
        return np.asarray(negatives.confidence(judged, others[:prompts]) >= least)

    return Cut(vectors, takes_part, prompts)
