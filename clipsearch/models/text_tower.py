"""The CLIP text transformer in numpy: queries are embedded without torch, in milliseconds.

The architecture is that of Radford et al. 2021 (section 2.4) as transformers' `CLIPTextModel` computes it: token and
position embeddings, pre-norm layers with causal attention, a final norm, the vector at the end token, a projection.
Since attention is causal, nothing behind the end token matters, and texts are never padded.

Weights lie in a folder of the user's cache, one for each fingerprint, shared by all indexes of that model: a
safetensors file that is memory-mapped, the tokenizer and a small description. `index` leaves it there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from clipsearch import cores
from clipsearch.errors import ModelError
from clipsearch.models.files import cache_folder

if TYPE_CHECKING:
    from tokenizers import Tokenizer

Array = npt.NDArray[np.float32]

ACTIVATIONS = ("quick_gelu", "gelu")
_WEIGHTS, _TOKENIZER, _SHAPE = "text_tower.safetensors", "tokenizer.json", "text_tower.json"
_TEXTS = 64
"""Computed together: more were no faster."""
_BLOCK = 32_768
"""Elements: three such pieces fit the second-level cache."""
_DTYPES: dict[str, npt.DTypeLike] = {"F32": "<f4", "F16": "<f2"}


@dataclass(frozen=True)
class TowerShape:
    """What the weights alone do not tell."""

    heads: int
    activation: str
    """One of `ACTIVATIONS`."""
    layer_norm_eps: float
    eos_token_id: int
    """2 means, as in transformers, that the largest id marks the end: OpenAI's first configurations say so."""
    context: int
    """Most tokens that fit, start and end included."""
    logit_scale: float
    """What the model multiplies cosines by before a softmax; the exponential of its parameter."""


@dataclass(frozen=True)
class Tokens:
    """One tokenised text."""

    ids: list[int]
    """Up to and with the end token."""
    cut_at: int | None
    """The character at which the text was cut because it is too long; None if it fits."""


