"""Ranks images by the best of their regions. The module knows nothing of where vectors and queries come from.

The largest of n cosines is higher than one cosine by chance alone. Therefore a number that is proportional to ln(n) is
subtracted from those of regions, before they compete with the whole image and with images that have none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from clipsearch.index.regions import Regions
from clipsearch.search.topk import Cut, Mask, Penalty, Ranked, Rows, best_unit_rows, scores_of
from clipsearch.unit import Matrix, Scores, Vectors, are_unit

_SAMPLE = 256
"""Number of images that the advantage of the best of several regions is estimated from."""

_TOGETHER = 1 << 14
"""Number of regions whose images are compared at a time."""


class Best(NamedTuple):
    """The best images of one query, each once."""

    images: Rows
    """(K,) rows of images by decreasing score; more than `k` only if images tie with the last."""
    scores: Scores
    """(K,) the score of the image: that of its whole, or of its best region less the penalty."""
    regions: Rows
    """(K,) the number of the region that has this score; -1 if the whole image has it."""


class RegionRanking:
    """The regions of the images that take part in a search."""

    def __init__(self, regions: Regions, wholes: Matrix, mask: Mask | None = None, alive: Mask | None = None) -> None:
        """Use the regions of an index.

        Args:
            regions: those of all images, at least one.
            wholes: (N, D) the vectors of whole images.
            mask: (N,) whether each image is ranked; None if all are.
            alive: (N,) whether each row is that of an image and not dead; None if none is dead.
        """
        self.regions = regions
        self._wholes = wholes
        self._mask = None if mask is None else mask[regions.images]
        bounds = _bounds(regions.images)
        self._starts = bounds[:-1]
        """(I,) the first region of each image that has any."""
        self._sizes = np.diff(bounds)
        """(I,) the number of regions of each of these images."""
        self._largest = int(self._sizes.max())
        self._logarithms = np.log(np.arange(self._largest + 1).clip(1)).astype(np.float32)
        """(P,) ln(n) for each number of regions of an image, from 0 on."""
        self._alive = None if alive is None else np.flatnonzero(alive[regions.images[self._starts]])
        """Which of these images are alive; None if all are."""
        self._class_of = np.repeat(self._sizes.astype(np.min_scalar_type(self._largest)), self._sizes)
        """(R,) the number of regions of the image of each region."""
        self._broken: set[int] = set()
        """Regions found so far that are not unit vectors."""

    def best(
        self, queries: Vectors, slopes: npt.NDArray[np.float64], wholes: list[Ranked], k: int, cut: Cut | None
    ) -> list[Best]:
        """Find, for each query, the `k` images whose whole or whose best region has the highest score.

        Args:
            queries: (Q, D) unit vectors.
            slopes: (Q,) what is subtracted for each query, as a factor of ln(n) for a region of an image that has n.
            wholes: the ranking of at least the `k` best whole images for each of the queries.
            k: the number of images. All that tie with the last are included.
            cut: a further condition, which a region has to fulfil by itself.

        Returns:
            The ranking of each of Q queries.
        """
        # An image that is among the best by a region has it among the k * largest best regions, for as many regions
        # belong to k images at least. One that is among the best by its whole is among the best wholes. If only a worse
        # region of an image is found, there are k better wholes, so it does not come among the best.
        if cut is not None:  # what it judges besides prompts are the queries, or in each place what a query wants
            asked = len(cut.vectors) - cut.prompts
            slopes = np.concatenate([slopes, np.zeros(cut.prompts), slopes[:asked]])
        amounts = slopes.astype(np.float32)[:, np.newaxis] * self._logarithms
        found = best_unit_rows(
            self.regions.matrix,
            queries,
            k * self._largest,
            self._mask,
            cut,
            broken=self._broken,
            penalty=Penalty(amounts, self._class_of),
        )
        return [self._each_once(whole, part, k) for whole, part in zip(wholes, found, strict=True)]

    def blocks(self, rows: Rows) -> tuple[Rows, Rows]:
        """Return (K,) the first region, and the number of regions, of images given by their rows; 0 where none is."""
        owners = self.regions.images[self._starts]
        order = np.argsort(owners)
        places = order[np.searchsorted(owners, rows, sorter=order).clip(max=len(owners) - 1)]
        sizes = np.where(owners[places] == rows, self._sizes[places], 0)
        return self._starts[places].astype(np.int64), sizes.astype(np.int64)

    def broken_images(self) -> set[int]:
        """Return the rows of images with regions found so far that are not unit vectors."""
        return set(self.regions.images[np.array(sorted(self._broken), np.int64)].tolist())

    def box(self, number: int) -> tuple[int, int, int, int] | None:
        """Return the edges of a region, in pixels of the upright image; None for a negative number."""
        if number < 0:
            return None
        left, top, right, bottom = self.regions.boxes[number].tolist()
        return left, top, right, bottom

    @property
    def alive(self) -> int:
        """The number of images that have regions and are alive."""
        return len(self._starts) if self._alive is None else len(self._alive)

    def slope_of_words(self, neutral: Vectors) -> float:
        """Return the penalty of all queries in words; see the function `slope_of_words`."""
        return slope_of_words([self], neutral)

    def advantages(self, chosen: Rows, vectors: Vectors) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Compare the best region of images with the whole, for (V, D) vectors.

        Args:
            chosen: (S,) which of the images that have regions and are alive, from 0 on.
            vectors: unit vectors.

        Returns:
            (V, S') the differences of the cosines, and (S',) ln(n), of the S' images whose rows are unit vectors.
        """
        blocks = chosen if self._alive is None else self._alive[chosen]
        firsts, sizes = self._starts[blocks].astype(np.int64), self._sizes[blocks].astype(np.int64)
        wholes, numbers, starts = self.regions.images[firsts].astype(np.int64), *_expanded(firsts, sizes)
        if not len(blocks):
            return np.empty((len(vectors), 0)), np.empty(0)
        best = np.maximum.reduceat(scores_of(self.regions.matrix, numbers, vectors), starts, axis=1)
        sound = np.logical_and.reduceat(are_unit(self.regions.matrix[numbers]), starts) & are_unit(self._wholes[wholes])
        differences = best[:, sound].astype(np.float64) - scores_of(self._wholes, wholes[sound], vectors)
        return differences, np.log(sizes[sound])

    def scores_of(self, numbers: Rows, query: Vectors, slope: float, others: Vectors) -> Scores:
        """Return (1 + M, K) scores of K regions: of a query (D,), less the penalty, and cosines of M other vectors."""
        scores = scores_of(self.regions.matrix, numbers, np.vstack([query, others]))
        scores[0] -= np.float32(slope) * self._logarithms[self._class_of[numbers]]
        return scores

    def _each_once(self, whole: Ranked, part: Ranked, k: int) -> Best:
        """Merge the rankings of wholes and of regions for one query. If both are equal, the whole is taken."""
        images = np.concatenate([whole.rows, self.regions.images[part.rows]])
        scores = np.concatenate([whole.scores, part.scores])
        numbers = np.concatenate([np.full(len(whole.rows), -1), part.rows])
        order = np.lexsort((numbers, -scores, images))
        images, scores, numbers = images[order], scores[order], numbers[order]
        first = np.diff(images, prepend=-1) > 0
        images, scores, numbers = images[first], scores[first], numbers[first]
        order = np.argsort(-scores, kind="stable")
        if k < len(order):
            order = order[: np.count_nonzero(scores >= scores[order[k - 1]])]
        return Best(images[order], scores[order], numbers[order])


