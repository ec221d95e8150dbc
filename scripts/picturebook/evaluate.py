"""Evaluation of a trained model: held-out pictures, and probes of one ability each."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional
from transformers import CLIPModel

from . import probes
from .caption import describe
from .data import scene_of, small_picture
from .model import Words, pixels
from .render import render
from .scene import QUADRUPEDS, Scene, facts_of

SIDE = 320
"""Held-out pictures are drawn at this size and shrunk as users' pictures are."""
_PROTOTYPE: dict[str, dict[str, str | float]] = {
    "retrieval": {"t2i_r1": 0.758, "t2i_r5": 0.978, "i2t_r1": 0.766, "true": 0.956},
    "dog": {"a dog is sleeping": "20/20", "a dog running": "17/20", "a sitting dog": "20/20"},
    "cat": {"a cat is sleeping": "19/20", "a cat running": "20/20", "a sitting cat": "15/20"},
    "horse": {"a horse is sleeping": "20/20", "a horse running": "17/20", "a sitting horse": "19/20"},
    "lion": {"a lion is sleeping": "20/20", "a lion running": "19/20", "a sitting lion": "19/20"},
    "elephant": {
        "an elephant is sleeping": "19/20",
        "an elephant running": "17/20",
        "a sitting elephant": "19/20",
    },
    "rabbit": {"a rabbit is sleeping": "6/20", "a rabbit running": "5/20", "a sitting rabbit": "12/20"},
    "synonyms": {
        "a puppy napping": "18/20",
        "puppy asleep": "15/20",
        "the doggy is dashing": "12/20",
        "my dog fell asleep": "8/20",
        "dog sleep": "0/20",
    },
    "colours": {"all": "199/200"},
    "counts": {"dog": "101/120", "car": "81/120", "apple": "120/120", "tree": "89/120"},
    "two things": {"a cat next to a pizza": "53/60"},
    "swapped": {"a red car and a blue house": "48/80"},
}
"""What the prototype reached after 36 minutes of training, where it was measured."""
_VEHICLES = ("airplane", "bicycle", "boat", "bus", "car", "helicopter", "motorcycle", "tractor", "train", "truck")


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
    parts = [
        model.get_image_features(pixel_values=pixels(part))
        for part in np.array_split(pictures, len(pictures) // 250 + 1)
    ]
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
    return recalls(scores, exam.true)


def recalls(scores: torch.Tensor, true: np.ndarray) -> dict[str, float]:
    """The figures of `retrieval` from (N, N) scores; row i is caption i, `true` as in `Exam`."""
    own = scores.diag()
    to_image = (scores > own[:, None]).sum(1)
    to_text = (scores > own[None]).sum(0)
    first = scores.argmax(1).numpy()
    return {
        "t2i_r1": round((to_image < 1).float().mean().item(), 3),
        "t2i_r5": round((to_image < 5).float().mean().item(), 3),
        "i2t_r1": round((to_text < 1).float().mean().item(), 3),
        "i2t_r5": round((to_text < 5).float().mean().item(), 3),
        "true": round(float(true[np.arange(len(first)), first].mean()), 3),
    }


def evaluate(model: Path, out: Path, pictures: int = 1000, draws: int = 20) -> None:
    """Examine the released folder `model`, write the figures to `out` (JSON) and print them as a table.

    `pictures` held-out pictures are searched, and every probe is repeated in proportion to `draws`.
    """
    started = time.perf_counter()
    searcher = probes.Searcher(model, SIDE)
    # 1. retrieval
    exam = held_out(pictures)
    gallery = searcher.pictures(_pages(pictures))
    report: dict[str, dict[str, float] | dict[str, str]] = {
        "retrieval": recalls(searcher.texts(exam.captions) @ gallery.T, exam.true),
    }
    # 2. probes
    for animal in ("dog", "cat", "horse", "lion", "elephant", "rabbit", "mouse", "squirrel"):
        report[animal] = probes.actions(searcher, animal, draws).counts()
    report |= {
        "animals told apart": probes.told_apart(searcher, sorted(QUADRUPEDS), draws // 2).counts(),
        "vehicles told apart": probes.told_apart(searcher, _VEHICLES, draws // 2).counts(),
        "synonyms": probes.synonyms(searcher, draws).counts(),
        "colours": probes.colours(searcher, draws // 2).counts(),
        "counts": probes.counts(searcher, draws // 2).counts(),
        "two things": probes.two_things(searcher, 3 * draws).counts(),
        "swapped": probes.swapped(searcher, 2 * draws).counts(),
        "places": probes.places(searcher, draws // 2).counts(),
        "conditions": probes.conditions(searcher, draws).counts(),
        "keywords": probes.keywords(searcher, exam.scenes, gallery).counts(),
    }
    # 3. report
    held_out_share = round(searcher.held_out_seen / searcher.pictures_seen, 3)
    facts = {
        "pictures": pictures,
        "probe_pictures": searcher.pictures_seen,
        "of_them_held_out": held_out_share,
    }
    out.write_text(json.dumps(facts | report, indent=1) + "\n", encoding="utf-8")
    print(table(report))
    seconds = time.perf_counter() - started
    print(f"\n{pictures} + {searcher.pictures_seen} pictures ({held_out_share:.0%} held out) in {seconds:.0f} s")


def _pages(count: int) -> Iterator[Image.Image]:
    """The pictures of `held_out`, at the size at which they are drawn."""
    for i in range(count):
        scene, rng = scene_of("test", i)
        yield render(scene, rng, SIDE).picture


def table(report: Mapping[str, Mapping[str, float | str]]) -> str:
    """Markdown: every figure beside the prototype's."""
    lines = ["| probe | asked | picturebook | prototype |", "|---|---|---|---|"]
    for probe, figures in report.items():
        known = _PROTOTYPE.get(probe, {})
        rows = figures | {"all": _sum(figures)} if probe == "colours" else figures
        lines += [f"| {probe} | {asked} | {figure} | {known.get(asked, '-')} |" for asked, figure in rows.items()]
    return "\n".join(lines)


def _sum(counts: Mapping[str, float | str]) -> str:
    """Add up counts: "18/20" and "7/20" make "25/40"."""
    pairs = [str(count).split("/") for count in counts.values()]
    return f"{sum(int(right) for right, _ in pairs)}/{sum(int(asked) for _, asked in pairs)}"
