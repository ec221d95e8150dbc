"""Kinds of things that picturebook never saw, with captioned pictures of them: what `clipsearch tune` is tried on.

Five are invented, as are their names; five are real, but neither their drawings nor their names were in training.
The table of kinds that training draws from stays as it is.
"""

from __future__ import annotations

import csv
import math
from pathlib import Path
from random import Random

from . import scene
from .canvas import RGB, Pen, shade, tint
from .caption import article, describe
from .data import scene_of
from .kinds import PAINT, Kind, Look
from .render import render
from .scene import Entity, Scene

SIDE = 256
"""Height and width of a picture, in pixels, before its frame closes in on the figures."""
_INK: RGB = (25, 22, 24)
_WHITE: RGB = (250, 250, 250)
_WOOD: RGB = (150, 100, 55)
_STEEL: RGB = (110, 114, 122)
_BRASS: RGB = (215, 170, 60)


def _eye(pen: Pen, x: float, y: float, radius: float) -> None:
    pen.ellipse(x, y, radius, radius, _WHITE, outline=False)
    pen.ellipse(x, y, radius * 0.45, radius * 0.45, _INK, outline=False)


def _florp(pen: Pen, look: Look) -> None:
    """Draw a ball on three legs, with three eyes on stalks."""
    for x in (-0.3, 0.0, 0.3):
        pen.line([(x * 0.7, 0.4), (x * 1.3, 0.04)], shade(look.rgb, 0.7), 0.09)
        pen.ellipse(x * 1.4, 0.04, 0.1, 0.05, shade(look.rgb, 0.6))
    pen.ellipse(0, 0.52, 0.42, 0.36, look.rgb)
    pen.arc(0, 0.46, 0.2, 0.12, math.pi, math.tau, _INK, 0.04)
    for x in (-0.34, 0.0, 0.34):
        pen.line([(x * 0.6, 0.8), (x, 1.08)], shade(look.rgb, 0.8), 0.05)
        _eye(pen, x, 1.14, 0.12)


def _zindle(pen: Pen, look: Look) -> None:
    """Draw an upright spring with a flat face on top."""
    for i in range(5):
        y = 0.1 + 0.15 * i
        pen.ellipse(0, y, 0.44 - 0.05 * i, 0.1, look.rgb if i % 2 else tint(look.rgb, 0.6))
    pen.poly([(-0.3, 0.82), (0.3, 0.82), (0.38, 1.2), (-0.38, 1.2)], look.rgb)
    for x in (-0.15, 0.15):
        _eye(pen, x, 1.04, 0.09)
    pen.line([(-0.12, 0.89), (0.12, 0.89)], _INK, 0.04)


def _mubbit(pen: Pen, look: Look) -> None:
    """Draw a long worm in the shape of an arch, with a tuft at each end."""
    pen.arc(0, 0.1, 0.62, 0.66, 0, math.pi, look.rgb, 0.26)
    for i in range(5):
        angle = math.pi * (0.18 + 0.16 * i)
        pen.ellipse(
            0.62 * math.cos(angle), 0.1 + 0.66 * math.sin(angle), 0.07, 0.07, tint(look.rgb, 0.7), outline=False
        )
    for x in (-0.62, 0.62):
        for lean in (-0.16, 0.0, 0.16):
            pen.line([(x, 0.12), (x + lean, 0.0)], _BRASS, 0.05)
    _eye(pen, 0.56, 0.36, 0.08)


def _grolk(pen: Pen, look: Look) -> None:
    """Draw a cube with horns and one large eye."""
    pen.rect(-0.42, 0.0, -0.2, 0.16, shade(look.rgb, 0.6))
    pen.rect(0.2, 0.0, 0.42, 0.16, shade(look.rgb, 0.6))
    pen.rect(-0.5, 0.12, 0.5, 0.9, look.rgb)
    for side in (-1, 1):
        pen.poly([(0.5 * side, 0.86), (0.22 * side, 0.88), (0.62 * side, 1.3)], _WHITE)
    _eye(pen, 0, 0.6, 0.24)
    pen.poly([(-0.3, 0.26), (-0.1, 0.26), (-0.2, 0.16)], _WHITE)
    pen.poly([(0.3, 0.26), (0.1, 0.26), (0.2, 0.16)], _WHITE)
    pen.line([(-0.36, 0.27), (0.36, 0.27)], _INK, 0.04)


def _twizzet(pen: Pen, look: Look) -> None:
    """Draw a star on one leg, with a propeller over it."""
    pen.line([(0, 0.5), (0, 0.02)], shade(look.rgb, 0.6), 0.08)
    pen.ellipse(0, 0.03, 0.18, 0.05, shade(look.rgb, 0.6))
    angles = [math.pi / 2 + math.pi * i / 5 for i in range(10)]
    star = [(math.cos(a) * r, 0.66 + math.sin(a) * r) for a, r in zip(angles, (0.46, 0.2) * 5, strict=True)]
    pen.poly(star, look.rgb)
    for x in (-0.09, 0.09):
        _eye(pen, x, 0.7, 0.07)
    pen.line([(0, 1.1), (0, 1.24)], _STEEL, 0.05)
    pen.ellipse(-0.26, 1.26, 0.26, 0.06, _STEEL)
    pen.ellipse(0.26, 1.26, 0.26, 0.06, _STEEL)


def _easel(pen: Pen, look: Look) -> None:
    pen.line([(0, 0.9), (0, 0.0)], shade(_WOOD, 0.7), 0.06)
    for side in (-1, 1):
        pen.line([(0.08 * side, 1.3), (0.5 * side, 0.0)], _WOOD, 0.07)
    pen.rect(-0.5, 0.44, 0.5, 1.1, look.rgb)
    pen.rect(-0.4, 0.54, 0.4, 1.0, _WHITE, outline=False)
    pen.ellipse(-0.15, 0.8, 0.12, 0.12, look.rgb, outline=False)
    pen.rect(-0.56, 0.36, 0.56, 0.44, _WOOD)


