"""Moves the vector of a text that several images have in common to where it tells these from all others.

Training by pairs leaves the vectors of new names near the means of their images. A linear discriminant, which takes
into account how images differ anyway, tells them apart better, and needs no more than their vectors. A matrix moves
the texts there, as closely as is possible without moving texts that should stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from clipsearch.tasks.tuning.captioned import Pairs
from clipsearch.unit import Array, Vectors

HOLDS = (5.0, 10.0, 20.0, 40.0, 80.0)
"""How hard other texts are held in place: what is tried, one after the other, until too little is lost."""
_HALF = 20
"""Images with which a text is moved half of the way; the mean of a few says little."""
_LEAST = 2
"""The least images of a text that is moved."""


class Names(NamedTuple):
    """Texts, and where they should be."""

    texts: npt.NDArray[np.float64]
    """(K, D) unit vectors."""
    targets: npt.NDArray[np.float64]
    """(K, D) unit vectors."""
    shares: npt.NDArray[np.float64]
    """(K,) what each counts, by its images; 1 together."""


def names_of(texts: Vectors, images: Vectors, pairs: Pairs) -> Names | None:
    """Find where texts with several images should be.

    Args:
        texts: (Q, D) unit vectors.
        images: (N, D) unit vectors, of images of these texts and of others.
        pairs: which images a text describes.

    Returns:
        The texts with two images or more, but not all; None if there are none.
    """
    counts = np.bincount(pairs[:, 0], minlength=len(texts))
    rows = np.flatnonzero((counts >= _LEAST) & (counts < len(images)))
    if not len(rows):
        return None
    # 1. The direction in which the images of a text differ from the mean most, compared with how all images differ
    # there: (C + cI)^-1 (m - mean). c is the mean variance of a dimension, since there may be fewer images than these.
    given = images.astype(np.float64)
    mean = given.mean(0)
    spread = (given - mean).T @ (given - mean) / len(given)
    spread += np.eye(len(spread)) * np.trace(spread) / len(spread)
    sums = np.zeros((len(texts), given.shape[1]))
    np.add.at(sums, pairs[:, 0], given[pairs[:, 1]])
    directions = np.linalg.solve(spread, (sums[rows] / counts[rows, np.newaxis] - mean).T).T
    # 2. The more images, the further a text is moved.
    old = texts[rows].astype(np.float64)
    share = (counts[rows] / (counts[rows] + _HALF))[:, np.newaxis]
    return Names(old, _unit((1 - share) * old + share * _unit(directions)), counts[rows] / counts[rows].sum())


def moving(names: Names, stays: Sequence[Vectors], hold: float) -> Array:
    """Return the matrix that moves names to where they should be, and texts that should stay as little as possible.

    It is the solution of a linear least-squares problem.

    Args:
        names: what is moved.
        stays: sets of (A, D) unit vectors of texts that should stay; each set counts the same.
        hold: how much they count together, where names count 1.

    Returns:
        (D, D) float32 matrix.
    """
    dim = names.texts.shape[1]
    weighted = names.texts.T * names.shares
    square = weighted @ names.texts + np.eye(dim) / dim
    for vectors in stays:
        given = vectors.astype(np.float64)
        square += hold / len(stays) / len(given) * (given.T @ given)
    moved = np.linalg.solve(square, weighted @ (names.targets - names.texts)).T
    return (np.eye(dim) + moved).astype(np.float32)


def _unit(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))
