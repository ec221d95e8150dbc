"""Conversion of a model's cosines to probabilities. Knows nothing of models, texts and images.

A model that was trained with a softmax (CLIP, Radford et al. 2021, section 2.3) compares several texts: cosines are
multiplied by a learned scale, and the probabilities of the texts sum to 1. A model that was trained with a sigmoid
(SigLIP, Zhai et al. 2023, section 3.2) gives each pair of image and text its own probability that the two belong
together; it has a learned bias as well.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Probabilities = npt.NDArray[np.float64]


class Logits(NamedTuple):
    """The learned scale and bias with which a model turns cosines into logits."""

    scale: float
    """Factor of the cosines: the exponential of the model's parameter."""
    bias: float | None = None
    """Added after scaling; None for a model that was trained with a softmax."""

    def of(self, cosines: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        """Compute the float64 logits of cosines; the shape stays the same."""
        return np.asarray(cosines.astype(np.float64) * self.scale + (self.bias or 0.0))

    def probabilities(self, cosines: npt.NDArray[np.floating], axis: int) -> Probabilities:
        """Compute probabilities in [0, 1] from cosines; the shape stays the same.

        With a softmax they sum to 1 along `axis`; with a sigmoid each is independent of the others.
        """
        logits = self.of(cosines)
        if self.bias is not None:
            return sigmoid(logits)
        if logits.shape[axis] == 0:
            return logits
        # Subtracting the largest logit keeps exp from overflowing and does not change the result.
        powers = np.exp(logits - logits.max(axis=axis, keepdims=True))
        return np.asarray(powers / powers.sum(axis=axis, keepdims=True))


def sigmoid(logits: npt.NDArray[np.float64]) -> Probabilities:
    """Apply the logistic function 1 / (1 + exp(-x)) to each element."""
    with np.errstate(over="ignore"):  # exp of a large number is inf, and 1 / inf is the right answer
        return np.asarray(1 / (1 + np.exp(-logits)))
