"""Benchmark of `clipsearch imagine`: whether another CLIP sees in the pictures what they were made for, and the time.

Texts are captions of drawn scenes of the held-out kind, of which each is true of its own scene only, and a few that
people may type. The judge is a model that had no part in making the pictures; see scripts/picturebook/README.md for how
it is trained. Pictures are kept in a folder, so a run that was stopped goes on. Run it with:

    python scripts/bench_imagine.py work/pictures --judge work/second
    python scripts/bench_imagine.py work/pictures --sheet docs/imagined.jpg
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

import bench_common as common
import numpy as np
from picturebook.caption import describe
from picturebook.data import scene_of
from picturebook.render import render
from picturebook.scene import Entity, Scene, facts_of
from PIL import Image, ImageDraw, ImageFont

import clipsearch

STYLES = ("pixels", "strokes")
_SIDE = 320
_CELL, _LABEL = 180, 40
"""Pixels of a picture of the sheet, and the height of the text below."""
_COLUMNS = 5
_QUALITY = 85
LECTURE = "a family taking a walk at night"
"""Picturebook knows neither the word family nor walk, so there is no drawing of it; it is on the sheet only."""
KNOWN = (
    ("a red car in the city", Scene((Entity("car", colour="red"),), "city")),
    ("a dog is sleeping on the beach", Scene((Entity("dog", action="sleep", colour="brown"),), "beach")),
    ("a yellow flower in the garden", Scene((Entity("flower", colour="yellow"),), "garden")),
    ("a blue whale under water", Scene((Entity("whale", action="swim", colour="blue"),), "underwater")),
    ("a rocket flying in space", Scene((Entity("rocket", action="fly", colour="red"),), "space")),
    ("a green house in the snow", Scene((Entity("house", colour="green"),), "snow")),
    ("a boat at sea at sunset", Scene((Entity("boat", action="sail", colour="white"),), "sea", "sunset")),
    ("an elephant in the desert", Scene((Entity("elephant", action="stand", colour="gray"),), "desert")),
    ("a woman in a pink dress dancing on stage", Scene((Entity("woman", action="dance", colour="pink"),), "stage")),
)


class Case(NamedTuple):
    """A text, and what is drawn for it."""

    text: str
    scene: Scene | None


def cases(count: int) -> list[Case]:
    """Return `count` texts with scenes; no caption is true of another's scene."""
    chosen = [Case(*known) for known in KNOWN]
    claims: list[frozenset[str]] = []
    for number in range(10_000):
        if len(chosen) >= count:
            break
        scene, rng = scene_of("test", number)
        text, claim = describe(scene, rng, 1.0)
        facts = [facts_of(case.scene) for case in chosen if case.scene]
        if not any(claim <= other for other in facts) and not any(one <= facts_of(scene) for one in claims):
            chosen.append(Case(text, scene))
            claims.append(claim)
    return chosen[:count]


def made(folder: Path, texts: Sequence[str], style: str, steps: int, model: clipsearch.Embedder) -> Iterator[Path]:
    """Yield the path of the picture of each text; those that are there are not made again."""
    for text in texts:
        path = folder / f"{style}-{steps}-{text.replace(' ', '-')}.png"
        if not path.exists():
            found = clipsearch.imagine(text, style=style, steps=steps, size=_SIDE, model=model)
            found.picture.save(path)
            print(f"{style:<8} {found.scores[text]:.3f}  {text}", flush=True)
        yield path


def recalls(model: clipsearch.Embedder, texts: list[str], images: Sequence[Path | Image.Image]) -> dict[str, float]:
    """Return recall@1 and recall@5 of images by their texts, and the mean cosine of each text and its image."""
    scores = model.embed_texts(texts) @ model.embed_images(images).T
    better = (scores > np.diag(scores)[:, np.newaxis]).sum(axis=1)
    return {
        "recall@1": round(float((better < 1).mean()), 3),
        "recall@5": round(float((better < 5).mean()), 3),
        "cosine": round(float(np.diag(scores).mean()), 3),
    }


def judged(folder: Path, judge: Path, count: int, steps: int) -> dict[str, dict[str, dict[str, float]]]:
    """Return, for imagined pictures of both styles and for drawn ones, what both models make of them."""
    chosen = cases(count)
    texts = [case.text for case in chosen]
    maker = clipsearch.load_model("picturebook")
    images: dict[str, Sequence[Path | Image.Image]] = {
        style: list(made(folder, texts, style, steps, maker)) for style in STYLES
    }
    images["drawn"] = [
        render(case.scene, Random(f"imagine-{number}"), _SIDE).picture
        for number, case in enumerate(chosen)
        if case.scene
    ]
    models = {"judge": clipsearch.load_model(str(judge)), "picturebook": maker}
    return {
        kind: {name: recalls(model, texts, some) for name, model in models.items()} for kind, some in images.items()
    }


