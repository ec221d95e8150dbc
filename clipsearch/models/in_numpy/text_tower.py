"""The text transformers of CLIP and SigLIP in numpy: queries are embedded without torch, in milliseconds.

CLIP's architecture is that of Radford et al. 2021 (section 2.4) as transformers' `CLIPTextModel` computes it: token and
position embeddings, pre-norm layers with causal attention, a final norm, the vector at the end token, a projection.
Since attention is causal, nothing behind the end token matters, and texts are not padded.

SigLIP's (Zhai et al. 2023; transformers' `SiglipTextModel`) differs in that attention looks both ways and in that every
text is padded to the same length, as it was in training: the vector is that of the last place, whatever stands there.

Where the weights come from is `tower_cache`'s business. Of a memory-mapped token table only the rows of a text's own
tokens are read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from clipsearch.errors import ModelError
from clipsearch.models.in_numpy.table_tokenizer import QuickTokenizer
from clipsearch.models.in_numpy.transformer import Batch, Transformer
from clipsearch.models.logits import Logits
from clipsearch.system import cores
from clipsearch.unit import Array

if TYPE_CHECKING:
    from tokenizers import Tokenizer


LIKE_CLIP, LIKE_SIGLIP = ("clip", "clipseg", "metaclip_2"), ("siglip", "siglip2")
"""Families whose text towers can be computed here, as `model_type` in a configuration names them."""

_TEXTS = 64
"""Computed together: more were no faster."""
_FEW = 50
"""Number of texts from which on it is worth while to read a tokenizer's whole vocabulary."""


@dataclass(frozen=True)
class FixedLength:
    """How a model that wants all texts of one length has shorter ones padded."""

    token: int
    """The id that fills them up."""
    left: bool
    """Whether before the text instead of behind it."""
    masked: bool
    """Whether attention passes over the padding. SigLIP was trained without, but a tokenizer may say so."""


@dataclass(frozen=True)
class TowerShape:
    """What the weights alone do not tell."""

    heads: int
    activation: str
    """One of `activations.ACTIVATIONS`."""
    layer_norm_eps: float
    context: int
    """Most tokens that fit, start and end included."""
    logit_scale: float
    """As `Logits` has it, like the next."""
    logit_bias: float | None = None
    eos_token_id: int | None = None
    """Where CLIP's vector is taken; None for the largest id of a text, the end token of OpenAI's vocabulary."""
    fixed: FixedLength | None = None
    """None for CLIP, whose attention is causal; for SigLIP how texts are padded."""
    cleaned: bool = False
    """Whether texts are cleaned before they are tokenised, as open_clip does it (`clip_bpe.clean`)."""


class Tokens(NamedTuple):
    """One tokenised text."""

    text: str
    """What was tokenised: the text, cleaned if the model wants that."""
    ids: list[int]
    """Up to and with the end token, without padding."""
    cut_at: int | None
    """The character of `text` at which it was cut because it is too long; None if it fits."""


