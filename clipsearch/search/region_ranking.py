"""Ranks images by the best of their regions. The module knows nothing of where vectors and queries come from.

The largest of n cosines is higher than one cosine by chance alone, so a penalty that depends on n is subtracted from
those of regions. Then an image's regions compete with its whole, and with images that have none.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from clipsearch.index.regions import Regions
from clipsearch.search.topk import Cut, Mask, Penalty, Ranked, Rows, best_unit_rows, scores_of
from clipsearch.unit import Array, Matrix, Scores, Vectors, are_unit

_SAMPLE = 256
"""Number of images of each number of regions that a penalty is estimated from."""


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

    def __init__(self, regions: Regions, wholes: Matrix, mask: Mask | None) -> None:
        """Rank the regions of the images that `mask` (N,) says; None means all. `wholes` (N, D) are the images."""
        self.regions = regions
        self._wholes = wholes
        self._mask = None if mask is None else mask[regions.images]
        images = regions.images
        starts = np.flatnonzero(images[1:] != images[:-1]) + 1
        self._starts = np.concatenate([[0], starts])
        """(I,) the first region of each image that has any."""
        self._sizes = np.diff(np.concatenate([self._starts, [len(images)]]))
        """(I,) the number of regions of each of these images."""
        self._largest = int(self._sizes.max())
        self._class_of = np.repeat(self._sizes, self._sizes)
        self._broken: set[int] = set()
        """Regions found so far that are not unit vectors."""

    def best(self, queries: Vectors, wholes: list[Ranked], k: int, cut: Cut | None) -> list[Best]:
        """Find, for each query, the `k` images whose whole or whose best region has the highest score.

        Args:
            queries: (Q, D) unit vectors.
            wholes: the ranking of at least the `k` best whole images for each of the queries.
            k: the number of images. All that tie with the last are included.
            cut: a further condition, which a region has to fulfil by itself.

        Returns:
            The ranking of each of Q queries.
        """
        # An image that is among the best by a region has it among the k * largest best regions, for as many regions
        # belong to k images at least. One that is among the best by its whole is among the best wholes. If only a worse
        # region of an image is found, there are k better wholes, so it does not come among the best.
        amounts = self.penalties(queries)
        if cut is not None:
            prompts = np.zeros((cut.prompts, amounts.shape[1]), np.float32)
            amounts = np.concatenate([amounts, prompts, self.penalties(cut.vectors[cut.prompts :])])
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

    def broken_images(self) -> set[int]:
        """Return the rows of images with regions found so far that are not unit vectors."""
        return set(self.regions.images[np.array(sorted(self._broken), np.int64)].tolist())

    def box(self, number: int) -> tuple[int, int, int, int] | None:
        """Return the edges of a region, in pixels of the upright image; None for a negative number."""
        if number < 0:
            return None
        left, top, right, bottom = self.regions.boxes[number].tolist()
        return left, top, right, bottom

    def penalties(self, queries: Vectors) -> Array:
        """Return (Q, P) the penalty of each query for regions of images with 0 to P - 1 regions."""
        amounts = np.zeros((len(queries), self._largest + 1), np.float32)
        for size in np.flatnonzero(np.bincount(self._sizes)).tolist() if len(queries) else ():
            places = np.flatnonzero(self._sizes == size)
            firsts = self._starts[places[np.linspace(0, len(places) - 1, min(len(places), _SAMPLE)).astype(np.int64)]]
            rows = (firsts[:, np.newaxis] + np.arange(size)).ravel()
            wholes = self.regions.images[firsts].astype(np.int64)
            best = scores_of(self.regions.matrix, rows, queries).reshape(len(queries), -1, size).max(axis=2)
            excess = best - scores_of(self._wholes, wholes, queries)
            sound = are_unit(self.regions.matrix[rows]).reshape(-1, size).all(axis=1) & are_unit(self._wholes[wholes])
            if sound.any():
                amounts[:, size] = excess[:, sound].mean(axis=1).clip(0)
        return amounts

    def scores_of(self, numbers: Rows, query: Vectors, others: Vectors) -> Scores:
        """Return (1 + M, K) scores of K regions: of a query (D,), less the penalty, and cosines of M other vectors."""
        scores = scores_of(self.regions.matrix, numbers, np.vstack([query, others]))
        scores[0] -= self.penalties(query[np.newaxis])[0, self._class_of[numbers]]
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
