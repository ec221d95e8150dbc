"""The layers of a transformer in numpy, which text and image towers have in common, in float32.

They are those of CLIP (Radford et al. 2021) and SigLIP (Zhai et al. 2023): a norm before attention, another before the
MLP. Tokens of many sequences stand in one matrix, so that weights are read once; only attention knows where a sequence
ends. Knows nothing of texts and images, nor of where weights come from.

**Cores.** BLAS is given one core by the command line, for a single text is too little work to be divided. What is
enough, an image, is divided here: each thread computes some columns of a product, bias and activation included.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import groupby, pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from clipsearch.models.in_numpy.activations import ACTIVATIONS
from clipsearch.system import cores
from clipsearch.unit import Array

Weights = Mapping[str, npt.NDArray[np.floating]]


class Batch(NamedTuple):
    """Sequences that are computed together: what of them the layers have to know."""

    lengths: Sequence[int]
    """Tokens of each."""
    kept: npt.NDArray[np.intp] | None = None
    """The places whose vectors are wanted, one of each sequence: of the others, the last layer computes nothing but
    keys and values. With causal attention they have to be the last ones. None for all places."""
    unseen: npt.NDArray[np.bool_] | None = None
    """(Q, length): tokens that no other sees, where all sequences have the same length."""
    threads: int = 1
    """How many share each product."""


class Transformer:
    """Layers over weights that are named as in transformers' encoders: `encoder.layers.0.layer_norm1.weight`."""

    def __init__(
        self, weights: Weights, heads: int, activation: str, layer_norm_eps: float, *, causal: bool = False
    ) -> None:
        """`activation` is one of `ACTIVATIONS`; with `causal` attention, tokens see what is before them."""
        self.weights = weights
        self._heads = heads
        self._activation = ACTIVATIONS[activation]
        self._eps: np.float32 = np.float32(layer_norm_eps)
        self._causal = causal
        self.depth = sum(name.endswith(".layer_norm1.weight") for name in weights)
        """Number of layers."""

    def layers(self, x: Array, batch: Batch, stop: int | None = None) -> Array:
        """What all layers make of (T, W) tokens: as many vectors, or (Q, W) those of the places that are `kept`.

        With `stop`, only so many layers; `kept` counts in the last of all.
        """
        everywhere = batch._replace(kept=None)
        for i in range(self.depth if stop is None else stop):
            x = self._layer(x, f"encoder.layers.{i}.", batch if i == self.depth - 1 else everywhere)
        return x

    def _layer(self, x: Array, layer: str, batch: Batch) -> Array:
        normed = self.norm(x, layer + "layer_norm1")
        asking, x = (normed, x) if batch.kept is None else (normed[batch.kept], x[batch.kept])
        x = x + self.attention(asking, normed, layer + "self_attn.", batch)
        return x + self.mlp(self.norm(x, layer + "layer_norm2"), layer + "mlp.", batch.threads)

    def attention(self, asking: Array, seen: Array, name: str, batch: Batch) -> Array:
        """What each of `asking` gathers from the (T, W) tokens of its sequence: (T, W), or (Q, W) of one place each.

        Each sequence for itself; those of one length that stand together are computed together.
        """
        queries = self.linear(asking, name + "q_proj", batch.threads)
        keys, values = (self.linear(seen, f"{name}{letter}_proj", batch.threads) for letter in "kv")
        gathered = np.empty_like(queries)
        asked = start = 0
        for length, group in groupby(batch.lengths):
            number = len(list(group))
            rows = slice(start, start + number * length)
            asked_rows = slice(asked, asked + number * (length if len(asking) == len(seen) else 1))
            start, asked = rows.stop, asked_rows.stop
            gathered[asked_rows] = self._gather(queries[asked_rows], keys[rows], values[rows], number, batch.unseen)
        return self.linear(gathered, name + "out_proj", batch.threads)

    def _gather(
        self, queries: Array, keys: Array, values: Array, number: int, unseen: npt.NDArray[np.bool_] | None
    ) -> Array:
        """The same for so many sequences of one length, from queries, keys and values."""
        width = queries.shape[1]
        q, k, v = (
            part.reshape(number, -1, self._heads, width // self._heads).transpose(0, 2, 1, 3)
            for part in (queries, keys, values)
        )
        scores: Array = q @ k.transpose(0, 1, 3, 2) / np.float32(math.sqrt(width // self._heads))
        length = k.shape[2]
        if self._causal and q.shape[2] == length:
            scores += np.triu(np.full((length, length), -np.inf, np.float32), 1)
        elif unseen is not None:
            scores += np.where(unseen, np.float32(-np.inf), np.float32(0))[:, np.newaxis, np.newaxis, :]
        scores -= scores.max(axis=-1, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(axis=-1, keepdims=True)
        return np.asarray((scores @ v).transpose(0, 2, 1, 3).reshape(-1, width))

    def mlp(self, x: Array, name: str, threads: int = 1) -> Array:
        """(T, W) of (T, W) through the two products `name`fc1 and `name`fc2."""
        return self.linear(self.linear(x, name + "fc1", threads, self._activation), name + "fc2", threads)

    def linear(
        self, x: Array, name: str, threads: int = 1, activation: Callable[[Array], Array] | None = None
    ) -> Array:
        """(T, M) of (T, W) by the weights `name`, and their bias if they have one; `threads` share the work."""
        return product(x, self.weights[f"{name}.weight"], self.weights.get(f"{name}.bias"), threads, activation)

    def norm(self, x: Array, name: str) -> Array:
        """(T, W) of (T, W): each token's layer norm."""
        out: Array = x - x.mean(axis=-1, keepdims=True)
        variance = np.einsum("ij,ij->i", out, out)[:, np.newaxis] / np.float32(x.shape[1])
        out /= np.sqrt(variance + self._eps, dtype=np.float32)
        out *= self.weights[f"{name}.weight"]
        out += self.weights[f"{name}.bias"]
        return out


def product(
    x: Array,
    weight: npt.NDArray[np.floating],
    bias: npt.NDArray[np.floating] | None = None,
    threads: int = 1,
    activation: Callable[[Array], Array] | None = None,
) -> Array:
    """(T, M) of (T, W) by (M, W) weights, with (M,) `bias`, through `activation`; `threads` take some columns each."""

    def columns(of: slice) -> Array:
        out: Array = x @ weight[of].T
        if bias is not None:
            out += bias[of]
        return out if activation is None else activation(out)

    return columns(slice(None)) if threads == 1 else _divided(columns, len(weight), threads)


def _divided(columns: Callable[[slice], Array], total: int, threads: int) -> Array:
    """(T, total) put together of what `columns` makes of so many slices, one of them in this thread."""
    first, *others = (slice(*pair) for pair in pairwise(total * i // threads for i in range(threads + 1)))

    def quietly(of: slice) -> Array:
        with np.errstate(all="ignore"):  # which counts in the thread that sets it
            return columns(of)

    waiting = [_helpers().submit(quietly, of) for of in others]
    return np.concatenate([quietly(first), *(one.result() for one in waiting)], axis=1)


def threads_for_products() -> int:
    """How many threads products are best divided among here: all cores, unless BLAS does so itself.

    It does unless it was told to take one core, as the command line does (`OPENBLAS_NUM_THREADS`).
    """
    return cores.available() if os.environ.get("OPENBLAS_NUM_THREADS") == "1" else 1


@cache
def _helpers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(cores.available())
