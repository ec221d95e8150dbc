"""Large pictures of many small things, one of which is asked for: the test of searching by regions.

The thing asked for covers less than 1, 1 to 4, or 4 to 16 percent of its picture. All figures of a picture are
combinations of kind, action, colour and place that training held out, and none but the thing itself is what its
caption says, in any of the pictures. The sizes of the others are drawn like those of the things, so that size does not
give it away.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from random import Random

from .canvas import STYLES, Style
from .places import INDOORS, OUTDOORS, TIMES
from .render import Box, Spot, crowd_box, render_crowd
from .samples import SHARPER, clause
from .scene import KINDS, Entity, Scene, facts_of, figure_fact, is_held_out, pick, places_for

SIDE = 2048
"""Pixels on a side of a picture."""
SIZES = {"under 1 %": (0.003, 0.01), "1 to 4 %": (0.01, 0.04), "4 to 16 %": (0.04, 0.16)}
"""Least and largest area of the thing asked for, as a share of the picture."""
COLUMNS = ("image", "caption", "size", "left", "top", "right", "bottom")
_OTHERS = (8, 14)
"""Least and largest number of other things in a picture."""
_OTHERS_AREA = (0.003, 0.12)
_GAP = 0.008
"""Free paper between two figures and at the edges, as a share of the side."""
_FAR = 0.6
"""Where the feet of the farthest figures on the ground are."""
_EMPTY = frozenset({"underwater", "sea", "sky", "space"})
"""Places where few kinds of things are, too few for a crowd."""
_LARGEST = 0.9
"""Greatest width and height of a figure, as a share of the side of the picture."""
_POOL = 6000
"""Number of figures to choose others from, before those are left out that cannot be in a place or were there."""
_TRIES, _SMALLER = 150, 0.99
"""Number of places to try for a figure, and by how much it shrinks each time."""


@dataclass(frozen=True)
class Crowd:
    """One picture before it is drawn. The first entity of the scene is the thing asked for."""

    scene: Scene
    spots: tuple[Spot, ...]
    """One for each entity."""


def regions(out: Path, number: int = 300, workers: int = 2) -> None:
    """Draw `number` pictures into `out`, and `captions.csv`: captions as `clipsearch eval` reads them, and boxes.

    As many pictures are of each size as of the others. A caption says nothing of its picture but the thing asked for.
    Boxes of things are in pixels: left, top, right, bottom.
    """
    out.mkdir(parents=True, exist_ok=True)
    draw_one = partial(_draw, wanted=things(number), out=out, side=SIDE)
    with (
        get_context("spawn").Pool(workers) as pool,
        (out / "captions.csv").open("w", encoding="utf-8", newline="") as f,
    ):
        writer = csv.writer(f, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(pool.imap(draw_one, range(number)))


def things(number: int) -> list[tuple[Entity, str]]:
    """The things to ask for, each with its place: no two of them fit one caption."""
    rng, claims = Random("regions"), set[str]()
    wanted = []
    while len(wanted) < number:
        entity, place = _held_out(rng)
        if _claim(entity) not in claims:
            wanted.append((entity, place))
            claims.add(_claim(entity))
    return wanted


def crowd(wanted: Entity, place: str, size: str, others: Sequence[Entity], rng: Random) -> Crowd:
    """Put the thing anywhere that such things are, and some of `others` where there is room."""
    entities, spots = [wanted], [_spot(wanted, place, _between(SIZES[size], rng), rng)]
    boxes = [crowd_box(wanted, spots[0])]
    for _ in range(rng.randint(*_OTHERS)):
        other, area = rng.choice(others), _between(_OTHERS_AREA, rng)
        for _ in range(_TRIES):
            spot = _spot(other, place, area, rng)
            box = crowd_box(other, spot)
            if all(_apart(box, taken) for taken in boxes):
                entities.append(other)
                spots.append(spot)
                boxes.append(box)
                break
            area *= _SMALLER
    time = "day" if place == "stage" else rng.choice(list(TIMES))
    return Crowd(Scene(tuple(entities), place, time), tuple(spots))


def _held_out(rng: Random) -> tuple[Entity, str]:
    """Some figure and a place for it, which never occurred together."""
    while True:
        entity = pick(rng, 0.4)
        place = rng.choice(places_for(entity))
        if place not in _EMPTY and is_held_out(entity, place):
            return entity, place


@cache
def _pool(place: str) -> tuple[Entity, ...]:
    """Figures that never occurred in `place`, in a random order; likely ones more than once."""
    rng = Random(f"regions-{place}")
    some = (pick(rng, 0.4) for _ in range(_POOL))
    return tuple(entity for entity in some if place in places_for(entity) and is_held_out(entity, place))


def _claim(entity: Entity) -> str:
    return figure_fact(entity.kind, colour=entity.colour, action=entity.action)


def _between(least_and_most: tuple[float, float], rng: Random) -> float:
    """Some number between two, each factor as likely as any other."""
    return math.exp(rng.uniform(*map(math.log, least_and_most)))


def _spot(entity: Entity, place: str, area: float, rng: Random) -> Spot:
    """Some place on the page for a figure, on the ground if that is where it belongs."""
    grounded = place in (*OUTDOORS, *INDOORS) and entity.action != "fly" and KINDS[entity.kind].zone != "sky"
    while True:
        spot = Spot(rng.random(), rng.uniform(_FAR if grounded else _GAP, 1.0), area)
        left, top, right, bottom = crowd_box(entity, spot)
        if max(right - left, bottom - top) > _LARGEST:
            area *= _SMALLER
        elif min(left, top, 1 - right, 1 - bottom) > _GAP:
            return spot


def _apart(one: Box, two: Box) -> bool:
    """Whether there is free paper between two boxes."""
    across = max(one[0], two[0]) - min(one[2], two[2])
    return max(across, max(one[1], two[1]) - min(one[3], two[3])) > _GAP


def _style(rng: Random) -> Style:
    style = rng.choice(STYLES)
    return replace(style, soften=style.soften * SHARPER)


def _draw(number: int, wanted: Sequence[tuple[Entity, str]], out: Path, side: int) -> list[str | int]:
    """Draw and write one picture; return its row of the table."""
    size = list(SIZES)[number % len(SIZES)]
    entity, place = wanted[number]
    claims = {_claim(thing) for thing, _ in wanted}
    others = [other for other in _pool(place) if not claims & facts_of(Scene((other,), place))]
    for attempt in count():
        rng = Random(f"regions-{number}-{attempt}")
        some = crowd(entity, place, size, others, rng)
        drawing = render_crowd(some.scene, some.spots, rng, side, _style(rng))
        left, top, right, bottom = next(box for figure, box in drawing.figures if figure == 0)
        # Lines are thick and glyphs are turned, so a box can be larger than planned.
        if SIZES[size][0] <= (right - left) * (bottom - top) < SIZES[size][1]:
            break
    name = f"{number:03}.jpg"
    drawing.picture.save(out / name, quality=90)
    box = [min(max(round(edge * side), 0), side) for edge in (left, top, right, bottom)]
    return [name, clause(entity), size, *box]
