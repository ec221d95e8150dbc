"""The examination of a trained model: held-out pictures, and probes of one ability each."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import numpy as np
import torch
from torch.nn import functional
from transformers import CLIPModel

from .caption import describe
from .data import scene_of, small_picture
from .model import Words, pixels
from .render import render
from .scene import Scene, facts_of

SIDE = 320
"""Held-out pictures are drawn at this size and shrunk as users' pictures are."""


@dataclass(frozen=True)
class Exam:
    """Held-out pictures with one fully detailed caption each."""

    scenes: list[Scene]
    pictures: np.ndarray
    captions: list[str]
    true: np.ndarray
    """(N, N) bool: caption i is true of picture j."""


def held_out(count: int) -> Exam:
    """The first `count` pictures of the test split."""
    scenes, pictures, captions, claims = [], [], [], []
    for i in range(count):
        scene, rng = scene_of("test", i)
        scenes.append(scene)
        pictures.append(small_picture(render(scene, rng, SIDE)))
        text, facts = describe(scene, rng, 1.0)
        captions.append(text)
        claims.append(facts)
    known = [facts_of(scene) for scene in scenes]
    true = np.array([[claim <= facts for facts in known] for claim in claims])
    return Exam(scenes, np.stack(pictures), captions, true)


@torch.no_grad()
def embed_pictures(model: CLIPModel, pictures: np.ndarray) -> torch.Tensor:
    """(N, D) unit vectors."""
    parts = [model.get_image_features(pixel_values=pixels(part)) for part in np.array_split(pictures, len(pictures) // 250 + 1)]
    return functional.normalize(torch.cat([part.pooler_output for part in parts]), dim=1)


@torch.no_grad()
def embed_texts(model: CLIPModel, words: Words, texts: list[str]) -> torch.Tensor:
    """(N, D) unit vectors."""
    return functional.normalize(model.get_text_features(input_ids=words(texts)).pooler_output, dim=1)


def retrieval(model: CLIPModel, words: Words, exam: Exam) -> dict[str, float]:
    """Recall of each caption's own picture, of each picture's own caption, and how often the first hit is true."""
    model.eval()
    scores = embed_texts(model, words, exam.captions) @ embed_pictures(model, exam.pictures).T
    model.train()
    own = scores.diag()
    to_image = (scores > own[:, None]).sum(1)
    to_text = (scores > own[None]).sum(0)
    first = scores.argmax(1).numpy()
    return {
        "t2i_r1": round((to_image < 1).float().mean().item(), 3),
        "t2i_r5": round((to_image < 5).float().mean().item(), 3),
        "i2t_r1": round((to_text < 1).float().mean().item(), 3),
        "i2t_r5": round((to_text < 5).float().mean().item(), 3),
        "true": round(float(exam.true[np.arange(len(first)), first].mean()), 3),
    }
