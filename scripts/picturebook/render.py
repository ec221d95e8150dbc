"""Rendering of a scene: positions of figures, the art style, and the crop of the picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from random import Random
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

from . import emoji
from .canvas import COLOURS, RGB, STYLES, Extent, Pen, Style, jitter
from .kinds import Kind, Look
from .places import INDOORS, paint, weather
from .scene import KINDS, Entity, Scene

_FLOATING = frozenset({"sky", "underwater", "space"})
_SEAT_HEIGHT = {"sofa": 0.5, "table": 0.68, "chair": 0.54, "bed": 0.5, "bench": 0.5}
"""How high one sits on each, in its own figure units."""
_ALONE = 0.6
"""Share of the side of a page that a figure fills which is alone on it."""
_SHEET = 1400
"""Pixels on a side of the sheet of grain."""


Box: TypeAlias = tuple[float, float, float, float]
"""Left, top, right and bottom edge."""


@dataclass(frozen=True)
class Drawing:
    """A picture, and for each figure (entity number, box in fractions of the picture), back to front."""

    picture: Image.Image
    figures: tuple[tuple[int, Box], ...]


@dataclass
class _Place:
    """One figure on the page: its entity, foot (x, y) and size of a figure unit, in pixels."""

    entity: int
    x: float
    y: float
    unit: float
    layer: int = 0
    """Higher layers are drawn later, whatever their foot."""


@cache
def _shape(name: str, action: str | None) -> Extent:
    """The box of a figure in figure units around its foot; y points down, as in pixels."""
    kind = KINDS[name]
    if kind.draw is None:
        glyph = emoji.glyph_image(kind)
        half = glyph.width / glyph.height / 2
        return Extent(-half, -1.0, half, 0.0)
    pen = Pen(None, 0.0, 0.0, 1.0, Random(0))
    colour = kind.colours[0] if kind.colours else None
    kind.draw(pen, Look(action, colour, (128, 128, 128), Random(0)))
    return pen.extent


def render(scene: Scene, rng: Random, side: int, *, style: Style | None = None, crop: bool = True) -> Drawing:
    """Draw `scene` on a square of `side` pixels in a random (or the given) style.

    `crop` lets the frame close in on the figures by up to a fifth; the picture is then smaller than `side`.
    """
    style = style or rng.choice(STYLES)
    picture, horizon = paint(scene.place, scene.time, side, rng, style)
    figures = []
    colours = [_colour(entity, rng) for entity in scene.entities]
    for spot in sorted(_layout(scene, rng, side, horizon), key=lambda spot: (spot.layer, spot.y)):
        box = _draw_figure(picture, scene.entities[spot.entity], colours[spot.entity], spot, style, rng)
        figures.append((spot.entity, box))
    picture = _finish(picture, scene, rng, style)
    window = _window(figures, side, rng) if crop and rng.random() < 0.6 else (0, 0, side, side)
    left, top, right, _ = window
    width = right - left
    boxes = tuple(
        (number, ((b.left - left) / width, (b.top - top) / width, (b.right - left) / width, (b.bottom - top) / width))
        for number, b in figures
    )
    return Drawing(picture.crop(window) if width < side else picture, boxes)


@dataclass(frozen=True)
class Spot:
    """Where a figure of a crowd is: the middle of its foot and its area, as fractions of the page's side and area."""

    x: float
    y: float
    area: float


def crowd_box(entity: Entity, spot: Spot) -> Box:
    """The box that a figure will fill, in fractions of the page. A figure is turned or wobbles a little beyond it."""
    shape = _shape(entity.kind, entity.action)
    wide, high = shape.right - shape.left, shape.bottom - shape.top
    unit = (spot.area / (wide * high)) ** 0.5
    return spot.x - wide * unit / 2, spot.y + shape.top * unit, spot.x + wide * unit / 2, spot.y + shape.bottom * unit


def render_crowd(scene: Scene, spots: Sequence[Spot], rng: Random, side: int, style: Style) -> Drawing:
    """Draw the entities of `scene`, one figure each, where `spots` says, on a square of `side` pixels.

    Each figure is drawn with a pen as fine as if it had the page for itself.
    """
    picture, _ = paint(scene.place, scene.time, side, rng, style)
    figures = []
    for number in sorted(range(len(spots)), key=lambda number: spots[number].y):
        entity, spot = scene.entities[number], spots[number]
        shape = _shape(entity.kind, entity.action)
        wide, high = shape.right - shape.left, shape.bottom - shape.top
        unit = (spot.area / (wide * high)) ** 0.5 * side
        mirrored = rng.random() < 0.5
        middle = (shape.left + shape.right) / 2 * (-unit if mirrored else unit)
        foot = _Place(number, spot.x * side - middle, spot.y * side, unit)
        alone = round(max(wide, high) * unit / _ALONE)
        box = _draw_figure(picture, entity, _colour(entity, rng), foot, style, rng, page=alone, mirrored=mirrored)
        figures.append((number, (box.left / side, box.top / side, box.right / side, box.bottom / side)))
    return Drawing(_finish(picture, scene, rng, style), tuple(figures))


