"""The layers of a transformer in NumPy, in float32, which text and image towers have in common.

They are those of CLIP (Radford et al. 2021) and SigLIP (Zhai et al. 2023): a norm before attention, another before the
MLP. The tokens of many sequences are one matrix, so that weights are read once; only attention knows where a sequence
ends. Knows nothing of texts and images, nor of where weights come from.

**Cores.** The command line limits BLAS to one core, because a single text is too little work to be divided. The work of
an image is divided here: each thread computes some columns of a matrix product, with bias and activation.
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

_AT_ONCE = 4
"""OpenBLAS multiplies so many rows at once, and the rest one by one, which takes longer than if there were enough: 11
tokens took 42 ms in ViT-B/32's text tower, and take 29 ms as 12 (docs/benchmarks.md, 2026-11-27)."""
_FEW = 64
"""Number of rows up to which that is worth a copy of them."""

Weights = Mapping[str, npt.NDArray[np.floating]]


class Batch(NamedTuple):
    """What the layers need to know of sequences that are computed together."""

    lengths: Sequence[int]
    """Number of tokens of each sequence."""
    kept: npt.NDArray[np.intp] | None = None
    """Rows of the tokens whose output is wanted, one of each sequence: of the others, the last layer computes only keys
    and values. With causal attention they have to be the last tokens of sequences. None for all tokens."""
    unseen: npt.NDArray[np.bool_] | None = None
    """(Q, length) mask of tokens that attention ignores; all sequences then have the same length."""
    threads: int = 1
    """Number of threads among which each matrix product is divided."""


class Transformer:
    """Layers over weights that are named as in transformers' encoders: `encoder.layers.0.layer_norm1.weight`."""

    def __init__(
        self, weights: Weights, heads: int, activation: str, layer_norm_eps: float, *, causal: bool = False
    ) -> None:
        """Use `weights` as they are; `activation` is one of `ACTIVATIONS`; `causal` is the kind of attention."""
        self.weights = weights
        self._heads = heads
        self._activation = ACTIVATIONS[activation]
        self._eps: np.float32 = np.float32(layer_norm_eps)
        self._causal = causal
        self.depth = sum(name.endswith(".layer_norm1.weight") for name in weights)
        """Number of layers."""

    def layers(self, x: Array, batch: Batch, stop: int | None = None) -> Array:
        """Apply layers to tokens.

        Args:
            x: (T, W) tokens of all sequences.
            batch: Where sequences begin and end.
            stop: Number of layers to apply; None for all. `batch.kept` has an effect in the last of all layers only.

        Returns:
            (T, W), or (Q, W) for the tokens in `batch.kept`.
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

    def alike(self, x: Array, batch: Batch) -> Array:
        """Compute attention in the last layer by the likeness of tokens, as in SCLIP (arXiv 2312.01597).

        Each token attends to those whose query is like its own, and to those whose key is like its own, so its output
        is about what is at its place. Neither `x` nor the MLP is added: see docs/quality.md, "Where a text fits".

        Args:
            x: (T, W) input of the last layer.
            batch: Where sequences begin and end; all have the same length.

        Returns:
            (T, W) outputs of the attention.
        """
        layer = f"encoder.layers.{self.depth - 1}."
        seen = self.norm(x, layer + "layer_norm1")
        queries, keys, values = (self.linear(seen, f"{layer}self_attn.{part}_proj", batch.threads) for part in "qkv")
        number = len(batch.lengths)
        gathered = sum(self._gather(same, same, values, number, None) for same in (queries, keys))
        return self.linear(np.asarray(gathered), layer + "self_attn.out_proj", batch.threads)

    def attention(self, asking: Array, seen: Array, name: str, batch: Batch) -> Array:
        """Compute attention within each sequence; adjacent sequences of the same length are computed together.

        Args:
            asking: (T, W) tokens for the queries, or (Q, W), one for each sequence.
            seen: (T, W) tokens for keys and values.
            name: Prefix of the names of the weights.
            batch: Where sequences begin and end.

        Returns:
            As many vectors as `asking` has.
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
        """Compute attention for `number` sequences of the same length from (rows, W) queries, keys and values."""
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
        """Apply the MLP with the weights `name`fc1 and `name`fc2 to (T, W) tokens."""
        return self.linear(self.linear(x, name + "fc1", threads, self._activation), name + "fc2", threads)

    def linear(
        self, x: Array, name: str, threads: int = 1, activation: Callable[[Array], Array] | None = None
    ) -> Array:
        """Multiply (T, W) tokens by the weights `name`, adding their bias if they have one, to (T, M)."""
        return product(x, self.weights[f"{name}.weight"], self.weights.get(f"{name}.bias"), threads, activation)

    def norm(self, x: Array, name: str) -> Array:
        """Apply the layer norm `name` to each of (T, W) tokens."""
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
    """Multiply (T, W) by (M, W) weights, add (M,) `bias` and apply `activation`; return (T, M).

    Each of `threads` computes some of the columns.
    """
    number = len(x)
    if 1 < number <= _FEW and number % _AT_ONCE:
        x = np.concatenate([x, np.zeros((-number % _AT_ONCE, x.shape[1]), np.float32)])

    def columns(of: slice) -> Array:
        out: Array = (x @ weight[of].T)[:number]
        if bias is not None:
            out += bias[of]
        return out if activation is None else activation(out)

    return columns(slice(None)) if threads == 1 else _divided(columns, len(weight), threads)


def _divided(columns: Callable[[slice], Array], total: int, threads: int) -> Array:
    """Call `columns` with slices of `total` columns in threads, one of them this one, and join the results."""
    first, *others = (slice(*pair) for pair in pairwise(total * i // threads for i in range(threads + 1)))

    def quietly(of: slice) -> Array:
        with np.errstate(all="ignore"):  # has an effect in the thread that sets it only
            return columns(of)

    waiting = [_helpers().submit(quietly, of) for of in others]
    return np.concatenate([quietly(first), *(one.result() for one in waiting)], axis=1)


def threads_for_products() -> int:
    """Return the number of threads for a matrix product: all cores, or 1 if BLAS divides products itself.

    BLAS divides them unless it is limited to one core, as by the command line (`OPENBLAS_NUM_THREADS`).
    """
    return cores.available() if os.environ.get("OPENBLAS_NUM_THREADS") == "1" else 1


@cache
def _helpers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(cores.available())