class TextTower:
    """A CLIP text tower over memory-mapped weights."""

    def __init__(
        self, weights: Mapping[str, npt.NDArray[np.floating]], shape: TowerShape, tokenizer: Tokenizer
    ) -> None:
        self.shape = shape
        self._weights = weights
        self.tokenizer = tokenizer
        self._layers = sum(name.endswith(".layer_norm1.weight") for name in weights)
        self._activation = {"quick_gelu": quick_gelu, "gelu": gelu}[shape.activation]
        self.dim: int = weights["text_projection.weight"].shape[0]

    @classmethod
    def load(cls, fingerprint: str) -> TextTower | None:
        """The tower of the model with this fingerprint from the cache; None if it is not there."""
        from tokenizers import Tokenizer

        folder = tower_folder(fingerprint)
        try:
            shape = TowerShape(**json.loads((folder / _SHAPE).read_text("utf-8")))
            weights = map_safetensors(folder / _WEIGHTS)
            tokenizer = Tokenizer.from_str((folder / _TOKENIZER).read_text("utf-8"))
            return cls(weights, shape, tokenizer)
        except FileNotFoundError:
            return None
        except Exception as error:  # damaged JSON, cut weights; tokenizers raises nothing narrower
            raise ModelError(
                f"The text tower in {folder} is damaged ({error}). Delete that folder and try again."
            ) from error

    def tokenize(self, text: str) -> Tokens:
        """Token ids of `text`, cut to the context."""
        return tokenize(self.tokenizer, text, self.shape.context)

    @property
    def context(self) -> int:
        """Most tokens that fit, start and end included."""
        return self.shape.context

    @property
    def logit_scale(self) -> float:
        """What the model multiplies cosines by before a softmax."""
        return self.shape.logit_scale

    def encode_texts(self, texts: Sequence[str]) -> Array:
        """(Q, D) float32 unit vectors of `texts`. Many are computed together, in threads."""
        # Behind the end token nothing counts, since nothing before can see it.
        ids = [tokens[: self._end(tokens) + 1] for tokens in (self.tokenize(text).ids for text in texts)]
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        batches = [order[start : start + _TEXTS] for start in range(0, len(order), _TEXTS)]
        with ThreadPoolExecutor(max(1, min(cores.available(), len(batches)))) as pool:
            parts = pool.map(lambda batch: self._embed([ids[i] for i in batch]), batches)
            vectors = np.empty((len(ids), self.dim), np.float32)
            for batch, part in zip(batches, parts, strict=True):
                vectors[batch] = part
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))

    def _embed(self, texts: list[list[int]]) -> Array:
        """(Q, D) the projected vectors of tokenised texts, the shortest first.

        All their tokens stand in one matrix, so that weights are read once; only attention knows where a text ends.
        """
        # 1. Embeddings.
        lengths = [len(ids) for ids in texts]
        positions = np.concatenate([np.arange(length) for length in lengths])
        x = self._weights["embeddings.token_embedding.weight"][np.concatenate(texts)].astype(np.float32)
        x += self._weights["embeddings.position_embedding.weight"][positions]
        # 2. Layers.
        for i in range(self._layers):
            layer = f"encoder.layers.{i}."
            x = x + self._attention(self._norm(x, layer + "layer_norm1"), layer + "self_attn.", lengths)
            hidden = self._activation(self._linear(self._norm(x, layer + "layer_norm2"), layer + "mlp.fc1"))
            x = x + self._linear(hidden, layer + "mlp.fc2")
        # 3. The end tokens' vectors, projected.
        pooled = self._norm(x[np.cumsum(lengths) - 1], "final_layer_norm")
        return np.asarray(pooled @ self._weights["text_projection.weight"].T)

    def _end(self, ids: list[int]) -> int:
        if self.shape.eos_token_id == 2:  # noqa: PLR2004  (transformers' legacy rule, see `TowerShape`)
            return int(np.argmax(ids))
        return ids.index(self.shape.eos_token_id)

    def _attention(self, x: Array, layer: str, lengths: list[int]) -> Array:
        """(T, W) multi-head causal self-attention, each text for itself."""
        queries, keys, values = (self._linear(x, f"{layer}{name}_proj") for name in "qkv")
        seen = np.empty_like(x)
        start = 0
        for length, group in groupby(lengths):
            number = len(list(group))
            rows = slice(start, start + number * length)
            start = rows.stop
            seen[rows] = self._attend(queries[rows], keys[rows], values[rows], length)
        return self._linear(seen, f"{layer}out_proj")

    def _attend(self, queries: Array, keys: Array, values: Array, length: int) -> Array:
        """(T, W) what the tokens of texts of one `length` gather from those before them."""
        width, heads = queries.shape[1], self.shape.heads
        q, k, v = (
            part.reshape(-1, length, heads, width // heads).transpose(0, 2, 1, 3) for part in (queries, keys, values)
        )
        scores = q @ k.transpose(0, 1, 3, 2) / math.sqrt(width // heads)
        scores += np.triu(np.full((length, length), -np.inf, np.float32), 1)
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        scores /= scores.sum(axis=-1, keepdims=True)
        return np.asarray((scores @ v).transpose(0, 2, 1, 3).reshape(-1, width))

    def _linear(self, x: Array, name: str) -> Array:
        out: Array = x @ self._weights[f"{name}.weight"].T
        out += self._weights[f"{name}.bias"]
        return out

    def _norm(self, x: Array, name: str) -> Array:
        out: Array = x - x.mean(axis=-1, keepdims=True)
        variance = np.einsum("ij,ij->i", out, out)[:, np.newaxis] / np.float32(x.shape[1])
        out /= np.sqrt(variance + np.float32(self.shape.layer_norm_eps))
        out *= self._weights[f"{name}.weight"]
        out += self._weights[f"{name}.bias"]
        return out


def tokenize(tokenizer: Tokenizer, text: str, context: int) -> Tokens:
    """Token ids of `text`, at most `context`, start and end included."""
    tokenizer.no_padding()
    tokenizer.enable_truncation(context)
    encoded = tokenizer.encode(text)
    end = max((stop for _, stop in encoded.offsets), default=0)
    return Tokens(encoded.ids, end if encoded.overflowing else None)


def quick_gelu(x: Array) -> Array:
    """Multiply x by sigmoid(1.702 x): the activation of OpenAI's models."""

    def into(x: Array, out: Array, _: Array) -> None:
        np.multiply(x, np.float32(-1.702), out=out)
        # exp of a large number is inf, and x / inf the right answer.
        with np.errstate(over="ignore"):
            np.exp(out, out=out)
        out += 1
        np.divide(x, out, out=out)

    return _in_blocks(into, x)


def gelu(x: Array) -> Array:
    """Multiply x by the normal distribution function of x, exact to 1.2e-6.

    That is relu(x) - |x| erfc(|x| / sqrt 2) / 2, with Abramowitz and Stegun's approximation 7.1.26 of erfc.
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


def _in_blocks(into: Callable[[Array, Array, Array], None], x: Array) -> Array:
    """What `into(x, out, scratch)` computes of each element, in pieces that stay in the processor's cache."""
    out, scratch = np.empty_like(x), np.empty(min(_BLOCK, x.size), np.float32)
    flat, flat_out = x.reshape(-1), out.reshape(-1)
    for start in range(0, x.size, _BLOCK):
        piece = flat[start : start + _BLOCK]
        into(piece, flat_out[start : start + _BLOCK], scratch[: len(piece)])
    return out


def tower_folder(fingerprint: str) -> Path:
    """Where the text tower of a model lies, or would lie."""
    return cache_folder() / "text-towers-2" / fingerprint  # the first had no logit scale


def save(
    fingerprint: str,
    weights: Mapping[str, npt.NDArray[np.floating]],
    shape: TowerShape,
    save_tokenizer: Callable[[str], None],
) -> None:
    """Leave a text tower in the cache, whole or not at all.

    `weights` have the names of transformers' `CLIPTextModel`, plus `text_projection.weight`; `save_tokenizer` writes
    a tokenizer.json to the path it is given.

    Raises:
        ModelError: the cache cannot be written.
    """
    from safetensors.numpy import save_file

    target = tower_folder(fingerprint)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as name:
            made = Path(name) / "tower"
            made.mkdir()
            save_file({key: np.ascontiguousarray(value) for key, value in weights.items()}, made / _WEIGHTS)
            save_tokenizer(str(made / _TOKENIZER))
            (made / _SHAPE).write_text(json.dumps(asdict(shape), indent=1), "utf-8")
            if not target.exists():
                made.replace(target)  # fails if another process was first, and then it is there
    except OSError as error:
        if target.exists():
            return
        raise ModelError(
            f"Cannot write the text tower to {target}: {error.strerror or error}. "
            "Name a folder that can be written with CLIPSEARCH_CACHE."
        ) from error


def remembered(fingerprint: str, texts: Sequence[str], encode: Callable[[Sequence[str]], Array]) -> Array:
    """(Q, D) what `encode` makes of `texts`, which every query needs: kept beside the model's text tower."""
    name = hashlib.blake2b("\0".join(texts).encode(), digest_size=8).hexdigest()
    path = tower_folder(fingerprint) / f"texts-{name}.npy"
    try:
        return np.asarray(np.load(path), np.float32)
    except (OSError, ValueError):  # not there yet, or cut off
        vectors = encode(texts)
    with contextlib.suppress(OSError), tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder) / path.name
        np.save(made, vectors)
        made.replace(path)
    return vectors


def map_safetensors(path: Path) -> dict[str, npt.NDArray[np.floating]]:
    """The tensors of a safetensors file, memory-mapped.

    The library's own numpy reader copies every tensor, which for ViT-B/32 is 150 MB a query. The format: eight bytes
    with the header's length, a JSON header with dtype, shape and byte range of each tensor, the data.
    """
    data = np.memmap(path, np.uint8, "r")
    start = 8 + int.from_bytes(data[:8].tobytes(), "little")
    header = json.loads(data[8:start].tobytes())
    tensors: dict[str, npt.NDArray[np.floating]] = {}
    for name, entry in header.items():
        if name != "__metadata__":
            first, last = entry["data_offsets"]
            tensors[name] = data[start + first : start + last].view(_DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return tensors