def _metronome(pen: Pen, look: Look) -> None:
    pen.poly([(-0.42, 0.0), (0.42, 0.0), (0.16, 1.2), (-0.16, 1.2)], look.rgb)
    pen.poly([(-0.26, 0.3), (0.26, 0.3), (0.1, 1.1), (-0.1, 1.1)], tint(look.rgb, 0.75), outline=False)
    pen.line([(0, 0.3), (0.3, 1.3)], _STEEL, 0.05)
    pen.rect(0.14, 0.9, 0.32, 1.04, _INK)
    pen.rect(-0.48, 0.0, 0.48, 0.14, shade(look.rgb, 0.6))


def _wheelbarrow(pen: Pen, look: Look) -> None:
    pen.line([(0.62, 0.2), (-0.5, 0.42), (-1.0, 0.56)], _WOOD, 0.08)
    pen.line([(-0.34, 0.4), (-0.44, 0.02)], _WOOD, 0.08)
    pen.poly([(-0.56, 0.86), (0.66, 0.76), (0.4, 0.36), (-0.34, 0.42)], look.rgb)
    pen.ellipse(0.64, 0.2, 0.2, 0.2, _INK)
    pen.ellipse(0.64, 0.2, 0.09, 0.09, _STEEL, outline=False)


def _gramophone(pen: Pen, look: Look) -> None:
    pen.rect(-0.5, 0.0, 0.5, 0.36, look.rgb)
    pen.rect(-0.56, 0.36, 0.56, 0.44, shade(look.rgb, 0.7))
    pen.ellipse(0.0, 0.48, 0.36, 0.07, _INK)
    pen.line([(-0.36, 0.5), (-0.3, 0.72), (-0.08, 0.82)], _BRASS, 0.09)
    pen.poly([(-0.14, 0.74), (-0.1, 0.9), (0.36, 1.4), (0.72, 0.82)], _BRASS)
    pen.ellipse(0.55, 1.1, 0.16, 0.36, shade(_BRASS, 0.7), angle=0.55)


def _anvil(pen: Pen, look: Look) -> None:
    pen.rect(-0.4, 0.0, 0.4, 0.14, shade(look.rgb, 0.8))
    pen.poly([(-0.3, 0.14), (0.3, 0.14), (0.16, 0.32), (0.22, 0.5), (-0.22, 0.5), (-0.16, 0.32)], look.rgb)
    pen.poly([(-0.5, 0.5), (0.4, 0.5), (0.5, 0.72), (-0.5, 0.72), (-0.94, 0.68), (-0.6, 0.56)], look.rgb)
    pen.line([(-0.5, 0.72), (0.5, 0.72)], tint(look.rgb, 0.6), 0.05)


NOVELTIES = tuple(
    Kind(name, draw, (name,), colours=PAINT, size=1.2)
    for name, draw in (
        *(("florp", _florp), ("zindle", _zindle), ("mubbit", _mubbit), ("grolk", _grolk), ("twizzet", _twizzet)),
        *(("easel", _easel), ("metronome", _metronome), ("wheelbarrow", _wheelbarrow)),
        *(("gramophone", _gramophone), ("anvil", _anvil)),
    )
)


def novelties(out: Path, count: int = 40, held_out: int = 10, old: int = 1000) -> None:
    """Draw pictures into four folders of `out`, each with a table of captions beside it.

    `new` has `count` pictures of each new kind in varied scenes, `held-out` has `held_out` more whose captions name
    nothing but the kind, `old` has the first `old` pictures of picturebook's own test split, and `control` as many
    more.
    """
    scene.KINDS.update({kind.name: kind for kind in NOVELTIES})
    rows: dict[str, list[tuple[str, str]]] = {"new": [], "held-out": [], "old": [], "control": []}
    for part, number in (("new", count), ("held-out", held_out)):
        for kind in NOVELTIES:
            for i in range(number):
                rng = Random(f"novelty-{part}-{kind.name}-{i}")
                drawn = _scene(kind.name, rng)
                name = f"{part}/{kind.name}_{i}.png"
                _save(drawn, rng, out / name)
                text = article(kind.name) if part == "held-out" else _caption(drawn, kind.name, rng)
                rows[part].append((name, text))
    for i in range(2 * old):
        part = "old" if i < old else "control"
        drawn, rng = scene_of("test", i)
        _save(drawn, rng, out / f"{part}/{i}.png")
        rows[part].append((f"{part}/{i}.png", describe(drawn, rng, 1.0)[0]))
    for part, lines in rows.items():
        with (out / f"{part}.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("image", "caption"), *lines])


def _scene(name: str, rng: Random) -> Scene:
    """A scene with a new kind, one time in three beside something known."""
    made = scene.random_scene(rng, "train")
    entities = [scene.complete(Entity(name, rng.choice((1, 1, 1, 2))), rng)]
    if rng.random() < 1 / 3:
        entities.append(scene.complete(Entity(rng.choice(scene.VECTOR_KINDS).name), rng))
    place = rng.choice(scene.OUTDOORS)
    return Scene(tuple(entities), place, made.time, made.weather if place not in scene.INDOORS else None)


def _caption(drawn: Scene, name: str, rng: Random) -> str:
    """A caption that names the new kind."""
    while name not in (text := describe(drawn, rng)[0]):
        pass
    return text


def _save(drawn: Scene, rng: Random, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    render(drawn, rng, SIDE).picture.save(path)
