"""From a model's cosines to probabilities. Knows nothing of models, texts and pictures.

Models that were trained with a softmax (CLIP, Radford et al. 2021, section 2.3) tell which of several texts fits best:
cosines are multiplied by a learned scale, and those that compete share a probability of 1. Models that were trained
with a sigmoid (SigLIP, Zhai et al. 2023, section 3.2) tell of each pair by itself how probable it is that the two
belong together; they have a learned bias as well.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Probabilities = npt.NDArray[np.float64]


class Logits(NamedTuple):
    """What a model makes of its cosines before they become probabilities."""

    scale: float
    """Multiplies cosines; the exponential of the model's parameter."""
    bias: float | None = None
    """Is added then; None for a model that was trained with a softmax."""

    def of(self, cosines: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        """The logits, of the same shape."""
        return np.asarray(cosines.astype(np.float64) * self.scale + (self.bias or 0.0))

    def probabilities(self, cosines: npt.NDArray[np.floating], axis: int) -> Probabilities:
        """In [0, 1], of the same shape. Along `axis` they sum to 1, unless each pair stands for itself."""
        logits = self.of(cosines)
        if self.bias is not None:
            return sigmoid(logits)
        if logits.shape[axis] == 0:
            return logits
        # Less the largest, which changes nothing but that no power overflows.
        powers = np.exp(logits - logits.max(axis=axis, keepdims=True))
        return np.asarray(powers / powers.sum(axis=axis, keepdims=True))


def sigmoid(logits: npt.NDArray[np.float64]) -> Probabilities:
    """The logistic function 1 / (1 + exp(-x))."""
    with np.errstate(over="ignore"):  # exp of a large number is inf, and 1 / inf the right answer
        return np.asarray(1 / (1 + np.exp(-logits)))
