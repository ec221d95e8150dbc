"""Pictures against texts with no training in between: cosines, probabilities, ranks.

As Radford et al. 2021 (section 3.1.2) use CLIP for classification: the model's `Logits` make probabilities of the
cosines of a picture with several texts. Knows nothing of models, files and indexes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clipsearch.errors import InputError
from clipsearch.models.logits import Logits, Probabilities

Scores = npt.NDArray[np.float32]
"""(N, M) cosines of N pictures with M texts, in [-1, 1]."""
Ranks = npt.NDArray[np.int64]

TEXTS, IMAGES = 1, 0
"""The axes of `Scores`: along which of them probabilities sum to 1, unless the model takes each pair by itself."""


def similarities(images: npt.NDArray[np.float32], texts: npt.NDArray[np.float32]) -> Scores:
    """(N, M) float32 cosines, in [-1, 1], of (N, D) and (M, D) unit vectors.

    Raises:
        InputError: the vectors are of different models, as their D tells.
    """
    if images.ndim != 2 or texts.ndim != 2 or images.shape[1] != texts.shape[1]:  # noqa: PLR2004  (rows of vectors)
        raise InputError(f"Vectors of shapes {images.shape} and {texts.shape} do not belong to one model.")
    scores = images.astype(np.float32, copy=False) @ texts.astype(np.float32, copy=False).T
    # Unit vectors are so only to the last bits of float32.
    return np.asarray(np.clip(scores, -1, 1))


def ranks(scores: npt.NDArray[np.floating], axis: int = TEXTS) -> Ranks:
    """The place of each of `scores` along `axis`, of the same shape: 1 is the highest, and equal ones share a place."""
    if not scores.size:
        return np.empty(scores.shape, np.int64)

    def places(line: npt.NDArray[np.floating]) -> Ranks:
        not_higher = np.searchsorted(np.sort(line), line, side="right")
        return np.asarray(1 + len(line) - not_higher, np.int64)

    return np.asarray(np.apply_along_axis(places, axis, scores))


@dataclass(frozen=True)
class Comparison:
    """N pictures and M texts, each with each."""

    images: Sequence[bytes | str]
    """N names: absolute paths as bytes, or what stands for a picture without one."""
    texts: Sequence[str]
    scores: Scores
    """(N, M) cosines."""
    probabilities: Probabilities
    """(N, M), as `Logits` has them."""
    ranks: Ranks
    """(N, M) places among what competes; 1 is the best."""


def compare(
    images: Sequence[bytes | str],
    image_vectors: npt.NDArray[np.float32],
    texts: Sequence[str],
    text_vectors: npt.NDArray[np.float32],
    *,
    logits: Logits,
    axis: int = TEXTS,
) -> Comparison:
    """Compare `images` with `texts` by their (N, D) and (M, D) unit vectors; along `axis` they compete.

    `logits` are those of the model.

    Raises:
        InputError: the vectors are of different models.
    """
    scores = similarities(image_vectors, text_vectors)
    return Comparison(images, texts, scores, logits.probabilities(scores, axis), ranks(scores, axis))