def _draw_figure(
    picture: Image.Image,
    entity: Entity,
    colour: RGB,
    spot: _Place,
    style: Style,
    rng: Random,
    *,
    page: int | None = None,
    mirrored: bool | None = None,
) -> Extent:
    """Draw one figure and return its box in pixels; `page` is the side that the width of lines depends on."""
    kind = KINDS[entity.kind]
    if kind.draw is None:
        return _paste_glyph(picture, kind, spot, rng)
    if mirrored is None:
        mirrored = rng.random() < 0.5
    pen = Pen(ImageDraw.Draw(picture), spot.x, spot.y, spot.unit, rng, style, page or picture.width, mirrored)
    kind.draw(pen, Look(entity.action, entity.colour, colour, rng))
    return pen.extent


def _colour(entity: Entity, rng: Random) -> RGB:
    return jitter(COLOURS[entity.colour], rng) if entity.colour else (128, 128, 128)


def _layout(scene: Scene, rng: Random, side: int, horizon: float) -> list[_Place]:
    """A foot for every figure, such that figures do not hide each other."""
    if scene.relation == "on":
        return _stacked(scene, rng, side)
    if scene.relation == "under":
        return _sheltered(scene, rng, side)
    order = [number for number, entity in enumerate(scene.entities) for _ in range(entity.count)]
    if rng.random() < 0.5:
        order.reverse()
    slots = _slots(len(order), horizon, rng)
    return [_fit(scene, number, slot, rng, side) for number, slot in zip(order, slots, strict=True)]


def _slots(total: int, horizon: float, rng: Random) -> list[tuple[float, float, float, float]]:
    """Where the feet go: for each figure (x, y, width, height) as fractions of the side."""
    near = 0.95
    if total == 1:
        return [(rng.uniform(0.4, 0.6), rng.uniform(0.86, near), 0.8, 0.62)]
    if total == 2:
        return [(x, rng.uniform(0.84, near), 0.47, 0.58) for x in (0.26, 0.74)]
    far = horizon + 0.13
    if total == 3 and rng.random() < 0.5:
        return [(0.27, near, 0.44, 0.36), (0.5, far, 0.42, 0.34), (0.73, near, 0.44, 0.36)]
    if total == 4 and rng.random() < 0.75:
        return [(0.26, near, 0.44, 0.34), (0.27, far, 0.42, 0.33), (0.73, far, 0.42, 0.33), (0.74, near, 0.44, 0.34)]
    step = 1 / total
    return [(step * (i + 0.5), rng.uniform(0.72, near), step * 0.96, 0.5) for i in range(total)]


def _fit(scene: Scene, number: int, slot: tuple[float, float, float, float], rng: Random, side: int) -> _Place:
    """The entity's figure at the largest size that its slot and its kind allow."""
    entity = scene.entities[number]
    kind = KINDS[entity.kind]
    x, y, width, height = slot
    box = _shape(entity.kind, entity.action)
    wide, high = box.right - box.left, box.bottom - box.top
    fill = (0.66 + 0.34 * min(1.0, kind.size / 1.2)) * rng.uniform(0.84, 1.0)
    if entity.action == "sleep":
        fill *= 1.2  # half of a sleeper's box is the letters over its head
    unit = min(width / wide, height / high) * fill
    spare = max(0.0, width - wide * unit) / 2
    x += rng.uniform(-spare, spare)
    if scene.place in _FLOATING or (scene.place == "sea" and rng.random() < 0.3):
        y = rng.uniform(min(0.95, high * unit + 0.06), y)
    elif kind.zone == "sky" or entity.action == "fly":
        y -= rng.uniform(0.24, 0.34)
    elif scene.place in INDOORS:
        y = max(y, 0.78)
    x = min(max(x, wide * unit / 2 + 0.01), 0.99 - wide * unit / 2) - (box.left + box.right) / 2 * unit * 0.5
    y = max(y, high * unit + 0.02)
    return _Place(number, x * side, y * side, unit * side)


