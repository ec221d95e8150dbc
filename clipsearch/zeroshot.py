"""Pictures against texts with no training in between: cosines, probabilities, ranks.

As Radford et al. 2021 (section 3.1.2) use CLIP for classification: the cosines of a picture with several texts, times
the model's logit scale, go through a softmax. Knows nothing of models, files and indexes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clipsearch.errors import InputError

Scores = npt.NDArray[np.float32]
"""(N, M) cosines of N pictures with M texts, in [-1, 1]."""
Probabilities = npt.NDArray[np.float64]
Ranks = npt.NDArray[np.int64]

TEXTS, IMAGES = 1, 0
"""The axes of `Scores`: over which of them probabilities are to sum to 1."""


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


def probabilities(scores: npt.NDArray[np.floating], scale: float, axis: int = TEXTS) -> Probabilities:
    """The softmax of `scores` times the model's logit `scale` over `axis`, in float64 and of the same shape.

    Over `TEXTS`, each row (a picture) sums to 1: which text fits it. Over `IMAGES`, each column (a text) does: which
    picture it fits. Where `axis` is empty, so is the result.
    """
    logits = scores.astype(np.float64) * scale
    if logits.shape[axis] == 0:
        return logits
    # Less the largest, which changes nothing but that no power overflows.
    powers = np.exp(logits - logits.max(axis=axis, keepdims=True))
    return np.asarray(powers / powers.sum(axis=axis, keepdims=True))


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

    pictures: Sequence[bytes | str]
    """N names: absolute paths as bytes, or what stands for a picture without one."""
    texts: Sequence[str]
    scores: Scores
    """(N, M) cosines."""
    probabilities: Probabilities
    """(N, M), which sum to 1 over what competes."""
    ranks: Ranks
    """(N, M) places among what competes; 1 is the best."""


def compare(
    pictures: Sequence[bytes | str],
    images: npt.NDArray[np.float32],
    texts: Sequence[str],
    vectors: npt.NDArray[np.float32],
    *,
    scale: float,
    axis: int = TEXTS,
) -> Comparison:
    """Compare `pictures` with `texts` by their (N, D) and (M, D) unit vectors; along `axis` they compete.

    `scale` is the model's logit scale.

    Raises:
        InputError: the vectors are of different models.
    """
    scores = similarities(images, vectors)
    return Comparison(pictures, texts, scores, probabilities(scores, scale, axis), ranks(scores, axis))