def excess(rankings: Sequence[RegionRanking], vectors: Vectors) -> npt.NDArray[np.float64]:
    """Estimate, for (V, D) vectors, how much closer the best of n regions is by chance: as (V,) factors of ln(n).

    It is the difference between the cosines of the best region and of the whole, on average over images that are spread
    evenly over all that have regions, in all `rankings` together. It does not depend on the filters of a search.
    """
    ends = np.cumsum([one.alive for one in rankings])
    total = int(ends[-1])
    chosen = np.linspace(0, total - 1, min(total, _SAMPLE)).astype(np.int64)
    parts = [
        one.advantages(chosen[(chosen >= end - one.alive) & (chosen < end)] - (end - one.alive), vectors)
        for one, end in zip(rankings, ends.tolist(), strict=True)
    ]
    by_chance = np.concatenate([logarithms for _, logarithms in parts]).sum()
    if by_chance == 0:  # a single region has no advantage
        return np.zeros(len(vectors))
    return np.asarray(np.hstack([differences for differences, _ in parts]).sum(axis=1) / by_chance)


def slope_of_words(rankings: Sequence[RegionRanking], neutral: Vectors) -> float:
    """Return the penalty of all queries in words, as a factor of ln(n), given (V, D) texts that fit any image."""
    return max(0.0, float(excess(rankings, neutral).mean()))


def slope_of(rankings: Sequence[RegionRanking], query: Vectors) -> float:
    """Return the penalty of any other query (D,), as a factor of ln(n)."""
    return max(0.0, float(excess(rankings, query[np.newaxis])[0]))


class BestRegions:
    """The best region of each of N images, for any query."""

    def __init__(self, ranking: RegionRanking, rows: Rows, slope: float) -> None:
        """Take the regions of images.

        Args:
            ranking: all regions of the index.
            rows: (N,) rows of the images; negative for an image that is not in the index.
            slope: what is subtracted from scores, as a factor of ln(n) for a region of an image that has n.
        """
        self._matrix = ranking.regions.matrix
        firsts, sizes = ranking.blocks(rows)
        self._total = len(rows)
        self._with = np.flatnonzero(sizes)
        """(I,) the places, in `rows`, of images that have regions."""
        sizes = sizes[self._with]
        self._numbers, self._starts = _expanded(firsts[self._with], sizes)
        self._penalties = np.repeat(slope * np.log(sizes), sizes).astype(np.float32)

    def __len__(self) -> int:
        """Return the number of regions of all images together."""
        return len(self._numbers)

    def scores(self, queries: Vectors) -> Scores:
        """Return (Q, N) the score of the best region, less the penalty, for (Q, D) queries; -inf if there is none."""
        best = np.full((len(queries), self._total), -np.inf, np.float32)
        if len(self._numbers):
            scores = scores_of(self._matrix, self._numbers, queries) - self._penalties
            scores[np.isnan(scores)] = -np.inf  # rows that are no vectors
            best[:, self._with] = np.maximum.reduceat(scores, self._starts, axis=1)
        return best


def _bounds(images: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Return (I + 1,) the first region of each of I images, and R at the end, given the (R,) image of each region.

    In the file, these numbers are not next to each other, and such an array takes long to compare. A copy of all would
    be fresh memory, which takes time as well, so parts are copied into the same little memory.
    """
    parts = [np.zeros(1, np.int32)]
    for start in range(1, len(images), _TOGETHER):
        some = np.ascontiguousarray(images[start - 1 : start + _TOGETHER])
        parts.append((np.flatnonzero(some[1:] != some[:-1]) + start).astype(np.int32))
    return np.concatenate([*parts, np.array([len(images)], np.int32)])


def _expanded(firsts: Rows, sizes: Rows) -> tuple[Rows, Rows]:
    """Return the numbers of all regions of blocks, given by their first and their size, and where each block starts."""
    starts = np.cumsum(sizes) - sizes
    return np.repeat(firsts - starts, sizes) + np.arange(sizes.sum()), starts
