"""Activation functions in NumPy, computed in float32 and in blocks that fit the processor's cache."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from clipsearch.unit import Array

_BLOCK = 32_768
"""Number of elements of a block; three blocks fit the second-level cache."""


def quick_gelu(x: Array) -> Array:
    """Multiply x by sigmoid(1.702 x): the activation of OpenAI's models."""

    def into(x: Array, out: Array, _: Array) -> None:
        np.multiply(x, np.float32(-1.702), out=out)
        # exp of a large number is inf, and x / inf is the right answer.
        with np.errstate(over="ignore"):
            np.exp(out, out=out)
        out += 1
        np.divide(x, out, out=out)

    return _in_blocks(into, x)


def gelu(x: Array) -> Array:
    """Multiply x by the normal distribution function of x, exact to 1.2e-6.

    It is computed as relu(x) - |x| erfc(|x| / sqrt 2) / 2, with Abramowitz and Stegun's approximation 7.1.26 of erfc.
    """

    def into(x: Array, out: Array, t: Array) -> None:
        np.abs(x, out=t)
        t *= np.float32(0.3275911 * math.sqrt(0.5))
        t += 1
        np.reciprocal(t, out=t)
        out[:] = 0
        for coefficient in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592):
            out += np.float32(coefficient)
            out *= t
        np.multiply(x, x, out=t)
        t *= np.float32(-0.5)
        np.exp(t, out=t)
        out *= t
        np.abs(x, out=t)
        out *= t
        np.maximum(x, 0, out=t)
        out *= np.float32(-0.5)
        out += t

    return _in_blocks(into, x)


def gelu_tanh(x: Array) -> Array:
    """Multiply x by the normal distribution function of x, approximated with a tanh (Hendrycks and Gimpel 2016).

    Since (1 + tanh y) / 2 = sigmoid(2 y), it is computed as x sigmoid(2 sqrt(2 / pi) (x + 0.044715 x^3)).
    """

    def into(x: Array, out: Array, _: Array) -> None:
        np.multiply(x, x, out=out)
        out *= np.float32(-2 * math.sqrt(2 / math.pi) * 0.044715)
        out -= np.float32(2 * math.sqrt(2 / math.pi))
        out *= x
        with np.errstate(over="ignore"):
            np.exp(out, out=out)
        out += 1
        np.divide(x, out, out=out)

    return _in_blocks(into, x)


def _in_blocks(into: Callable[[Array, Array, Array], None], x: Array) -> Array:
    """Apply `into(x, out, scratch)` to blocks of `x` and return all of `out`."""
    out, scratch = np.empty_like(x), np.empty(min(_BLOCK, x.size), np.float32)
    flat, flat_out = x.reshape(-1), out.reshape(-1)
    for start in range(0, x.size, _BLOCK):
        piece = flat[start : start + _BLOCK]
        into(piece, flat_out[start : start + _BLOCK], scratch[: len(piece)])
    return out


ACTIVATIONS = {"quick_gelu": quick_gelu, "gelu": gelu, "gelu_pytorch_tanh": gelu_tanh}
"""Activation functions by their names in configurations."""
