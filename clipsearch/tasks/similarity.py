"""Similarity of images and texts: cosines, probabilities and ranks of all pairs.

Probabilities follow Radford et al. 2021 (section 3.1.2): the model's `Logits` turn the cosines of an image with several
texts into probabilities. The module knows nothing of models, files and indexes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clipsearch.errors import InputError
from clipsearch.models.logits import Logits, Probabilities
from clipsearch.unit import Scores

Ranks = npt.NDArray[np.int64]

TEXTS, IMAGES = 1, 0
"""The axes of (N, M) scores, along one of which probabilities sum to 1, except with a model trained with a sigmoid."""


def similarities(images: npt.NDArray[np.float32], texts: npt.NDArray[np.float32]) -> Scores:
    """Return the (N, M) float32 cosines, in [-1, 1], of (N, D) and (M, D) unit vectors.

    Raises:
        InputError: the vectors have different D, so they are of different models.
    """
    if images.ndim != 2 or texts.ndim != 2 or images.shape[1] != texts.shape[1]:  # noqa: PLR2004  (rows of vectors)
        raise InputError(f"Vectors of shapes {images.shape} and {texts.shape} do not belong to one model.")
    scores = images.astype(np.float32, copy=False) @ texts.astype(np.float32, copy=False).T
    # The length of a unit vector differs from 1 in the last bits of float32.
    return np.asarray(np.clip(scores, -1, 1))


def ranks(scores: npt.NDArray[np.floating], axis: int = TEXTS) -> Ranks:
    """Return the rank of each of `scores` along `axis`, in the same shape. 1 is the highest; ties share a rank."""
    if not scores.size:
        return np.empty(scores.shape, np.int64)

    def places(line: npt.NDArray[np.floating]) -> Ranks:
        not_higher = np.searchsorted(np.sort(line), line, side="right")
        return np.asarray(1 + len(line) - not_higher, np.int64)

    return np.asarray(np.apply_along_axis(places, axis, scores))


@dataclass(frozen=True)
class Comparison:
    """All pairs of N images and M texts."""

    images: Sequence[bytes | str]
    """N names: absolute paths as bytes, or a str for an image that has no path."""
    texts: Sequence[str]
    scores: Scores
    """(N, M) cosines."""
    probabilities: Probabilities
    """(N, M) probabilities, as `Logits` computes them."""
    ranks: Ranks
    """(N, M) ranks along the axis of comparison; 1 is the best."""


def compare(
    images: Sequence[bytes | str],
    image_vectors: npt.NDArray[np.float32],
    texts: Sequence[str],
    text_vectors: npt.NDArray[np.float32],
    *,
    logits: Logits,
    axis: int = TEXTS,
) -> Comparison:
    """Compare all images with all texts.

    Args:
        images: N names of images.
        image_vectors: (N, D) their unit vectors.
        texts: M texts.
        text_vectors: (M, D) their unit vectors.
        logits: those of the model.
        axis: `TEXTS` to rank the texts of each image, `IMAGES` to rank the images of each text.

    Raises:
        InputError: the vectors are of different models.
    """
    scores = similarities(image_vectors, text_vectors)
    return Comparison(images, texts, scores, logits.probabilities(scores, axis), ranks(scores, axis))