def _stacked(scene: Scene, rng: Random, side: int) -> list[_Place]:
    """The first figure on top of the second."""
    above, below = scene.entities
    x, y = rng.uniform(0.4, 0.6), rng.uniform(0.88, 0.95)
    base = _shape(below.kind, below.action)
    unit = min(0.72 / (base.right - base.left), 0.46 / (base.bottom - base.top))
    seat = y - _SEAT_HEIGHT[below.kind] * unit
    box = _shape(above.kind, above.action)
    fit = min(0.56 / (box.right - box.left), (seat - 0.04) / (box.bottom - box.top), 0.4 / (box.bottom - box.top))
    x_above = x + rng.uniform(-0.05, 0.05)
    return [_Place(1, x * side, y * side, unit * side), _Place(0, x_above * side, seat * side, fit * side, layer=1)]


def _sheltered(scene: Scene, rng: Random, side: int) -> list[_Place]:
    """The first figure below and before the second."""
    below, roof = scene.entities
    x, y = rng.uniform(0.4, 0.6), rng.uniform(0.86, 0.93)
    shape = _shape(roof.kind, roof.action)
    lift = 0.2 if roof.kind == "umbrella" else 0.0
    unit = min(0.9 / (shape.right - shape.left), (0.8 - lift) / (shape.bottom - shape.top))
    box = _shape(below.kind, below.action)
    fit = min(0.5 / (box.right - box.left), 0.3 / (box.bottom - box.top))
    return [
        _Place(1, x * side, (y - lift) * side, unit * side),
        _Place(0, x * side, (y + 0.03) * side, fit * side, layer=1),
    ]


def _paste_glyph(picture: Image.Image, kind: Kind, spot: _Place, rng: Random) -> Extent:
    glyph = emoji.glyph_image(kind)
    height = max(8, round(spot.unit))
    glyph = glyph.resize((max(8, round(height * glyph.width / glyph.height)), height), Image.Resampling.BILINEAR)
    if rng.random() < 0.5:
        glyph = glyph.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if rng.random() < 0.4:
        glyph = glyph.rotate(rng.uniform(-14, 14), Image.Resampling.BILINEAR, expand=True)
    left, top = round(spot.x - glyph.width / 2), round(spot.y - glyph.height)
    picture.paste(glyph, (left, top), glyph)
    return Extent(left, top, left + glyph.width, top + glyph.height)


@lru_cache(maxsize=1)
def _paper() -> np.ndarray:
    """A sheet of grain, standard deviation 1, from which any picture takes a piece."""
    return np.random.default_rng(0).standard_normal((_SHEET, _SHEET, 1), dtype=np.float32)


def _finish(picture: Image.Image, scene: Scene, rng: Random, style: Style) -> Image.Image:
    """Weather, the tint of the hour, and what the style does to the whole sheet."""
    if scene.weather:
        weather(picture, scene.weather, rng)
    if scene.place not in ("underwater", "space", "stage"):
        if scene.time == "night":
            picture = Image.blend(picture, Image.new("RGB", picture.size, (10, 15, 60)), 0.16)
        elif scene.time == "sunset":
            picture = Image.blend(picture, Image.new("RGB", picture.size, (250, 120, 60)), 0.1)
    if style.soften:
        picture = picture.filter(ImageFilter.GaussianBlur(style.soften * picture.width))
    if style.saturation != 1:
        picture = ImageEnhance.Color(picture).enhance(style.saturation)
    if style.grain:
        side = picture.width
        sheets = -(-(side + 1) // _SHEET)  # a page that is larger than the sheet takes several
        paper = np.tile(_paper(), (sheets, sheets, 1)) if sheets > 1 else _paper()
        x, y = rng.randrange(len(paper) - side), rng.randrange(len(paper) - side)
        grain = paper[y : y + side, x : x + side] * style.grain
        picture = Image.fromarray((np.asarray(picture) + grain).clip(0, 255).astype(np.uint8))
    return picture


def _window(figures: list[tuple[int, Extent]], side: int, rng: Random) -> tuple[int, int, int, int]:
    """A square of at least four fifths of the side that holds all figures as far as they are on the page."""
    left = max(0.0, min(box.left for _, box in figures))
    top = max(0.0, min(box.top for _, box in figures))
    right = min(float(side), max(box.right for _, box in figures))
    bottom = min(float(side), max(box.bottom for _, box in figures))
    width = int(min(side, max(rng.uniform(0.8, 1.0) * side, right - left, bottom - top)))
    x = round(rng.uniform(max(0.0, right - width), min(left, side - width)))
    y = round(rng.uniform(max(0.0, bottom - width), min(top, side - width)))
    return x, y, x + width, y + width
