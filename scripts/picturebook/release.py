"""From a checkpoint to a folder that transformers loads as it is.

The throw-away heads stay behind; weights are rounded to float16. What is written is read back and compared
with the trained model before anyone relies on it.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch.nn import functional
from transformers import AutoTokenizer, CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

from .evaluate import embed_pictures, embed_texts, held_out
from .model import CONTEXT, MEAN, RELEASED, SECOND, SIDE, STD, Words, load_tokenizer, new_model

FOLDER = Path("clipsearch/data/picturebook")
_PREFIX = "clip."
_MOST_BYTES = 12_000_000
_LEAST_COSINE, _MOST_DIFFERENCE = 0.9999, 2e-2
"""Bounds on what the rounding may change in a unit vector."""


def release(folder: Path, out: Path = FOLDER, *, small: bool = False) -> None:
    """Write the model of `folder`'s checkpoint to `out` and check it; raises ValueError where it differs."""
    # 1. what was trained
    shape = SECOND if small else RELEASED
    trained = new_model(load_tokenizer(folder / "tokenizer.json"), shape)
    state = torch.load(folder / "checkpoint.pt", weights_only=True, map_location="cpu")
    weights = {name.removeprefix(_PREFIX): w for name, w in state["student"].items() if name.startswith(_PREFIX)}
    trained.load_state_dict(weights)
    # 2. what is given away
    out.mkdir(parents=True, exist_ok=True)
    rounded = new_model(load_tokenizer(folder / "tokenizer.json"), shape)
    rounded.load_state_dict(weights)
    rounded.half().save_pretrained(out)
    (out / "model.safetensors").chmod(0o644)  # safetensors writes for its owner alone
    _tokenizer(folder / "tokenizer.json").save_pretrained(out)
    _preprocessing().save_pretrained(out)
    # 3. whether they agree
    cosine = _check(trained.eval(), Words(load_tokenizer(folder / "tokenizer.json")), out)
    size = sum(path.stat().st_size for path in out.glob("*.safetensors"))
    if size > _MOST_BYTES:
        message = f"the weights in {out} are {size} bytes, more than {_MOST_BYTES}"
        raise ValueError(message)
    print(f"{out}: step {state['step']}, {size / 1e6:.1f} MB, least cosine with the trained model {cosine:.6f}")


def _tokenizer(path: Path) -> CLIPTokenizer:
    """The trained vocabulary and merges in transformers' own class."""
    model = json.loads(path.read_text(encoding="utf-8"))["model"]
    merges = [tuple(pair) for pair in model["merges"]]
    return CLIPTokenizer(vocab=model["vocab"], merges=merges, model_max_length=CONTEXT)


def _preprocessing() -> CLIPImageProcessorPil:
    return CLIPImageProcessorPil(
        do_convert_rgb=True,
        size={"shortest_edge": SIDE},
        resample=3,  # Pillow's bicubic
        crop_size={"height": SIDE, "width": SIDE},
        image_mean=list(MEAN),
        image_std=list(STD),
    )


def _check(trained: CLIPModel, words: Words, out: Path) -> float:
    """Compare tokens and vectors of 200 held-out pictures and captions; the least cosine."""
    exam = held_out(200)
    given = AutoTokenizer.from_pretrained(out)(exam.captions, padding=True, truncation=True, return_tensors="pt")[
        "input_ids"
    ]
    if not torch.equal(given, words(exam.captions)):
        message = f"the tokenizer in {out} is not the one of the training"
        raise ValueError(message)
    read_back = CLIPModel.from_pretrained(out, dtype=torch.float32).eval()
    least = 1.0
    for before, after in (
        (embed_pictures(trained, exam.pictures), embed_pictures(read_back, exam.pictures)),
        (embed_texts(trained, words, exam.captions), embed_texts(read_back, words, exam.captions)),
    ):
        cosine = functional.cosine_similarity(before, after).min().item()
        if cosine < _LEAST_COSINE or (before - after).abs().max() > _MOST_DIFFERENCE:
            message = f"the vectors of {out} are not those of the training: cosine {cosine:.5f}"
            raise ValueError(message)
        least = min(least, cosine)
    return least
