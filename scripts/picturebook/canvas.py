"""Pencils and paper: turns figure coordinates into pixels, in one of several art styles.

A figure is drawn in its own units: it stands on y = 0, is centred on x = 0, y points up, and about one unit is
the height of a dog. A `Pen` maps those units to pixels, mirrors and turns them, and remembers the extent of what it
drew, so that a figure can be measured before it is placed. Knows nothing of what the figures are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import TypeAlias

from PIL import ImageDraw

RGB: TypeAlias = tuple[int, int, int]
Point: TypeAlias = tuple[float, float]

COLOURS: dict[str, RGB] = {
    "red": (214, 40, 40),
    "blue": (40, 90, 215),
    "green": (50, 160, 60),
    "yellow": (248, 205, 40),
    "orange": (245, 135, 30),
    "purple": (140, 60, 190),
    "pink": (250, 130, 185),
    "brown": (135, 85, 45),
    "black": (40, 40, 44),
    "white": (246, 246, 246),
    "gray": (140, 142, 148),
}
"""What each colour word of a caption looks like before `jitter`."""

_CIRCLE = [(math.cos(math.tau * i / 22), math.sin(math.tau * i / 22)) for i in range(22)]


def _byte(value: float) -> int:
    return max(0, min(255, round(value)))


def jitter(colour: RGB, rng: Random, amount: float = 14) -> RGB:
    """A colour near `colour`: each channel moves by up to `amount`."""
    red, green, blue = (_byte(value + rng.uniform(-amount, amount)) for value in colour)
    return red, green, blue


def shade(colour: RGB, factor: float = 0.6) -> RGB:
    """`colour` darkened: 1 leaves it, 0 is black."""
    return _byte(colour[0] * factor), _byte(colour[1] * factor), _byte(colour[2] * factor)


def tint(colour: RGB, amount: float = 0.5) -> RGB:
    """`colour` mixed with white: 0 leaves it, 1 is white."""
    red, green, blue = (_byte(value + (255 - value) * amount) for value in colour)
    return red, green, blue


def is_dark(colour: RGB) -> bool:
    """Whether a white mark shows better on `colour` than a black one."""
    return sum(colour) < 260


@dataclass(frozen=True)
class Style:
    """One hand: how outlines, edges, colours and paper look."""

    name: str
    outline: float
    """Outline width as a fraction of the picture's side; 0 draws none."""
    ink: float
    """How dark an outline is beside its fill, as for `shade`."""
    wobble: float = 0.0
    """How far the hand strays from a straight edge, in figure units."""
    saturation: float = 1.0
    grain: float = 0.0
    """Standard deviation of the paper's grain, in grey levels."""
    soften: float = 0.0
    """Blur radius as a fraction of the picture's side."""


STYLES = (
    Style("picture book", outline=1 / 110, ink=0.5),
    Style("paper cut", outline=0, ink=1),
    Style("comic", outline=1 / 60, ink=0.08),
    Style("crayon", outline=1 / 75, ink=0.65, wobble=0.014, grain=9),
    Style("pastel", outline=1 / 130, ink=0.75, saturation=0.78, grain=3),
    Style("watercolour", outline=1 / 150, ink=0.45, wobble=0.008, grain=5, soften=1 / 220),
)


@dataclass
class Extent:
    """A growing bounding box (pixels, or figure units when measuring)."""

    left: float = math.inf
    top: float = math.inf
    right: float = -math.inf
    bottom: float = -math.inf

    def add(self, points: Sequence[Point], margin: float = 0.0) -> None:
        """Grow to hold `points`, each with `margin` around it."""
        for x, y in points:
            self.left = min(self.left, x - margin)
            self.right = max(self.right, x + margin)
            self.top = min(self.top, y - margin)
            self.bottom = max(self.bottom, y + margin)


