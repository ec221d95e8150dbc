"""Ranks the images of one or several indexes as one: the best of each, merged, so that the result is exact.

Scores and confidences depend on a vector and on the query alone, so those of different indexes can be compared. The
penalty of regions is estimated from images of all indexes together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from clipsearch.search.confidence import NegativePrompts
from clipsearch.search.hit import Hit
from clipsearch.search.ranking import Asked, Fit, Limits, Ranking
from clipsearch.search.topk import Cut, Mask
from clipsearch.unit import Matrix, Vectors

_MORE = 4
"""Factor by which the number of candidates grows when too many of them are alike."""


class JointRanking:
    """Rankings of several indexes, or of one. Use it within one `Store.snapshot` of each."""

    def __init__(self, rankings: Sequence[Ranking]) -> None:
        """Rank the images of all `rankings`, at least one. Of images with the same path, the best is ranked."""
        self._rankings = rankings
        self._with_regions = [one.regions for one in rankings if one.regions is not None]

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
        cuts: list[Cut | None] = [None] * len(self._rankings)
        if limits.confidence is not None and negatives:
            wanted = [one.wanted for one in asked if one.wanted is not None]
            cuts = [_cut(negatives, wanted, limits.confidence, one) for one in self._rankings]
        slopes = self._slopes(asked, neutral)
        out = []
        for one, slope, found in zip(asked, slopes, self._chosen(queries, slopes, cuts, limits), strict=True):
            sure: Sequence[float | None] = [None] * len(found)
            if negatives and one.wanted is not None:
                sure = self._confidence(one.wanted, slope, negatives, found)
            alike: Sequence[int | None] = [None] * len(found)
            if limits.distinct is not None:
                alike = self._others(found, limits.distinct)
            out.append([*map(self._hit, range(1, len(found) + 1), found, sure, alike)])
        return out

    def _slopes(self, asked: list[Asked], neutral: Callable[[], Vectors]) -> list[float]:
        """Return the penalty of regions for each query, as a factor; see `RegionRanking`.

        Queries in words all have the same, so that their scores can be compared.
        """
        if not self._with_regions:
            return [0.0] * len(asked)
        from clipsearch.search.region_ranking import slope_of, slope_of_words

        in_words = any(one.wanted is not None for one in asked)
        slope = slope_of_words(self._with_regions, neutral()) if in_words else 0.0
        return [slope if one.wanted is not None else slope_of(self._with_regions, one.vector) for one in asked]

    def _chosen(
        self, queries: Vectors, slopes: Sequence[float], cuts: Sequence[Cut | None], limits: Limits
    ) -> list[list[Fit]]:
        """Return the best images of (Q, D) queries, at most `limits.k` for each, ties by path."""
        total = sum(one.total for one in self._rankings)
        asked_for = k = total if limits.k is None else limits.k
        while True:
            ranking = self._in_order(queries, slopes, asked_for, cuts, limits.score)
            if limits.distinct is None:
                return [found[:k] for found in ranking]
            from clipsearch.search.distinct import firsts

            # If many are alike, more candidates are needed to find `k` that are not.
            chosen = []
            for found in ranking:
                places = firsts(self._vectors_of(found), [one.record for one in found], limits.distinct)
                chosen.append([found[place] for place in places[:k]])
            complete = (len(few) == k or len(found) < asked_for for few, found in zip(chosen, ranking, strict=True))
            if asked_for >= total or all(complete):
                return chosen
            asked_for = min(total, _MORE * asked_for)

    def _in_order(
        self, queries: Vectors, slopes: Sequence[float], k: int, cuts: Sequence[Cut | None], least: float | None
    ) -> list[list[Fit]]:
        """Return, for each query, at least the `k` best images with at least the score `least`, ties by path."""
        pairs = zip(self._rankings, cuts, strict=True)
        found = [ranking.fits(queries, slopes, k, cut, least) for ranking, cut in pairs]
        return found[0] if len(found) == 1 else [_merged(of_query, k) for of_query in zip(*found, strict=True)]

    def _vectors_of(self, fits: Sequence[Fit]) -> Callable[[Sequence[int]], Matrix]:
        """Return a function that returns the (M, D) vectors of M of the images, by their indices."""

        def vectors(places: Sequence[int]) -> Matrix:
            parts = np.array([fits[place].source for place in places], np.int64)
            rows = np.array([fits[place].record.row for place in places], np.int64)
            if len(self._rankings) == 1 or not len(rows):
                return self._rankings[0].vectors(rows)
            some = [(parts == number, one) for number, one in enumerate(self._rankings)]
            blocks = [(among, one.vectors(rows[among])) for among, one in some if among.any()]
            matrix = np.empty((len(rows), blocks[0][1].shape[1]), blocks[0][1].dtype)
            for among, block in blocks:
                matrix[among] = block
            return matrix

        return vectors

    def _confidence(
        self, wanted: Vectors, slope: float, negatives: NegativePrompts, found: Sequence[Fit]
    ) -> list[float]:
        """Return the confidence of images that were found; where a region fits best, it is that of the region."""
        sure = np.zeros(len(found))
        for number, ranking in enumerate(self._rankings):
            places = [place for place, fit in enumerate(found) if fit.source == number]
            if places:
                sure[places] = ranking.confidence(wanted, slope, negatives, [found[place] for place in places])
        return [*map(float, sure)]

    def _others(self, found: Sequence[Fit], threshold: float) -> list[int]:
        """Count the images that each of those that were found represents besides itself; see `distinct`."""
        from clipsearch.search.distinct import SAME

        if threshold == SAME:
            paths = [set().union(*(one.with_content(fit.record.hash) for one in self._rankings)) for fit in found]
            return [len(same - {fit.record.path}) for same, fit in zip(paths, found, strict=True)]
        keepers = self._vectors_of(found)(range(len(found)))
        counts = np.zeros(len(found), np.int64)
        for number, ranking in enumerate(self._rankings):
            own = [fit.record.row for fit in found if fit.source == number and fit.record.row is not None]
            elsewhere = (ranking.row_of(fit.record.path) for fit in found if fit.source != number)
            counts += ranking.close_to(keepers, [*own, *(row for row in elsewhere if row is not None)], threshold)
        return counts.tolist()

    def _hit(self, rank: int, fit: Fit, confidence: float | None, others: int | None) -> Hit:
        regions = self._rankings[fit.source].regions
        return Hit.of(
            fit.record if len(self._rankings) == 1 else fit.record._replace(row=None),
            rank,
            fit.score,
            confidence=confidence,
            others=others,
            box=regions.box(fit.region) if regions else None,
            among_regions=bool(self._with_regions),
        )


def _merged(parts: Sequence[list[Fit]], k: int) -> list[Fit]:
    """Merge rankings of several sources, each of at least its `k` best, as far as they are complete together."""
    # Below the last of a source that may have more, what is there of others is not all there is.
    floor = max((part[-1].score for part in parts if len(part) >= k), default=-np.inf)
    fits = [fit._replace(source=number) for number, part in enumerate(parts) for fit in part if fit.score >= floor]
    best: dict[bytes, Fit] = {}
    for fit in sorted(fits, key=lambda fit: (-fit.score, fit.record.path)):
        best.setdefault(fit.record.path, fit)
    return list(best.values())


def _cut(negatives: NegativePrompts, wanted: list[Vectors], least: float, ranking: Ranking) -> Cut:
    """Make a cut that excludes rows of a ranking whose confidence is less than `least`."""
    if (strengths := ranking.strengths(negatives)) is not None:
        return Cut(
            negatives.vectors[:0],
            lambda scores, strengths: negatives.confidence_against(scores, strengths) >= least,
            0,
            strengths,
        )
    prompts = len(negatives.vectors)
    stay_away = prompts > negatives.neutral
    # Without unwanted texts, queries equal `wanted`, whose scores ranking computes anyway.
    vectors = np.concatenate([negatives.vectors, *([np.stack(wanted)] if stay_away else [])])

    def takes_part(scores: Vectors, others: Vectors) -> Mask:
        judged = others[prompts:] if stay_away else scores
        return np.asarray(negatives.confidence(judged, others[:prompts]) >= least)

    return Cut(vectors, takes_part, prompts)
