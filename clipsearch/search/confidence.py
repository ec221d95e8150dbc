"""Confidence: the probability that an image shows what a query describes.

A cosine is no such probability, because its scale differs between queries, between images and between models. So the
query is compared with neutral prompts for the same image, like the labels of zero-shot classification (Radford et al.
2021, section 3.1): both cosines are multiplied by the model's logit scale, and

    confidence = exp(query) / (exp(query) + mean of exp(prompts))

which is the probability of the query against one neutral prompt of average fit. At 0.5 the query fits the image no
better than "a photo". Each unwanted text of a query is added as a further prompt, with the weight of all neutral ones.

A model that was trained with a sigmoid (see `Logits`) has learned the probability of each pair of image and text, and
needs no prompts: its confidence is that probability, times the probability that the image fits no unwanted text.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clipsearch.models.logits import Logits, sigmoid
from clipsearch.unit import Array

NEUTRAL = (
    *("a photo", "a picture", "an image"),
    *("a photo of something", "a picture of something", "an image of something"),
    *("something", "there is something"),
)
"""Prompts that fit any image; docs/quality.md says how they were chosen and evaluated."""


@dataclass(frozen=True)
class NegativePrompts:
    """The prompts that queries are compared with."""

    vectors: Array
    """(M, D) unit vectors of prompts: first the neutral ones, then the unwanted texts."""
    neutral: int
    """Number of neutral prompts; 0 for a model that needs none."""
    logits: Logits
    """The logits of the model, which turn cosines into probabilities."""

    def confidence(self, queries: Array, prompts: Array) -> npt.NDArray[np.float64]:
        """Return (Q, N) confidences in [0, 1], from (Q, N) cosines of queries and (M, N) of prompts with N images."""
        logits = self.logits.of(queries)
        if self.logits.bias is None:
            return sigmoid(logits - self.strengths(prompts))
        return np.asarray(sigmoid(logits) * sigmoid(-self.logits.of(prompts)).prod(axis=0))

    @property
    def are_for_all(self) -> bool:
        """Whether `strengths` are the same for all queries."""
        return self.logits.bias is None and len(self.vectors) == self.neutral

    def confidence_against(self, queries: Array, strengths: Array) -> npt.NDArray[np.float64]:
        """Return what `confidence` does, from (N,) `strengths` in place of the cosines of prompts."""
        return sigmoid(self.logits.of(queries) - strengths)

    def strengths(self, prompts: Array) -> npt.NDArray[np.float64]:
        """Return (N,) the logits at which a query has a confidence of 0.5, of a model that has prompts."""
        logits = self.logits.of(prompts)
        top = logits.max(axis=0)
        powers = np.exp(logits - top)
        return np.asarray(top + np.log(powers[: self.neutral].mean(axis=0) + powers[self.neutral :].sum(axis=0)))
