"""The text transformers of CLIP and SigLIP in NumPy, which embed queries without torch in milliseconds.

CLIP's architecture is that of Radford et al. 2021 (section 2.4) as transformers' `CLIPTextModel` computes it: token and
position embeddings, pre-norm layers with causal attention, a final norm, the vector at the end token, a projection.
Since attention is causal, tokens behind the end token have no influence, and texts are not padded.

SigLIP's (Zhai et al. 2023; transformers' `SiglipTextModel`) differs in that attention is bidirectional and in that
every text is padded to the same length, as in training; the vector is taken at the last position, be it padding.

`tower_cache` knows where weights come from. Of a memory-mapped token table only the rows of a text's own tokens are
read.
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
"""Values of `model_type` in the configurations of models whose text towers can be computed here."""

_TEXTS = 64
"""Number of texts that are computed together; larger batches were not faster."""
_FEW = 50
"""Number of texts from which on reading a tokenizer's whole vocabulary takes less time than searching tables."""


@dataclass(frozen=True)
class FixedLength:
    """How texts are padded for a model that wants all texts to have the same length."""

    token: int
    """Id of the padding."""
    left: bool
    """Whether the padding is before the text instead of behind it."""
    masked: bool
    """Whether attention ignores the padding. SigLIP was trained without a mask, but a tokenizer may want one."""


@dataclass(frozen=True)
class TowerShape:
    """The description of a text tower, apart from its weights."""

    heads: int
    activation: str
    """One of `activations.ACTIVATIONS`."""
    layer_norm_eps: float
    context: int
    """Largest number of tokens, start and end included."""
    logit_scale: float
    """`Logits.scale` of the model."""
    logit_bias: float | None = None
    """`Logits.bias` of the model."""
    eos_token_id: int | None = None
    """Token at which CLIP's vector is taken; None for the largest id, which is the end token in OpenAI's vocabulary."""
    fixed: FixedLength | None = None
    """The padding of texts for SigLIP; None for CLIP, whose attention is causal."""
    cleaned: bool = False
    """Whether texts are cleaned before they are tokenised, as in open_clip (`clip_bpe.clean`)."""


class Tokens(NamedTuple):
    """One tokenised text."""

    text: str
    """What was tokenised: the text, cleaned if the model wants that."""
    ids: list[int]
    """Ids up to and including the end token, without padding."""
    cut_at: int | None
    """Number of characters of `text` that were kept if it is too long; None if it fits."""


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
        """Use `weights` as they are; `quick` gives the same ids as the tokenizer without reading its vocabulary."""
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
        """Tokenise `text`, cut to the context."""
        text = _cleaned(text) if self.shape.cleaned else text
        self._texts += 1
        if self._quick and self._texts <= _FEW:
            ids = self._quick.encode(text)
            if ids is not None and len(ids) <= self.shape.context:
                return Tokens(text, ids, None)
        return tokenize(self.tokenizer, text, self.shape.context)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer, which is read when it is first needed."""
        return self._load_tokenizer()

    @property
    def context(self) -> int:
        """Largest number of tokens, start and end included."""
        return self.shape.context

    @property
    def logits(self) -> Logits:
        """The scale and bias for probabilities."""
        return Logits(self.shape.logit_scale, self.shape.logit_bias)

    def encode_texts(self, texts: Sequence[str]) -> Array:
        """Embed texts as (Q, D) float32 unit vectors, in batches and threads."""
        return self.encode_tokens([self.tokenize(text) for text in texts])

    def encode_tokens(self, texts: Sequence[Tokens]) -> Array:
        """Embed texts that are tokenised already as (Q, D) float32 unit vectors."""
        ids = [self._up_to_end(text.ids) for text in texts]
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        batches = [order[start : start + _TEXTS] for start in range(0, len(order), _TEXTS)]
        with ThreadPoolExecutor(max(1, min(cores.available(), len(batches)))) as pool:
            parts = pool.map(lambda batch: self._quietly_embedded([ids[i] for i in batch]), batches)
            vectors = np.empty((len(ids), self.dim), np.float32)
            for batch, part in zip(batches, parts, strict=True):
                vectors[batch] = part
        with np.errstate(divide="ignore", invalid="ignore"):  # the caller checks the vectors
            return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))

    def _up_to_end(self, ids: list[int]) -> list[int]:
        """Return the ids up to CLIP's end token; with causal attention the rest has no influence."""
        if self.shape.fixed:
            return ids
        end = int(np.argmax(ids)) if self.shape.eos_token_id is None else ids.index(self.shape.eos_token_id)
        return ids[: end + 1]

    def _padded(self, ids: list[int]) -> list[int]:
        """Pad ids as the layers expect them; the vector is taken at the last position."""
        if self.shape.fixed is None:
            return ids
        padding = [self.shape.fixed.token] * (self.shape.context - len(ids))
        return padding + ids if self.shape.fixed.left else ids + padding

    def _quietly_embedded(self, texts: list[list[int]]) -> Array:
        """Embed without NumPy's warnings, which each thread would print for damaged weights."""
        with np.errstate(all="ignore"):
            return self._embed(texts)

    def _embed(self, texts: list[list[int]]) -> Array:
        """Compute the (Q, D) projected vectors of tokenised texts, which are in the order of their lengths.

        The tokens of all texts are one matrix, so that weights are read once; only attention knows where a text ends.
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
        # 2. Layers, and the projection of the vectors at the last positions.
        last = self._transformer.layers(x, Batch(lengths, np.cumsum(lengths) - 1, self._unseen(texts)))
        return self._transformer.linear(self._transformer.norm(last, "final_layer_norm"), self._projection)

    def _unseen(self, texts: list[list[int]]) -> npt.NDArray[np.bool_] | None:
        """Return a (Q, context) mask of padding that attention ignores; None if it ignores none."""
        fixed = self.shape.fixed
        if fixed is None or not fixed.masked:
            return None
        lengths = np.array([[len(ids)] for ids in texts])
        places = np.arange(self.shape.context)
        return np.asarray(places < self.shape.context - lengths if fixed.left else places >= lengths)


def foreign_token(token: int, known: int) -> str:
    """Return the message about a token for which a text tower has no row."""
    return f"The tokenizer does not belong to the text tower: it has a token {token}, the tower knows {known}."


def _cleaned(text: str) -> str:
    from clipsearch.models.disk.clip_bpe import clean  # which only models of open_clip need

    return clean(text)


def tokenize(tokenizer: Tokenizer, text: str, context: int, *, cleaned: bool = False) -> Tokens:
    """Tokenise `text` to at most `context` ids, start and end included; `cleaned` is that of `TowerShape`."""
    text = _cleaned(text) if cleaned else text
    tokenizer.no_padding()
    tokenizer.enable_truncation(context)
    try:
        encoded = tokenizer.encode(text)
    except Exception as error:  # tokenizers raises nothing narrower
        raise ModelError(f"The tokenizer makes nothing of {text!r}: {error}") from error
    end = max((stop for _, stop in encoded.offsets), default=0)
    return Tokens(text, encoded.ids, end if encoded.overflowing else None)