@dataclass
class Pen:
    """Draws one figure whose foot is at pixel (x, y), `unit` pixels a figure unit.

    With `draw` None nothing is painted and only `extent` is kept: that is how figures are measured.
    """

    draw: ImageDraw.ImageDraw | None
    x: float
    y: float
    unit: float
    rng: Random
    style: Style = STYLES[0]
    side: int = 1
    mirrored: bool = False
    extent: Extent = field(default_factory=Extent)
    _cos: float = 1.0
    _sin: float = 0.0
    _pivot: Point = (0.0, 0.0)
    _shift: Point = (0.0, 0.0)

    @contextmanager
    def turned(self, angle: float, about: Point = (0.0, 0.0)) -> Iterator[None]:
        """Within: everything is turned by `angle` (radians, anticlockwise) around `about`."""
        before = self._cos, self._sin, self._pivot
        self._cos, self._sin, self._pivot = math.cos(angle), math.sin(angle), about
        yield
        self._cos, self._sin, self._pivot = before

    @contextmanager
    def moved(self, right: float = 0.0, up: float = 0.0) -> Iterator[None]:
        """Within: everything is drawn `right` and `up` of where it says."""
        before = self._shift
        self._shift = before[0] + right, before[1] + up
        yield
        self._shift = before

    def at(self, x: float, y: float) -> Point:
        """The pixel of figure point (x, y)."""
        x, y = x - self._pivot[0], y - self._pivot[1]
        x, y = (
            x * self._cos - y * self._sin + self._pivot[0] + self._shift[0],
            x * self._sin + y * self._cos + self._pivot[1] + self._shift[1],
        )
        return self.x + (-x if self.mirrored else x) * self.unit, self.y - y * self.unit

    def poly(self, points: Sequence[Point], fill: RGB, *, outline: bool = True) -> None:
        """A filled polygon; `outline` False for inner marks such as pupils and windows."""
        if self.style.wobble and outline:
            w, rng = self.style.wobble, self.rng
            points = [(x + rng.uniform(-w, w), y + rng.uniform(-w, w)) for x, y in points]
        pixels = [self.at(x, y) for x, y in points]
        self.extent.add(pixels)
        if self.draw is None:
            return
        self.draw.polygon(pixels, fill=fill)
        if outline and self.style.outline:
            width = max(1, round(self.side * self.style.outline))
            self.draw.line([*pixels, pixels[0]], fill=shade(fill, self.style.ink), width=width, joint="curve")

    def ellipse(
        self, x: float, y: float, rx: float, ry: float, fill: RGB, *, angle: float = 0.0, outline: bool = True
    ) -> None:
        """A filled ellipse with radii rx, ry, turned by `angle` radians."""
        c, s = math.cos(angle), math.sin(angle)
        points = [(x + rx * u * c - ry * v * s, y + rx * u * s + ry * v * c) for u, v in _CIRCLE]
        self.poly(points, fill, outline=outline)

    def rect(self, x0: float, y0: float, x1: float, y1: float, fill: RGB, *, outline: bool = True) -> None:
        """A filled rectangle between two corners."""
        self.poly([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], fill, outline=outline)

    def line(self, points: Sequence[Point], fill: RGB, width: float) -> None:
        """A stroke through `points`, `width` figure units thick (limbs, tails, wires)."""
        pixels = [self.at(x, y) for x, y in points]
        self.extent.add(pixels, width * self.unit / 2)
        if self.draw is None:
            return
        thick = max(1, round(width * self.unit))
        edge = round(self.side * self.style.outline)
        if edge and thick > 3 * edge:
            self.draw.line(pixels, fill=shade(fill, self.style.ink), width=thick + edge, joint="curve")
        self.draw.line(pixels, fill=fill, width=thick, joint="curve")

    def arc(self, x: float, y: float, rx: float, ry: float, start: float, end: float, fill: RGB, width: float) -> None:
        """A stroke along an ellipse from angle `start` to `end` (radians, anticlockwise from the right)."""
        steps = max(4, math.ceil(abs(end - start) * 2.5))
        angles = [start + (end - start) * i / steps for i in range(steps + 1)]
        self.line([(x + rx * math.cos(a), y + ry * math.sin(a)) for a in angles], fill, width)
