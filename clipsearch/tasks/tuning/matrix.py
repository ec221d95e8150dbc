"""Learns a matrix for the vectors of texts, so that they find their images. The vectors of images stay as they are.

The matrix is W = I + U V', with few columns in U and V. The loss is that of CLIP (InfoNCE in both directions) over
given vectors, plus what W changes in texts that should stay as they are. There is no model in it, and no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from clipsearch.tasks.tuning.captioned import Batch, Pairs, together
from clipsearch.unit import Array, Vectors

_RANK = 64
"""Columns of U and V. With 32 and 128 the result on drawings was the same within noise."""
STEPS = 150
"""Number of steps."""
_BATCH = 1024
"""Pairs of one step; with fewer pairs, all of them are in each step."""
_RATE = 1e-2
_FALLING = 0.5
"""The share of the steps at the end in which the rate falls to zero."""
_NOTHING = 1e-30
"""Is added to sums and shares that may be too small for float32."""
_MOMENTUM, _SQUARES, _LEAST = 0.9, 0.99, 1e-8
"""Adam's decay rates and its epsilon. The second is below the usual .999 because there are so few steps."""


class Strength(NamedTuple):
    """How hard a matrix is pulled towards its pairs, and held where it should not move."""

    sharpness: float
    """The scale of cosines in the loss, as a share of the model's own logit scale."""
    hold: float
    """Factor of the penalty for moving texts that should stay."""


STRENGTHS = tuple(Strength(sharpness, hold) for sharpness in (0.25, 0.15) for hold in (3.0, 5.0, 10.0, 20.0))
"""What is tried. Which of them is best depends on how many pairs there are and how new their words are."""


class Examples(NamedTuple):
    """Vectors to learn from."""

    texts: Vectors
    """(Q, D) unit vectors."""
    images: Vectors
    """(N, D) unit vectors."""
    pairs: Pairs
    held: Sequence[Vectors]
    """Sets of (A, D) unit vectors of texts that should stay where they are; each set counts the same."""


def learned(
    examples: Examples,
    strength: Strength,
    scale: float,
    *,
    seed: int,
    on_step: Callable[[int, float], None] = lambda _step, _loss: None,
) -> Array:
    """Learn the matrix.

    Args:
        examples: the vectors.
        strength: see `Strength`.
        scale: the model's logit scale.
        seed: that of the random numbers.
        on_step: is called after each step with its number, from 1 on, and the loss.

    Returns:
        (D, D) float32 matrix W; the new vector of a text is W @ its old one, scaled to length 1.
    """
    rng = np.random.default_rng(seed)
    dim = examples.texts.shape[1]
    rank = min(_RANK, dim)
    # One of them is zero, so that W begins as the identity.
    factors = [
        np.zeros((dim, rank), np.float32),
        (rng.standard_normal((dim, rank)) / np.sqrt(dim)).astype(np.float32),
    ]
    adam = [_Adam(factor) for factor in factors]
    squares = [np.asarray(vectors.T @ vectors / np.float32(len(vectors))) for vectors in examples.held]
    for step in range(1, STEPS + 1):
        loss, slopes = _loss(factors, _drawn(examples, rng), examples, squares, strength, scale=scale)
        rate = _RATE * min(1.0, (STEPS - step + 1) / (_FALLING * STEPS))
        for one, slope in zip(adam, slopes, strict=True):
            one.step(slope, rate)
        on_step(step, loss)
    left, right = factors
    return np.asarray(np.eye(dim, dtype=np.float32) + left @ right.T)


class _Adam:
    """Adam (arXiv 1412.6980) for one array, which it changes in place."""

    def __init__(self, values: Array) -> None:
        self._values = values
        self._mean, self._square = np.zeros_like(values), np.zeros_like(values)
        self._steps = 0

    def step(self, slope: Array, rate: float) -> None:
        self._steps += 1
        self._mean += (1 - _MOMENTUM) * (slope - self._mean)
        self._square += (1 - _SQUARES) * (slope * slope - self._square)
        size = np.sqrt(self._square / (1 - _SQUARES**self._steps)) + _LEAST
        self._values -= rate / (1 - _MOMENTUM**self._steps) * self._mean / size


def changed(matrix: Array, vectors: Vectors) -> Vectors:
    """Return `matrix` @ each of (Q, D) vectors, as (Q, D) unit vectors."""
    found = vectors @ matrix.T
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True))


def _drawn(examples: Examples, rng: np.random.Generator) -> Batch:
    """Draw pairs for one step."""
    pairs = examples.pairs
    if len(pairs) > _BATCH:
        pairs = pairs[rng.choice(len(pairs), _BATCH, replace=False)]
    return together(pairs, examples.pairs)


def _loss(
    factors: Sequence[Array],
    batch: Batch,
    examples: Examples,
    squares: Sequence[Array],
    strength: Strength,
    *,
    scale: float,
) -> tuple[float, list[Array]]:
    """Return the loss, and its gradients by U and V.

    `squares` has for each set of texts that should stay the mean, (D, D), of x @ x.T over its vectors x.
    """
    left, right = factors
    given, images = examples.texts[batch.texts], examples.images[batch.images]
    # 1. Vectors and scores. A pair competes with what is wrong for its text or its image, and not with other pairs.
    inner = given @ right
    moved = given + inner @ left.T
    lengths = np.linalg.norm(moved, axis=1, keepdims=True)
    texts = moved / lengths
    sharpness = strength.sharpness * scale
    scores = sharpness * (texts @ images.T)
    slopes = np.zeros_like(scores)
    loss = 0.0
    for axis, own in ((1, batch.rows), (0, batch.columns)):
        weights = np.exp(scores - scores.max(axis, keepdims=True))
        wrong = np.where(batch.wrong, weights, 0)
        of_pairs = weights[batch.rows, batch.columns]
        total = of_pairs + wrong.sum(axis)[own] + _NOTHING
        share = 0.5 / len(own)
        loss -= share * float(np.log(of_pairs / total + _NOTHING).sum())
        slopes[batch.rows, batch.columns] += share * (of_pairs / total - 1)
        by_own = np.bincount(own, share / total, scores.shape[1 - axis]).astype(np.float32)
        slopes += wrong * np.expand_dims(by_own, axis)
    # 2. Back to U and V.
    by_texts = sharpness * (slopes @ images)
    by_moved = (by_texts - (by_texts * texts).sum(1, keepdims=True) * texts) / lengths
    by_left, by_right = by_moved.T @ inner, given.T @ (by_moved @ left)
    # 3. What should stay: the mean square of how far its vectors move. It depends on the squares only, which takes a
    # fraction of the time of a thousand vectors.
    by_lengths = left.T @ left
    for square in squares:
        factor = 2 * strength.hold / len(squares)
        by_square = square @ right
        inside = right.T @ by_square
        loss += factor / 2 * float((inside * by_lengths).sum())
        by_left += factor * (left @ inside)
        by_right += factor * (by_square @ by_lengths)
    return loss, [by_left, by_right]
