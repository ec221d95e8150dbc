"""How sure it is that a picture shows what a query says.

A cosine alone does not tell: its scale differs from query to query, from picture to picture and from model to model. So
the query competes, for the same picture, with prompts that say nothing in particular, as the labels of zero-shot
classification do (Radford et al. 2021, section 3.1): both are multiplied by the model's logit scale, and

    confidence = exp(query) / (exp(query) + mean of exp(prompts))

which is the probability of the query against one prompt of average fit. At 0.5 the query says no more about the picture
than "a photo". What a query asks to stay away from joins the prompts, each for as much as all of them.

A model that was trained with a sigmoid (see `Logits`) has learned how probable each pair is by itself, and needs no
prompts: its confidence is that probability, times that of not fitting each thing to stay away from.
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
"""Prompts that fit any picture. docs/quality.md says how they were chosen and what they are worth."""


@dataclass(frozen=True)
class NegativePrompts:
    """What queries compete with."""

    vectors: Array
    """(M, D) unit vectors of prompts: first the neutral ones, then what to stay away from."""
    neutral: int
    """How many are neutral; 0 for a model that needs none."""
    logits: Logits
    """The model's."""

    def confidence(self, queries: Array, prompts: Array) -> npt.NDArray[np.float64]:
        """(Q, N) confidence in [0, 1], from (Q, N) cosines of queries and (M, N) of the prompts with N pictures."""
        logits = self.logits.of(queries)
        if self.logits.bias is None:
            return sigmoid(logits - self._strength(prompts))
        return np.asarray(sigmoid(logits) * sigmoid(-self.logits.of(prompts)).prod(axis=0))

    def _strength(self, prompts: Array) -> npt.NDArray[np.float64]:
        """(N,) the logit at which a query has a confidence of 0.5."""
        logits = self.logits.of(prompts)
        top = logits.max(axis=0)
        powers = np.exp(logits - top)
        return np.asarray(top + np.log(powers[: self.neutral].mean(axis=0) + powers[self.neutral :].sum(axis=0)))
