"""The shape of `picturebook`: its tokenizer, its `CLIPModel` and how a picture becomes pixels for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from random import Random
from typing import NamedTuple

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPConfig, CLIPModel

from .caption import describe, plural
from .scene import KINDS, random_scene

SIDE = 96
PATCH = 16
GRID = SIDE // PATCH
CONTEXT = 32
BOS, EOS = 0, 1
"""Token ids. The end is not 2: that id switches transformers to a legacy rule for pooling."""
MEAN, STD = (0.481, 0.458, 0.408), (0.269, 0.261, 0.276)
"""CLIP's own pixel statistics (Radford et al. 2021), rounded."""
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_VOCABULARY = 2400


def train_tokenizer(captions: int = 120_000) -> Tokenizer:
    """A byte-pair tokenizer of CLIP's form, trained on captions of training scenes and on every noun."""
    tokenizer = Tokenizer(
        models.BPE(unk_token="<|endoftext|>", end_of_word_suffix="</w>", continuing_subword_prefix="")
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY,
        special_tokens=["<|startoftext|>", "<|endoftext|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        end_of_word_suffix="</w>",
        min_frequency=2,
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(captions), trainer)
    return tokenizer


def _texts(captions: int) -> Iterator[str]:
    rng = Random("tokenizer")
    for _ in range(captions):
        yield describe(random_scene(rng), rng)[0]
    for kind in KINDS.values():
        for noun in kind.nouns:
            for _ in range(5):
                yield f"{noun} {plural(noun)}"


class Shape(NamedTuple):
    """Widths and numbers of layers of the two towers. A head of the image tower is 64 wide."""

    image_width: int
    image_layers: int
    text_width: int
    text_layers: int


RELEASED = Shape(192, 6, 128, 4)
SECOND = Shape(128, 4, 96, 3)
"""A smaller model of the same world, which judges what the released one makes: it is trained in a third of the time."""


def new_model(tokenizer: Tokenizer, shape: Shape = RELEASED) -> CLIPModel:
    """An untrained model. Eager attention: on CPUs its backward pass is the faster one at this size."""
    config = CLIPConfig(
        text_config={
            "vocab_size": tokenizer.get_vocab_size(),
            "hidden_size": shape.text_width,
            "intermediate_size": 4 * shape.text_width,
            "num_hidden_layers": shape.text_layers,
            "num_attention_heads": 2,
            "max_position_embeddings": CONTEXT,
            "projection_dim": 512,
            "bos_token_id": BOS,
            "eos_token_id": EOS,
            "pad_token_id": EOS,
            "hidden_act": "gelu",
        },
        vision_config={
            "image_size": SIDE,
            "patch_size": PATCH,
            "hidden_size": shape.image_width,
            "intermediate_size": 4 * shape.image_width,
            "num_hidden_layers": shape.image_layers,
            "num_attention_heads": shape.image_width // 64,
            "projection_dim": 512,
            "hidden_act": "gelu",
        },
        projection_dim=512,
    )
    model = CLIPModel(config)
    model.set_attn_implementation("eager")
    return model


class Words:
    """Captions to token ids; remembers every word, since captions share few of them."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._ids: dict[str, list[int]] = {}

    def __call__(self, texts: Iterable[str]) -> torch.Tensor:
        """(N, L) int64 token ids, padded with the end token to the longest."""
        rows = []
        for text in texts:
            ids = [BOS]
            for word in text.lower().replace(",", " , ").split():
                if word not in self._ids:
                    self._ids[word] = self._tokenizer.encode(word, add_special_tokens=False).ids
                ids += self._ids[word]
            rows.append([*ids[: CONTEXT - 1], EOS])
        out = np.full((len(rows), max(map(len, rows))), EOS, np.int64)
        for i, row in enumerate(rows):
            out[i, : len(row)] = row
        return torch.from_numpy(out)


def pixels(pictures: np.ndarray) -> torch.Tensor:
    """(N, 3, 96, 96) float32 normalised pixels from (N, 96, 96, 3) uint8."""
    mean, std = torch.tensor(MEAN).view(1, 3, 1, 1), torch.tensor(STD).view(1, 3, 1, 1)
    return (torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255 - mean) / std


def load_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer that an earlier step of the training wrote."""
    return Tokenizer.from_file(str(path))
