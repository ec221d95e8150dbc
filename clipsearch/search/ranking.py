"""Ranks the images of one commit for vectors of queries, and makes hits of the best. Knows nothing of models."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from clipsearch.errors import InputError
from clipsearch.index.format import Record
from clipsearch.index.reading import Store
from clipsearch.index.selection import Selection
from clipsearch.search.confidence import NegativePrompts
from clipsearch.search.hit import Hit
from clipsearch.search.topk import Cut, Mask, Ranked, best, scores_of
from clipsearch.unit import Vectors, are_unit

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
    """The largest number of hits, and the thresholds that hits have to reach."""

    k: int | None
    score: float | None
    confidence: float | None
    distinct: float | None

    @classmethod
    def checked(cls, k: int | None, score: float | None, confidence: float | None, distinct: float | None) -> Limits:
        """Check that each value is in its range, or raise an InputError."""
        if k is not None and k < 1:
            raise InputError(f"k must be at least 1, not {k}.")
        if score is not None and not -1 <= score <= 1:
            raise InputError(f"A score is a cosine, from -1 to 1; no image can have {score:g}.")
        if confidence is not None and not 0 <= confidence <= 1:
            raise InputError(f"A confidence is from 0 to 1; no image can have {confidence:g}.")
        if distinct is not None and not 0 < distinct <= 1:
            raise InputError(f"Pictures are alike from a cosine above 0 and up to 1 on, as in 0.95; not {distinct:g}.")
        return cls(k, score, confidence, distinct)


class Ranking:
    """Ranks the images that take part in one search. Use it within one `Store.snapshot`."""

    def __init__(self, store: Store, selection: Selection) -> None:
        """Rank the selected images of `store`."""
        self._store = store
        self._matrix, self._mask = selection
        self.broken: set[int] = set()
        """Rows found so far that are not unit vectors."""

    def hits(self, asked: list[Asked], negatives: NegativePrompts | None, limits: Limits) -> list[list[Hit]]:
        """Rank queries with the same unwanted texts in one pass, and return the hits of each.

        `negatives` are the neutral prompts and the unwanted texts; None if no query has `Asked.wanted`.
        """
        queries = np.stack([one.vector for one in asked])
        cut = None
        if limits.confidence is not None and negatives:
            cut = _cut(negatives, [one.wanted for one in asked if one.wanted is not None], limits.confidence)
        out = []
        for one, found in zip(asked, self._chosen(queries, cut, limits), strict=True):
            scores, records = [score for score, _ in found], [record for _, record in found]
            sure: list[float | None] = [None] * len(found)
            if negatives and one.wanted is not None:
                found_rows = np.array([record.row for record in records], np.int64)
                cosines = scores_of(self._matrix, found_rows, np.vstack([one.wanted, negatives.vectors]))
                sure = negatives.confidence(cosines[:1], cosines[1:])[0].tolist()
            alike: list[int | None] = [None] * len(found)
            if limits.distinct is not None:
                from clipsearch.search.distinct import others

                alike = [*others(self._store, self._matrix, self._mask, records, limits.distinct)]
            out.append([*map(Hit.of, records, range(1, len(found) + 1), scores, sure, alike)])
        return out

    def _chosen(self, queries: Vectors, cut: Cut | None, limits: Limits) -> list[list[tuple[float, Record]]]:
        """Return score and record of the best hits of (Q, D) queries, at most `limits.k` each, ties by path."""
        total = len(self._matrix)
        asked_for = k = total if limits.k is None else limits.k
        while True:
            ranking = self._in_order(self._best(queries, asked_for, cut), limits.score)
            if limits.distinct is None:
                return [found[:k] for found in ranking]
            from clipsearch.search.distinct import firsts

            # If many are alike, more candidates are needed to find `k` that are not.
            chosen = []
            for found in ranking:
                places = firsts(self._matrix, [record for _, record in found], limits.distinct)
                chosen.append([found[place] for place in places[:k]])
            complete = (len(few) == k or len(found) < asked_for for few, found in zip(chosen, ranking, strict=True))
            if asked_for >= total or all(complete):
                return chosen
            asked_for = min(total, _MORE * asked_for)

    def _best(self, queries: Vectors, k: int, cut: Cut | None) -> list[Ranked]:
        """Return the `k` best rows of each query, as `topk.best` does, without rows that are not unit vectors."""
        matrix, mask = self._matrix, self._mask
        while True:
            ranking = best(matrix, queries, k, mask, cut, broken=self.broken)
            # np.unique is avoided: importing it takes as long as ranking a query.
            found = np.array(sorted({row for ranked in ranking for row in ranked.rows.tolist()}), np.int64)
            wrong = found[~are_unit(matrix[found])]
            if not len(wrong):
                return ranking
            # A row of zeros or of another length has a score that is not a cosine.
            self.broken.update(wrong.tolist())
            mask = np.ones(len(matrix), np.bool_) if mask is None else mask.copy()
            mask[wrong] = False

    def _in_order(self, rankings: list[Ranked], least: float | None) -> list[list[tuple[float, Record]]]:
        """Return score and record of the rows with at least the score `least`, ties by path."""
        floor = -np.inf if least is None else least
        found = [
            [(score, row) for row, score in zip(one.rows.tolist(), one.scores.tolist(), strict=True) if score >= floor]
            for one in rankings
        ]
        rows = list(dict.fromkeys(row for one in found for _, row in one))
        records = dict(zip(rows, self._store.images(rows, len(self._matrix)), strict=True))
        return [
            sorted(((score, records[row]) for score, row in one), key=lambda item: (-item[0], item[1].path))
            for one in found
        ]


def _cut(negatives: NegativePrompts, wanted: list[Vectors], least: float) -> Cut:
    """Make a cut that excludes rows whose confidence is less than `least`."""
    prompts = len(negatives.vectors)
    stay_away = prompts > negatives.neutral
    # Without unwanted texts, queries equal `wanted`, whose scores ranking computes anyway.
    vectors = np.concatenate([negatives.vectors, *([np.stack(wanted)] if stay_away else [])])

    def takes_part(scores: Vectors, others: Vectors) -> Mask:
        judged = others[prompts:] if stay_away else scores
        return np.asarray(negatives.confidence(judged, others[:prompts]) >= least)

    return Cut(vectors, takes_part)