class TextTower:
    """A text tower over memory-mapped weights.

    These have the names of transformers' `CLIPTextModel` plus `text_projection.weight`, or of `SiglipTextModel`.
    """

    def __init__(
        self,
        weights: Mapping[str, npt.NDArray[np.floating]],
        shape: TowerShape,
        load_tokenizer: Callable[[], Tokenizer],
        quick: QuickTokenizer | None = None,
    ) -> None:
        """`quick` tokenises as the tokenizer does, without reading all of its vocabulary."""
        self.shape = shape
        self._weights = weights
        self._load_tokenizer = load_tokenizer
        self._quick = quick
        self._texts = 0
        """Number of texts that were tokenised."""
        self._transformer = Transformer(
            weights, shape.heads, shape.activation, shape.layer_norm_eps, causal=shape.fixed is None
        )
        self._projection = "head" if shape.fixed else "text_projection"
        self.dim: int = weights[f"{self._projection}.weight"].shape[0]

    def tokenize(self, text: str) -> Tokens:
        """Token ids of `text`, cut to the context."""
        text = _cleaned(text) if self.shape.cleaned else text
        self._texts += 1
        if self._quick and self._texts <= _FEW:
            ids = self._quick.encode(text)
            if ids is not None and len(ids) <= self.shape.context:
                return Tokens(text, ids, None)
        return tokenize(self.tokenizer, text, self.shape.context)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Texts to ids."""
        return self._load_tokenizer()

    @property
    def context(self) -> int:
        """Most tokens that fit, start and end included."""
        return self.shape.context

    @property
    def logits(self) -> Logits:
        """What makes probabilities of cosines."""
        return Logits(self.shape.logit_scale, self.shape.logit_bias)

    def encode_texts(self, texts: Sequence[str]) -> Array:
        """(Q, D) float32 unit vectors of `texts`. Many are computed together, in threads."""
        return self.encode_tokens([self.tokenize(text) for text in texts])

    def encode_tokens(self, texts: Sequence[Tokens]) -> Array:
        """The same of texts that `tokenize` has read."""
        ids = [self._up_to_end(text.ids) for text in texts]
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        batches = [order[start : start + _TEXTS] for start in range(0, len(order), _TEXTS)]
        with ThreadPoolExecutor(max(1, min(cores.available(), len(batches)))) as pool:
            parts = pool.map(lambda batch: self._quietly_embedded([ids[i] for i in batch]), batches)
            vectors = np.empty((len(ids), self.dim), np.float32)
            for batch, part in zip(batches, parts, strict=True):
                vectors[batch] = part
        with np.errstate(divide="ignore", invalid="ignore"):  # whoever asks looks whether they are vectors
            return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))

    def _up_to_end(self, ids: list[int]) -> list[int]:
        """Without what is behind CLIP's end token: nothing before can see it."""
        if self.shape.fixed:
            return ids
        end = int(np.argmax(ids)) if self.shape.eos_token_id is None else ids.index(self.shape.eos_token_id)
        return ids[: end + 1]

    def _padded(self, ids: list[int]) -> list[int]:
        """What the layers see of a text; the vector is that of the last place."""
        if self.shape.fixed is None:
            return ids
        padding = [self.shape.fixed.token] * (self.shape.context - len(ids))
        return padding + ids if self.shape.fixed.left else ids + padding

    def _quietly_embedded(self, texts: list[list[int]]) -> Array:
        """Without numpy's own warnings, which each thread would print, of damaged weights."""
        with np.errstate(all="ignore"):
            return self._embed(texts)

    def _embed(self, texts: list[list[int]]) -> Array:
        """(Q, D) the projected vectors of tokenised texts, the shortest first.

        All their tokens stand in one matrix, so that weights are read once; only attention knows where a text ends.
        """
        # 1. Embeddings.
        padded = [self._padded(ids) for ids in texts]
        lengths = [len(ids) for ids in padded]
        known = len(self._weights["embeddings.token_embedding.weight"])
        if (largest := max(map(max, padded))) >= known:
            raise ModelError(foreign_token(largest, known))
        positions = np.concatenate([np.arange(length) for length in lengths])
        x = self._weights["embeddings.token_embedding.weight"][np.concatenate(padded)].astype(np.float32)
        x += self._weights["embeddings.position_embedding.weight"][positions]
        # 2. Layers, and after them the vectors of the last places, projected.
        last = self._transformer.layers(x, Batch(lengths, np.cumsum(lengths) - 1, self._unseen(texts)))
        return self._transformer.linear(self._transformer.norm(last, "final_layer_norm"), self._projection)

    def _unseen(self, texts: list[list[int]]) -> npt.NDArray[np.bool_] | None:
        """(Q, context): where attention passes over the padding of texts of a fixed length; None if nowhere."""
        fixed = self.shape.fixed
        if fixed is None or not fixed.masked:
            return None
        lengths = np.array([[len(ids)] for ids in texts])
        places = np.arange(self.shape.context)
        return np.asarray(places < self.shape.context - lengths if fixed.left else places >= lengths)


def foreign_token(token: int, known: int) -> str:
    """Message about a token that a text tower has no row for."""
    return f"The tokenizer does not belong to the text tower: it has a token {token}, the tower knows {known}."


def _cleaned(text: str) -> str:
    from clipsearch.models.disk.clip_bpe import clean  # which only models of open_clip need

    return clean(text)


def tokenize(tokenizer: Tokenizer, text: str, context: int, *, cleaned: bool = False) -> Tokens:
    """Token ids of `text`, at most `context`, start and end included; `cleaned` as in `TowerShape`."""
    text = _cleaned(text) if cleaned else text
    tokenizer.no_padding()
    tokenizer.enable_truncation(context)
    try:
        encoded = tokenizer.encode(text)
    except Exception as error:  # tokenizers raises nothing narrower
        raise ModelError(f"The tokenizer makes nothing of {text!r}: {error}") from error
    end = max((stop for _, stop in encoded.offsets), default=0)
    return Tokens(text, encoded.ids, end if encoded.overflowing else None)