def sheet(folder: Path, out: Path, steps: int) -> None:
    """Write ten texts, each with a picture of both styles, as one JPEG."""
    model = clipsearch.load_model("picturebook")
    texts = [LECTURE, *(text for text, _ in KNOWN)]
    paths = [list(made(folder, texts, style, steps, model)) for style in STYLES]
    rows = -(-len(texts) // _COLUMNS)
    page = Image.new("RGB", (_COLUMNS * _CELL, rows * (2 * _CELL + _LABEL)), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(14)
    for number, pair in enumerate(zip(texts, *paths, strict=True)):
        text, *files = pair
        left, top = number % _COLUMNS * _CELL, number // _COLUMNS * (2 * _CELL + _LABEL)
        for down, path in enumerate(files):
            with Image.open(path) as picture:
                page.paste(picture.resize((_CELL - 2, _CELL - 2), Image.Resampling.LANCZOS), (left, top + down * _CELL))
        pen.multiline_text((left + 4, top + 2 * _CELL), textwrap.fill(text, 25), "black", font)
    page.save(out, quality=_QUALITY)
    print(f"{out}: {out.stat().st_size / 1000:.0f} kB")


def timed(work: Path, steps: int) -> dict[str, dict[str, float]]:
    """Return, for both styles, seconds and processor seconds of the whole command."""
    found = {}
    for style in STYLES:
        took, busy, _ = _weighed(_command(work, "picturebook", style, steps))
        found[style] = {"seconds": round(took, 1), "processor": round(busy, 1)}
        print(f"{style}, {steps} steps: {took:.0f} s, {busy:.0f} s of processor time", flush=True)
    return found


def large(work: Path, steps: int = 3) -> dict[str, dict[str, float | None]]:
    """Return, for both styles, seconds and processor seconds a step, and the memory, at the size of ViT-B/32."""
    folder = common.models(None, work, vit=True)[common.VIT_B_32]
    found: dict[str, dict[str, float | None]] = {}
    for style in STYLES:
        one, more = (_weighed(_command(work, str(folder), style, number)) for number in (1, 1 + steps))
        found[style] = {
            "step": round((more.seconds - one.seconds) / steps, 2),
            "processor_step": round((more.processor - one.processor) / steps, 2),
            "own_mb": more.own_mb and round(more.own_mb),
        }
        print(f"ViT-B/32, {style}: {found[style]}", flush=True)
    return found


class _Cost(NamedTuple):
    seconds: float
    processor: float
    """Seconds of processor time."""
    own_mb: float | None


def _weighed(process: common.Process) -> _Cost:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    weight = common.weigh(process)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return _Cost(weight.seconds, busy, weight.own_mb)


def _command(work: Path, model: str, style: str, steps: int) -> common.Process:
    options = ("--style", style, "--steps", str(steps), "--model", model)
    return common.Process((common.clipsearch_command(), "imagine", KNOWN[0][0], "-o", f"{style}.png", *options), work)


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description="What another CLIP makes of pictures by clipsearch imagine, and time.")
    parser.add_argument("folder", type=Path, help="where pictures are kept")
    parser.add_argument("--judge", type=Path, metavar="FOLDER", help="the model that judges them; none: not judged")
    parser.add_argument("--texts", type=int, default=50, help="number of texts (default %(default)s)")
    parser.add_argument("--steps", type=int, default=500, help="for each picture (default %(default)s)")
    parser.add_argument("--sheet", type=Path, metavar="FILE.jpg", help="write ten texts in both styles, nothing else")
    parser.add_argument("--no-time", action="store_true", help="leave out the time of 500 steps")
    parser.add_argument("--no-vit", action="store_true", help="leave out the random ViT-B/32 (600 MB on disk)")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    if given.sheet:
        sheet(given.folder, given.sheet, given.steps)
        return
    judgements = judged(given.folder, given.judge, given.texts, given.steps) if given.judge else None
    for kind, by in (judgements or {}).items():
        print(f"{kind:<8} {by}")
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        times = None if given.no_time else timed(work, 500)
        vit = None if given.no_vit else large(work)
    common.finish(texts=given.texts, steps=given.steps, judged=judgements, command=times, vit_b_32=vit)


if __name__ == "__main__":
    main()
