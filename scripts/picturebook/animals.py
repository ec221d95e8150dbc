"""Animals: vector drawings of beasts, birds and sea creatures, and the words for them.

Figures stand on y = 0, are centred near x = 0 and face right; a dog is about one unit tall. Each pose has a
sign that survives at thumbnail size: sleepers lie with a row of Zs, runners trail speed lines, jumpers have a
shadow on the ground, eaters have a bowl and players a ball.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .canvas import COLOURS, RGB, Pen, Point, is_dark, jitter, shade, tint
from .kinds import Kind, Look

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from random import Random

BLACK: RGB = (22, 20, 22)
WHITE: RGB = (250, 250, 250)
ROSE: RGB = (248, 160, 175)
HORN: RGB = (225, 212, 175)
ANTLER: RGB = (190, 150, 100)
BEAK: RGB = (246, 155, 40)
COMB: RGB = (215, 35, 35)
SHADOW: RGB = (80, 80, 84)
WATER: RGB = (95, 170, 225)
FOAM: RGB = (232, 246, 255)
TAN: RGB = (215, 165, 105)

POSES = ("stand", "sleep", "sit", "run", "jump", "eat", "play")
FUR = ("brown", "black", "white", "gray", "orange")
PET = ("animal", "pet")
FARM = ("animal", "farm animal")
WILD = ("animal", "wild animal")


@dataclass(frozen=True)
class Build:
    """The proportions of a four-legged animal, in figure units, and the words for it."""

    nouns: tuple[str, ...]
    length: float
    """Length of the trunk from chest to rump."""
    depth: float
    """Height of the trunk from back to belly."""
    leg: float
    neck: float
    head: float
    """Radius of the skull."""
    snout: float
    """Length of the muzzle beyond the skull."""
    ears: str
    tail: str
    size: float
    colours: tuple[str, ...]
    hypernyms: tuple[str, ...] = WILD
    marks: tuple[str, ...] = ()
    """Distinguishing marks: stripes, horns, a hump and so on."""
    limb: float = 0.115
    """Thickness of a leg."""

    @property
    def small(self) -> bool:
        """Whether it is one of those that sit up with their paws before their chest."""
        return self.size < 0.8


@dataclass(frozen=True)
class _Figure:
    """One four-legged animal being drawn."""

    pen: Pen
    look: Look
    build: Build
    coat: RGB

    def has(self, mark: str) -> bool:
        return mark in self.build.marks


BUILDS = (
    Build(
        ("dog", "puppy", "doggy", "hound", "pup", "pooch"),
        *(0.9, 0.36, 0.34, 0.12, 0.21, 0.17),
        *("flop", "wag", 1.0, FUR, PET),
    ),
    Build(
        ("cat", "kitten", "kitty"),
        *(0.72, 0.28, 0.26, 0.06, 0.21, 0.03),
        *("point", "long", 0.85, FUR, PET, ("whiskers", "pink nose")),
    ),
    Build(
        ("horse", "pony", "stallion"),
        *(1.0, 0.38, 0.55, 0.42, 0.16, 0.24),
        *("small", "hair", 1.5, ("brown", "black", "white", "gray"), FARM, ("mane",)),
    ),
    Build(
        ("cow", "bull", "cattle"),
        *(1.1, 0.48, 0.36, 0.1, 0.2, 0.16),
        *(
            "side",
            "thin",
            1.35,
            ("white", "brown", "black"),
            FARM,
            ("horns", "patches", "pink nose", "udder"),
        ),
    ),
    Build(
        ("rabbit", "bunny"),
        *(0.58, 0.36, 0.14, 0.03, 0.18, 0.03),
        *("long", "puff", 0.7, ("white", "gray", "brown"), ("animal", "pet"), ("pink nose", "whiskers")),
    ),
    Build(
        ("pig", "piglet", "hog"),
        *(0.9, 0.46, 0.2, 0.02, 0.22, 0.12),
        *("point", "curl", 0.95, ("pink",), FARM, ("pink nose", "pale")),
    ),
    Build(
        ("sheep", "lamb"),
        *(0.85, 0.48, 0.24, 0.04, 0.16, 0.08),
        *("side", "puff", 0.95, ("white", "black"), FARM, ("wool",)),
    ),
    Build(
        ("lion",),
        *(1.0, 0.38, 0.34, 0.08, 0.2, 0.1),
        *("round", "tuft", 1.2, ("yellow",), WILD, ("ruff", "tawny", "pale face")),
    ),
    Build(
        ("tiger",),
        *(1.05, 0.38, 0.34, 0.08, 0.2, 0.08),
        *("round", "long", 1.2, ("orange", "white"), WILD, ("stripes", "pale face")),
    ),
    Build(
        ("elephant",),
        *(1.1, 0.62, 0.4, 0.0, 0.27, 0.0),
        *("huge", "thin", 1.6, ("gray",), WILD, ("trunk",), 0.2),
    ),
    Build(
        ("bear",),
        *(1.0, 0.5, 0.3, 0.03, 0.24, 0.12),
        *("round", "none", 1.3, ("brown", "black", "white"), WILD, ("pale face",), 0.15),
    ),
    Build(
        ("fox",),
        *(0.8, 0.28, 0.28, 0.08, 0.18, 0.19),
        *("point", "bush", 0.85, ("orange",), WILD, ("pale face",)),
    ),
    Build(
        ("mouse", "rat"),
        *(0.52, 0.28, 0.08, 0.0, 0.16, 0.1),
        *("saucer", "long", 0.5, ("gray", "white"), ("animal",), ("pink nose", "whiskers"), 0.08),
    ),
    Build(
        ("zebra",),
        *(1.0, 0.38, 0.5, 0.36, 0.16, 0.2),
        *("small", "hair", 1.4, ("white",), WILD, ("stripes", "mane")),
    ),
    Build(
        ("giraffe",),
        *(0.8, 0.36, 0.62, 1.0, 0.14, 0.16),
        *("side", "tuft", 1.6, ("yellow",), WILD, ("spots", "horns", "tawny")),
    ),
    Build(
        ("deer", "stag", "reindeer"),
        *(0.85, 0.32, 0.46, 0.26, 0.15, 0.16),
        *("side", "puff", 1.3, ("brown",), WILD, ("antlers", "fawn spots"), 0.085),
    ),
    Build(
        ("goat",),
        *(0.82, 0.38, 0.32, 0.16, 0.16, 0.16),
        *("side", "puff", 0.95, ("white", "brown", "gray", "black"), FARM, ("swept horns", "beard")),
    ),
    Build(
        ("wolf",),
        *(0.95, 0.34, 0.36, 0.12, 0.2, 0.22),
        *("point", "bush", 1.05, ("gray", "black", "white"), WILD, ("pale face", "bib")),
    ),
    Build(
        ("camel",),
        *(1.0, 0.4, 0.52, 0.46, 0.15, 0.18),
        *("small", "tuft", 1.45, ("brown", "yellow"), WILD, ("hump", "tawny")),
    ),
    Build(
        ("squirrel", "chipmunk"),
        *(0.52, 0.3, 0.12, 0.02, 0.17, 0.06),
        *("plume", "plume", 0.6, ("brown", "gray"), WILD, ("pale face",), 0.09),
    ),
)


# ---------------------------------------------------------------- signs shared by all figures


def _halo_line(pen: Pen, points: Sequence[Point], colour: RGB, width: float) -> None:
    """Draw a stroke that shows on any background: dark inside light."""
    pen.line(points, WHITE, width * 2)
    pen.line(points, colour, width)


def _zzz(pen: Pen, look: Look, x: float, y: float) -> None:
    """Three growing Zs rising from (x, y); mirrored figures still get Zs, not Ss."""
    colour = look.rng.choice([(40, 60, 190), (30, 30, 80), (110, 40, 150)])
    for i, side in enumerate((0.13, 0.16, 0.2)):
        left, low = x + (0, 0.17, 0.32)[i], y + (0, 0.24, 0.52)[i]
        right = left + side
        if pen.mirrored:
            left, right = right, left
        letter = [(left, low + side), (right, low + side), (left, low), (right, low)]
        _halo_line(pen, letter, colour, 0.04)


def _speed_lines(pen: Pen, right: float, low: float, high: float) -> None:
    for i in range(3):
        y = low + (high - low) * i / 2
        start = right - (0.0, 0.14, 0.04)[i]
        _halo_line(pen, [(start, y), (start - 0.36, y)], (95, 95, 110), 0.028)


def _shadow(pen: Pen, radius: float) -> None:
    pen.ellipse(0, 0.03, radius, 0.05, SHADOW, outline=False)


def _bowl_back(pen: Pen, x: float, scale: float) -> None:
    """Draw the food heaped in a bowl around x: drawn before the head that is lowered into it."""
    pen.ellipse(x, 0.19 * scale, 0.26 * scale, 0.09 * scale, (125, 78, 40))


def _bowl_front(pen: Pen, look: Look, x: float, scale: float) -> None:
    colour = jitter(look.rng.choice([COLOURS["red"], COLOURS["blue"], COLOURS["green"]]), look.rng)
    half, foot, rim = 0.31 * scale, 0.2 * scale, 0.19 * scale
    pen.poly([(x - half, rim), (x + half, rim), (x + foot, 0), (x - foot, 0)], colour)


def _ball(pen: Pen, rng: Random, x: float, radius: float) -> None:
    colour = jitter(COLOURS[rng.choice(["red", "blue", "yellow", "green"])], rng)
    pen.ellipse(x, radius, radius, radius, colour)
    pen.arc(x, radius, radius * 0.62, radius * 0.62, 0.3, 2.4, WHITE, 0.045)


def _puddle(pen: Pen, half: float, top: float) -> None:
    """Water that hides what is below y = `top`, with ripples."""
    pen.ellipse(0, top - 0.08, half, 0.1, WATER, outline=False)
    for x, y in ((-half * 0.5, top), (half * 0.25, top - 0.04), (-half * 0.1, top - 0.1)):
        pen.arc(x, y, half * 0.28, 0.04, math.pi, math.tau, FOAM, 0.03)


def _round_eye(pen: Pen, x: float, y: float, radius: float = 0.055) -> None:
    pen.ellipse(x, y, radius, radius * 1.1, WHITE, outline=False)
    pen.ellipse(x + radius * 0.25, y, radius * 0.62, radius * 0.75, BLACK, outline=False)


def _shut_eye(pen: Pen, x: float, y: float, on: RGB, radius: float = 0.07) -> None:
    pen.arc(x, y + radius * 0.3, radius, radius, math.pi, math.tau, WHITE if is_dark(on) else BLACK, 0.04)


# ---------------------------------------------------------------- heads and tails of quadrupeds


def _ear(fig: _Figure, x: float, y: float) -> None:
    """One ear rooted at (x, y), of the shape that the build asks for."""
    pen, coat, dim = fig.pen, fig.coat, shade(fig.coat, 0.7)
    match fig.build.ears:
        case "point":
            pen.poly([(x - 0.09, y - 0.02), (x + 0.09, y - 0.02), (x - 0.01, y + 0.19)], coat)
            pen.poly([(x - 0.04, y), (x + 0.04, y), (x - 0.005, y + 0.11)], ROSE, outline=False)
        case "flop":
            pen.ellipse(x - 0.03, y - 0.1, 0.08, 0.18, dim, angle=0.25)
        case "long":
            pen.ellipse(x - 0.03, y + 0.2, 0.065, 0.27, coat, angle=0.15)
            pen.ellipse(x - 0.03, y + 0.2, 0.03, 0.19, ROSE, angle=0.15, outline=False)
        case "round":
            pen.ellipse(x, y + 0.03, 0.08, 0.08, dim)
        case "saucer":
            pen.ellipse(x, y + 0.06, 0.13, 0.13, dim)
            pen.ellipse(x, y + 0.06, 0.08, 0.08, ROSE, outline=False)
        case "small":
            pen.poly([(x - 0.045, y - 0.02), (x + 0.045, y - 0.02), (x, y + 0.13)], coat)
        case "plume":
            pen.poly([(x - 0.05, y - 0.03), (x + 0.06, y - 0.03), (x - 0.01, y + 0.13)], dim)
        case "side":
            pen.ellipse(x - 0.08, y - 0.05, 0.1, 0.045, dim, angle=0.2)
        case _:
            pen.ellipse(x - 0.16, y - 0.2, 0.22, 0.3, shade(coat, 0.82))


def _headgear(fig: _Figure, x: float, y: float) -> None:
    """Horns or antlers, rooted behind the skull at (x, y)."""
    pen, top = fig.pen, y + fig.build.head * 0.8
    if fig.has("horns"):
        pen.line([(x - 0.02, top), (x + 0.03, top + 0.16)], HORN, 0.055)
    if fig.has("swept horns"):
        for dx in (-0.07, 0.03):
            curl = [
                (x + dx, top - 0.03),
                (x + dx, top + 0.12),
                (x + dx - 0.09, top + 0.22),
                (x + dx - 0.2, top + 0.24),
            ]
            pen.line(curl, shade(HORN, 0.75), 0.055)
    if fig.has("antlers"):
        for dx in (-0.16, 0.12):
            beam = [(x + dx * 0.3, top - 0.02), (x + dx, top + 0.16), (x + dx * 0.8, top + 0.42)]
            pen.line(beam, ANTLER, 0.04)
            pen.line([(x + dx, top + 0.16), (x + dx * 2.1, top + 0.3)], ANTLER, 0.035)
            pen.line([(x + dx * 0.9, top + 0.28), (x + dx * 0.1, top + 0.4)], ANTLER, 0.035)


def _trunk(fig: _Figure, x: float, y: float, *, lying: bool) -> None:
    pen, r = fig.pen, fig.build.head
    points = [(x + r * 0.7, y), (x + r * 1.25, y - 0.2), (x + r * 1.25, y - 0.5), (x + r * 1.5, y - 0.6)]
    if lying:
        points = [(x + r * 0.7, y), (x + r * 1.2, y - 0.2), (x + r * 1.7, y - 0.26), (x + r * 2.3, y - 0.24)]
    pen.line(points, shade(fig.coat, 0.9), 0.14)
    pen.line([(x + r * 0.6, y - 0.18), (x + r * 1.1, y - 0.32)], (255, 255, 240), 0.06)


def _whiskers(fig: _Figure, x: float, y: float) -> None:
    colour = WHITE if is_dark(fig.coat) else shade(fig.coat, 0.45)
    for rise in (-0.08, 0.0, 0.08):
        fig.pen.line([(x - 0.05, y), (x + 0.15, y + rise)], colour, 0.015)


def _muzzle(fig: _Figure, x: float, y: float) -> None:
    build, r = fig.build, fig.build.head
    if fig.has("beard"):
        tip = x + r * 0.6 + build.snout * 0.5
        fig.pen.poly(
            [(tip - 0.05, y - r * 0.4), (tip + 0.08, y - r * 0.5), (tip, y - r * 0.5 - 0.24)],
            tint(fig.coat, 0.4),
        )
    if build.snout > 0.05:
        fill = tint(fig.coat, 0.45) if fig.has("pale face") else _face_colour(fig)
        across = build.snout * 0.75
        fig.pen.ellipse(x + r * 0.6 + build.snout * 0.4, y - r * 0.28, across, r * 0.48, fill, angle=-0.15)


def _face_colour(fig: _Figure) -> RGB:
    return (62, 56, 56) if fig.has("wool") else tint(fig.coat, 0.08)


def _eye(fig: _Figure, x: float, y: float, *, shut: bool) -> None:
    if shut:
        _shut_eye(fig.pen, x, y, _face_colour(fig))
    else:
        _round_eye(fig.pen, x, y, 0.06 if fig.build.head > 0.15 else 0.05)


def _nose(fig: _Figure, x: float, y: float) -> None:
    pen = fig.pen
    if fig.has("pale"):
        pen.ellipse(x, y - 0.03, 0.07, 0.1, shade(fig.coat, 0.86))
        for dx in (-0.025, 0.03):
            pen.ellipse(x + dx, y - 0.03, 0.016, 0.035, shade(fig.coat, 0.4), outline=False)
    else:
        fill = (238, 120, 145) if fig.has("pink nose") else BLACK
        pen.ellipse(x, y, 0.05, 0.045, fill, outline=False)


def _head(fig: _Figure, x: float, y: float, *, shut: bool = False) -> None:
    """Draw a head centred on (x, y), in profile."""
    pen, build, r = fig.pen, fig.build, fig.build.head
    hanging = build.ears in {"flop", "huge"}
    if fig.has("ruff"):
        pen.ellipse(x - 0.04, y, r * 1.7, r * 1.7, (150, 80, 25))
    if not hanging:
        _ear(fig, x - r * 0.55, y + r * 0.72)
    _headgear(fig, x, y)
    _muzzle(fig, x, y)
    pen.ellipse(x, y, r, r * 0.95, _face_colour(fig))
    _ear(fig, x - r * 0.3, y + r * 0.6) if hanging else _ear(fig, x + r * 0.35, y + r * 0.78)
    if fig.has("wool"):
        pen.ellipse(x - r * 0.2, y + r * 0.85, 0.12, 0.08, fig.coat)
    if fig.has("trunk"):
        _trunk(fig, x, y, lying=shut)
    if fig.has("stripes"):
        for step in (-0.5, -0.05):
            pen.line([(x + r * step, y + r * 0.9), (x + r * step, y + r * 0.42)], BLACK, 0.04)
    _eye(fig, x + r * 0.4, y + r * 0.2, shut=shut)
    if not fig.has("trunk"):
        _nose(fig, x + r * 0.75 + build.snout * 0.9, y - r * 0.15)
    if fig.has("whiskers"):
        _whiskers(fig, x + r * 0.75, y - r * 0.3)


def _plume(pen: Pen, x: float, y: float, coat: RGB) -> None:
    """Draw a squirrel's tail: taller than the squirrel, and curling over at the tip."""
    pale = tint(coat, 0.25)
    pen.ellipse(x - 0.14, y + 0.28, 0.2, 0.4, pale, angle=0.15)
    pen.ellipse(x - 0.27, y + 0.6, 0.19, 0.16, pale, angle=0.5)
    pen.ellipse(x - 0.15, y + 0.32, 0.08, 0.3, shade(coat, 0.85), angle=0.15, outline=False)


def _tail(fig: _Figure, x: float, y: float) -> None:
    """Draw a tail rooted at (x, y), with room below it to hang."""
    pen, coat = fig.pen, fig.coat
    match fig.build.tail:
        case "wag":
            pen.line([(x + 0.05, y), (x - 0.1, y + 0.12), (x - 0.14, y + 0.32)], coat, 0.085)
        case "long":
            points = [(x + 0.05, y), (x - 0.15, y + 0.02), (x - 0.25, y + 0.2), (x - 0.2, y + 0.42)]
            pen.line(points, coat, 0.065)
        case "hair":
            fill = (70, 66, 64) if is_dark(coat) else shade(coat, 0.5)
            pen.line([(x + 0.05, y), (x - 0.1, y - 0.08), (x - 0.12, y - 0.38)], fill, 0.1)
        case "thin":
            pen.line([(x + 0.05, y), (x - 0.06, y - 0.1), (x - 0.06, y - 0.34)], shade(coat, 0.7), 0.045)
        case "tuft":
            pen.line([(x + 0.05, y), (x - 0.15, y + 0.02), (x - 0.22, y + 0.2)], coat, 0.045)
            pen.ellipse(x - 0.22, y + 0.24, 0.06, 0.08, (120, 70, 30))
        case "puff":
            pen.ellipse(x, y, 0.085, 0.085, tint(coat, 0.6))
        case "bush":
            pen.ellipse(x - 0.18, y + 0.06, 0.26, 0.11, coat, angle=-0.5)
            pen.ellipse(x - 0.34, y + 0.15, 0.09, 0.07, tint(coat, 0.9), angle=-0.5, outline=False)
        case "curl":
            pen.arc(x - 0.06, y + 0.02, 0.065, 0.065, 0, 5.5, shade(coat, 0.75), 0.035)
        case "plume":
            _plume(pen, x, y, coat)


def _resting_tail(fig: _Figure, x: float) -> None:
    """Draw the tail of an animal whose rump is on the ground at x."""
    pen, coat = fig.pen, fig.coat
    match fig.build.tail:
        case "puff":
            pen.ellipse(x - 0.03, 0.14, 0.09, 0.09, tint(coat, 0.6))
        case "plume":
            _plume(pen, x, 0.1, coat)
        case "bush":
            pen.ellipse(x - 0.18, 0.13, 0.26, 0.1, coat, angle=-0.2)
            pen.ellipse(x - 0.36, 0.17, 0.09, 0.07, tint(coat, 0.9), outline=False)
        case "none":
            pass
        case "curl":
            _tail(fig, x, 0.25)
        case _:
            pen.line([(x + 0.1, 0.06), (x - 0.16, 0.05), (x - 0.26, 0.18)], shade(coat, 0.8), 0.07)


# ---------------------------------------------------------------- bodies of quadrupeds


def _marks_on_body(fig: _Figure, at: Callable[[float, float], Point], rx: float, ry: float) -> None:
    """Stripes, patches, spots or wool; `at` maps the unit disc to the body."""
    pen, coat = fig.pen, fig.coat
    if fig.has("stripes"):
        for u in (-0.65, -0.35, -0.05, 0.25, 0.55):
            high = math.sqrt(1 - u * u) * 0.9
            pen.line([at(u, high), at(u + 0.08, -high * 0.35)], BLACK, 0.055)
    if fig.has("patches"):
        patch = (48, 44, 44) if sum(coat) > 500 else tint(coat, 0.8)
        for u, v in ((-0.45, 0.2), (0.3, 0.35), (0.0, -0.45)):
            pen.ellipse(*at(u, v), rx * 0.22, ry * 0.28, patch, outline=False)
    if fig.has("spots"):
        for u, v in (
            (-0.6, 0.1),
            (-0.3, 0.5),
            (-0.2, -0.3),
            (0.1, 0.2),
            (0.4, 0.5),
            (0.45, -0.2),
            (-0.5, -0.4),
        ):
            pen.ellipse(*at(u, v), 0.07, 0.06, (150, 95, 40), outline=False)
    if fig.has("fawn spots"):
        for u, v in ((-0.6, 0.3), (-0.3, 0.5), (-0.35, 0.05), (0.0, 0.3)):
            pen.ellipse(*at(u, v), 0.028, 0.028, tint(coat, 0.7), outline=False)
    if fig.has("wool"):
        for i in range(12):
            angle = math.tau * i / 12
            pen.ellipse(*at(0.9 * math.cos(angle), 0.9 * math.sin(angle)), 0.11, 0.11, coat, outline=False)
        for u, v in ((-0.5, 0.3), (0.0, 0.45), (0.4, 0.05), (-0.3, -0.3), (0.1, -0.15)):
            x, y = at(u, v)
            pen.arc(x, y, 0.065, 0.065, 0, math.pi, tint(coat, 0.4) if is_dark(coat) else shade(coat, 0.75), 0.025)


def _body(fig: _Figure, x: float, y: float, rx: float, ry: float, angle: float = 0.0) -> None:
    c, s = math.cos(angle), math.sin(angle)

    def at(u: float, v: float) -> Point:
        return x + rx * u * c - ry * v * s, y + rx * u * s + ry * v * c

    if fig.has("hump"):
        base, peak = at(-0.05, 0.9), at(-0.05, 1.25)
        fig.pen.ellipse((base[0] + peak[0]) / 2, (base[1] + peak[1]) / 2, 0.2, 0.25, shade(fig.coat, 0.92), angle=angle)
    fig.pen.ellipse(x, y, rx, ry, fig.coat, angle=angle)
    if fig.has("bib"):
        fig.pen.ellipse(*at(0.62, -0.3), rx * 0.28, ry * 0.5, tint(fig.coat, 0.45), angle=angle, outline=False)
    _marks_on_body(fig, at, rx, ry)


def _leg_colour(fig: _Figure) -> RGB:
    return (80, 72, 70) if fig.has("wool") else fig.coat


def _limb(fig: _Figure, points: Sequence[Point], *, far: bool = False) -> None:
    """Draw a leg through `points`; the `far` ones are in the shade."""
    fig.pen.line(points, shade(_leg_colour(fig), 0.68 if far else 0.86), fig.build.limb)


def _legs_down(fig: _Figure, hips: Sequence[float], top: float) -> None:
    """Straight legs from y = `top` to the ground, every other one on the far side."""
    for i, x in enumerate(hips):
        _limb(fig, [(x, top), (x, 0.04)], far=i % 2 == 1)


def _neck(fig: _Figure, start: Point, end: Point) -> None:
    """Draw a neck with its mane and marks; `end` is the middle of the head."""
    pen, build, coat = fig.pen, fig.build, fig.coat
    (x0, y0), (x1, y1) = start, end
    pen.line([start, end], coat, 0.24 if build.neck < 0.6 else 0.17)
    along = [(x0 + (x1 - x0) * t, y0 + (y1 - y0) * t) for t in (0.3, 0.5, 0.7)]
    if fig.has("spots"):
        for x, y in along:
            pen.ellipse(x, y, 0.05, 0.05, (150, 95, 40), outline=False)
    span = math.hypot(x1 - x0, y1 - y0) or 1.0
    across = -(y1 - y0) / span, (x1 - x0) / span
    if fig.has("stripes") and build.neck > 0.1:
        for x, y in along:
            bar = across[0] * 0.1, across[1] * 0.1
            pen.line([(x - bar[0], y - bar[1]), (x + bar[0], y + bar[1])], BLACK, 0.05)
    if fig.has("mane"):
        hair = (95, 88, 84) if is_dark(coat) else shade(coat, 0.4)
        off = across[0] * 0.12, across[1] * 0.12
        pen.line([(x0 + off[0], y0 + off[1]), (x1 + off[0], y1 + off[1])], hair, 0.1)


def _raised_head(fig: _Figure, x: float, y: float, angle: float) -> None:
    """Draw a neck that leaves the shoulder (x, y) at `angle`, and an awake head on it."""
    build = fig.build
    head_x = x + build.neck * math.cos(angle) + build.head * 0.45
    head_y = y + build.neck * math.sin(angle) + build.head * 0.5
    if build.neck > 0.1:
        _neck(fig, (x - 0.06, y - 0.1), (head_x - build.head * 0.3, head_y))
    _head(fig, head_x, head_y)


def _neck_angle(build: Build) -> float:
    return 0.9 if build.neck < 0.6 else 1.15


# ---------------------------------------------------------------- poses of quadrupeds


def _stand(fig: _Figure) -> None:
    build = fig.build
    y = build.leg + build.depth * 0.45
    length = build.length
    _tail(fig, -length * 0.5, y + build.depth * 0.2)
    _legs_down(fig, (-length * 0.38, -length * 0.25, length * 0.25, length * 0.38), y - build.depth * 0.2)
    if fig.has("udder"):
        fig.pen.ellipse(-length * 0.12, y - build.depth * 0.5, 0.11, 0.08, ROSE)
    _body(fig, 0, y, length * 0.54, build.depth * 0.52)
    _raised_head(fig, length * 0.42, y + build.depth * 0.22, _neck_angle(build))


def _sleep(fig: _Figure) -> None:
    build = fig.build
    length, depth, r = build.length, build.depth, build.head
    _resting_tail(fig, -length * 0.52)
    _body(fig, -0.05, depth * 0.46, length * 0.6, depth * 0.46)
    _limb(fig, [(-length * 0.28, 0.06), (-length * 0.02, 0.05)])
    head_x = length * 0.5 + r * 0.1
    if build.neck > 0.2:
        head_x += build.neck * 0.4
        _neck(fig, (length * 0.25, depth * 0.4), (head_x, r * 0.8))
    _limb(fig, [(length * 0.25, 0.06), (head_x + r * 0.7, 0.05)])
    raised = 1.6 if fig.has("ruff") else 1.4 if fig.has("beard") else 1.1 if fig.has("trunk") else 0.8
    _head(fig, head_x, r * raised + 0.04, shut=True)
    tall = build.ears == "long" or fig.has("antlers")
    _zzz(fig.pen, fig.look, head_x + (0.22 if tall else 0.08), r * (raised + 1.2) + 0.15)


def _sit(fig: _Figure) -> None:
    build = fig.build
    depth, angle = build.depth, 1.12
    half = max(build.length * 0.47, 0.34)
    x, y = -0.04, half * 0.92 + 0.04
    chest = x + half * 0.72 * math.cos(angle), y + half * 0.72 * math.sin(angle)
    _resting_tail(fig, x - half * 0.4 - depth * 0.45)
    if not build.small:
        _limb(fig, [(chest[0] + 0.08, chest[1] - 0.12), (half * 0.62, 0.04)], far=True)
    _body(fig, x, y, half, depth * 0.54, angle)
    fig.pen.ellipse(x - half * 0.22, depth * 0.45, depth * 0.55, depth * 0.43, fig.coat)
    _limb(fig, [(x - half * 0.15, 0.06), (half * 0.55, 0.05)])
    if build.small:
        paw = chest[0] + 0.1, chest[1] - 0.2
        _limb(fig, [(chest[0] - 0.02, chest[1] - 0.1), paw, (paw[0] + 0.12, paw[1] + 0.06)])
    else:
        _limb(fig, [(chest[0] + 0.02, chest[1] - 0.12), (half * 0.5, 0.04)])
    _raised_head(fig, chest[0] + 0.03, chest[1] + 0.02, 1.2 if build.neck < 0.6 else 1.4)


def _run(fig: _Figure) -> None:
    build = fig.build
    length, depth = build.length * 1.06, build.depth * 0.94
    leg = max(build.leg, 0.24)
    reach = max(build.leg * 0.85, 0.34)
    y = leg + depth * 0.45 + 0.05
    hip, back, front = y - depth * 0.2, -length * 0.38, length * 0.38
    _speed_lines(fig.pen, -length * 0.5 - 0.3, leg * 0.6, y + depth * 0.5)
    with fig.pen.turned(0.35, (-length * 0.5, y)):
        _tail(fig, -length * 0.5, y + depth * 0.2)
    _limb(fig, [(back, hip), (back + reach * 0.15, hip * 0.5), (back + reach * 0.5, 0.12)], far=True)
    _limb(fig, [(front, hip), (front - reach * 0.1, hip * 0.5), (front - reach * 0.45, 0.12)], far=True)
    _limb(fig, [(back, hip), (back - reach * 0.4, hip * 0.6), (back - reach, 0.1)])
    _limb(fig, [(front, hip), (front + reach * 0.55, hip * 0.75), (front + reach, 0.16)])
    _body(fig, 0, y, length * 0.54, depth * 0.52, 0.06)
    _raised_head(fig, length * 0.43, y + depth * 0.24, _neck_angle(build) - 0.25)


def _jump(fig: _Figure) -> None:
    build, pen = fig.build, fig.pen
    length, depth = build.length, build.depth
    y = build.leg + depth * 0.45
    reach = max(build.leg * 0.75, 0.28)
    hip = y - depth * 0.2
    _shadow(pen, length * 0.45)
    with pen.moved(up=0.6), pen.turned(0.42, (0, y)):
        _tail(fig, -length * 0.5, y + depth * 0.2)
        for far in (True, False):
            shift = 0.1 if far else 0.0
            back, front = -length * 0.38 + shift, length * 0.36 - shift
            _limb(fig, [(back, hip), (back - reach * 0.3, hip - 0.12), (back - reach, hip - 0.16)], far=far)
            _limb(
                fig,
                [(front, hip), (front + reach * 0.7, hip - 0.05), (front + reach * 0.8, hip - 0.2)],
                far=far,
            )
        _body(fig, 0, y, length * 0.54, depth * 0.52)
        _raised_head(fig, length * 0.42, y + depth * 0.22, _neck_angle(build) - 0.2)


def _eat(fig: _Figure) -> None:
    build, pen = fig.build, fig.pen
    length, depth, r = build.length, build.depth, build.head
    scale = 0.6 if build.small else 1.0
    y = build.leg + depth * 0.45
    bend = 0.0 if fig.has("trunk") else 0.75
    reach = r * 1.5 if fig.has("trunk") else r * 0.75 + build.snout * 0.9
    head_x = length * 0.5 + 0.1 + min(build.neck, 0.5) * 0.35
    head_y = 0.7 if fig.has("trunk") else 0.2 * scale + reach * math.sin(bend) * 0.9
    bowl_x = head_x + reach * math.cos(bend) * 0.9 + 0.04
    _tail(fig, -length * 0.5, y + depth * 0.2)
    _legs_down(fig, (-length * 0.38, -length * 0.25, length * 0.2, length * 0.34), y - depth * 0.2)
    _body(fig, 0, y, length * 0.54, depth * 0.52, -0.08)
    _neck(fig, (length * 0.36, y + 0.02), (head_x - 0.04, head_y + 0.04))
    _bowl_back(pen, bowl_x, scale)
    with pen.turned(-bend, (head_x, head_y)):
        _head(fig, head_x, head_y)
    _bowl_front(pen, fig.look, bowl_x, scale)


def _play(fig: _Figure) -> None:
    build, pen = fig.build, fig.pen
    length, depth = build.length, build.depth
    leg = max(build.leg, 0.16)
    y = leg + depth * 0.45
    top = y - depth * 0.2
    radius = 0.17 if build.small else 0.22
    ball_x = length * 0.54 + build.head * 0.6 + radius + 0.14
    _tail(fig, -length * 0.5, y + depth * 0.2)
    _legs_down(fig, (-length * 0.38, -length * 0.25, length * 0.3), top)
    _body(fig, 0, y, length * 0.54, depth * 0.52, 0.1)
    _ball(pen, fig.look.rng, ball_x, radius)
    _limb(fig, [(length * 0.38, y - 0.02), (length * 0.5 + 0.08, y - 0.06), (ball_x - 0.02, radius * 2 + 0.05)])
    _raised_head(fig, length * 0.42, y + depth * 0.28, _neck_angle(build) + 0.1)


_POSE_OF: dict[str, Callable[[_Figure], None]] = {
    "stand": _stand,
    "sleep": _sleep,
    "sit": _sit,
    "run": _run,
    "jump": _jump,
    "eat": _eat,
    "play": _play,
}


def _mix(one: RGB, other: RGB, share: float) -> RGB:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue


def _coat(build: Build, rgb: RGB) -> RGB:
    """Return the colour of the fur: the look's, nudged to what that animal really wears."""
    if "tawny" in build.marks:
        return _mix(rgb, TAN, 0.35)
    return tint(rgb, 0.25) if "pale" in build.marks else rgb


def _quadruped(build: Build) -> Kind:
    def draw(pen: Pen, look: Look) -> None:
        figure = _Figure(pen, look, build, _coat(build, look.rgb))
        _POSE_OF[look.action or "stand"](figure)

    return Kind(
        name=build.nouns[0],
        draw=draw,
        nouns=build.nouns,
        hypernyms=build.hypernyms,
        actions=POSES,
        colours=build.colours,
        size=build.size,
    )


# ---------------------------------------------------------------- birds


def _seeds(pen: Pen, x: float) -> None:
    for i in range(5):
        pen.ellipse(x + 0.1 * i, 0.035 + 0.03 * (i % 2), 0.035, 0.03, (228, 190, 70), outline=False)


def _bird_leg(pen: Pen, x: float, top: float) -> None:
    pen.line([(x, top), (x, 0.02), (x + 0.12, 0.02)], BEAK, 0.05)


def _bird_eye(pen: Pen, x: float, y: float, on: RGB, *, shut: bool) -> None:
    if shut:
        _shut_eye(pen, x, y, on, 0.06)
    else:
        _round_eye(pen, x, y, 0.05)


def _bird_trunk(pen: Pen, look: Look, y: float) -> None:
    """Tail, body and folded wing around height y."""
    colour = look.rgb
    pen.poly([(-0.3, y + 0.06), (-0.68, y + 0.24), (-0.52, y - 0.06)], shade(colour, 0.85))
    pen.ellipse(0, y, 0.42, 0.27, colour, angle=0.12)
    pen.ellipse(-0.07, y + 0.01, 0.24, 0.15, _wing(colour), angle=0.2)


def _wing(colour: RGB) -> RGB:
    return tint(colour, 0.25) if is_dark(colour) else shade(colour, 0.82)


def _flying_bird(pen: Pen, look: Look) -> None:
    colour, y = look.rgb, 0.42
    pen.poly([(-0.12, y + 0.08), (-0.52, y + 0.66), (0.0, y + 0.62), (0.22, y + 0.1)], shade(colour, 0.7))
    pen.poly([(-0.3, y), (-0.76, y + 0.14), (-0.74, y - 0.12)], shade(colour, 0.85))
    pen.ellipse(0, y, 0.43, 0.2, colour)
    pen.poly([(0.54, y + 0.18), (0.78, y + 0.1), (0.54, y + 0.03)], BEAK)
    pen.ellipse(0.42, y + 0.12, 0.18, 0.17, colour)
    pen.poly([(-0.16, y + 0.06), (-0.02, y + 0.78), (0.34, y + 0.62), (0.26, y + 0.05)], _wing(colour))
    _bird_eye(pen, 0.47, y + 0.16, colour, shut=False)


def _songbird_head(pen: Pen, look: Look, x: float, y: float, *, shut: bool) -> None:
    pen.poly([(x + 0.13, y + 0.07), (x + 0.36, y - 0.02), (x + 0.13, y - 0.1)], BEAK)
    pen.ellipse(x, y, 0.19, 0.18, look.rgb)
    _bird_eye(pen, x + 0.07, y + 0.05, look.rgb, shut=shut)


def _duck_head(pen: Pen, look: Look, x: float, y: float, *, shut: bool) -> None:
    colour = (40, 120, 65) if look.colour == "brown" else look.rgb
    pen.poly([(x + 0.1, y + 0.06), (x + 0.42, y), (x + 0.42, y - 0.09), (x + 0.1, y - 0.1)], BEAK)
    pen.ellipse(x, y, 0.18, 0.17, colour)
    _bird_eye(pen, x + 0.06, y + 0.05, colour, shut=shut)


def draw_bird(pen: Pen, look: Look) -> None:
    """Draw a small songbird."""
    if look.action == "fly":
        _flying_bird(pen, look)
        return
    shut = look.action == "sleep"
    y = 0.27 if shut else 0.46
    lean = -0.85 if look.action == "eat" else 0.0
    if not shut:
        _bird_leg(pen, -0.04, y - 0.18)
        _bird_leg(pen, 0.1, y - 0.18)
    with pen.turned(lean, (0, y)):
        _bird_trunk(pen, look, y)
        _songbird_head(pen, look, 0.34, y + (0.16 if shut else 0.28), shut=shut)
    if shut:
        _zzz(pen, look, 0.5, y + 0.4)
    if look.action == "eat":
        _seeds(pen, 0.42)


def draw_duck(pen: Pen, look: Look) -> None:
    """Draw a duck: longer in the neck and flatter in the bill than other birds."""
    shut, swims = look.action == "sleep", look.action == "swim"
    y = 0.27 if shut or swims else 0.44
    if not shut and not swims:
        _bird_leg(pen, -0.04, y - 0.18)
        _bird_leg(pen, 0.1, y - 0.18)
    head = 0.34, y + (0.2 if shut else 0.4)
    with pen.turned(-0.95 if look.action == "eat" else 0.0, (0, y)):
        _bird_trunk(pen, look, y)
        pen.line([(0.26, y + 0.05), head], look.rgb, 0.17)
        _duck_head(pen, look, *head, shut=shut)
    if shut:
        _zzz(pen, look, 0.5, y + 0.44)
    if swims:
        _puddle(pen, 0.8, 0.15)
    if look.action == "eat":
        _seeds(pen, 0.42)


def _upright_penguin(pen: Pen, *, flap: float, shut: bool) -> None:
    coat = (48, 52, 68)
    for x in (-0.12, 0.14):
        pen.ellipse(x, 0.04, 0.14, 0.05, BEAK)
    pen.ellipse(0.24, 0.5, 0.07, 0.27, shade(coat, 0.8), angle=flap)
    pen.ellipse(0, 0.5, 0.32, 0.47, coat)
    pen.ellipse(0.06, 0.43, 0.22, 0.36, WHITE, outline=False)
    pen.poly([(0.18, 1.03), (0.42, 0.95), (0.18, 0.89)], BEAK)
    pen.ellipse(0.02, 0.98, 0.23, 0.21, coat)
    _bird_eye(pen, 0.12, 1.01, coat, shut=shut)
    pen.ellipse(-0.27, 0.52, 0.085, 0.3, shade(coat, 0.8), angle=-flap)


def draw_penguin(pen: Pen, look: Look) -> None:
    """Draw a penguin; asleep it lies on its belly."""
    if look.action == "sleep":
        with pen.moved(right=-0.5), pen.turned(-1.45, (0, 0.3)):
            _upright_penguin(pen, flap=0.2, shut=True)
        _zzz(pen, look, 0.32, 0.6)
    elif look.action == "jump":
        _shadow(pen, 0.36)
        with pen.moved(up=0.45), pen.turned(0.15, (0, 0.5)):
            _upright_penguin(pen, flap=1.0, shut=False)
    else:
        _upright_penguin(pen, flap=0.3, shut=False)


def _chicken_head(pen: Pen, colour: RGB, x: float, y: float, *, shut: bool) -> None:
    for dx in (-0.09, 0.0, 0.09):
        pen.ellipse(x + dx, y + 0.19, 0.06, 0.08, COMB)
    pen.ellipse(x + 0.12, y - 0.13, 0.05, 0.09, COMB)
    pen.poly([(x + 0.12, y + 0.06), (x + 0.33, y - 0.02), (x + 0.12, y - 0.08)], BEAK)
    pen.ellipse(x, y, 0.17, 0.18, colour)
    _bird_eye(pen, x + 0.06, y + 0.04, colour, shut=shut)


def draw_chicken(pen: Pen, look: Look) -> None:
    """Draw a hen with a red comb."""
    colour = look.rgb
    shut = look.action == "sleep"
    y = 0.3 if shut else 0.48
    if not shut:
        _bird_leg(pen, -0.06, y - 0.22)
        _bird_leg(pen, 0.1, y - 0.22)
    with pen.turned(-0.85 if look.action == "eat" else 0.0, (0.05, y)):
        pen.poly([(-0.2, y + 0.05), (-0.62, y + 0.42), (-0.56, y + 0.1), (-0.4, y - 0.1)], shade(colour, 0.8))
        pen.ellipse(0, y, 0.41, 0.3, colour)
        pen.line([(0.24, y + 0.05), (0.32, y + (0.18 if shut else 0.3))], colour, 0.2)
        _chicken_head(pen, colour, 0.32, y + (0.18 if shut else 0.34), shut=shut)
        pen.ellipse(-0.08, y + 0.02, 0.21, 0.14, _wing(colour), angle=0.15)
    if shut:
        _zzz(pen, look, 0.5, y + 0.42)
    if look.action == "eat":
        _seeds(pen, 0.45)


def _owl_face(pen: Pen, colour: RGB, y: float, *, shut: bool) -> None:
    for side in (-1, 1):
        pen.poly([(side * 0.12, y + 0.2), (side * 0.34, y + 0.12), (side * 0.34, y + 0.4)], colour)
        pen.ellipse(side * 0.15, y + 0.02, 0.16, 0.16, tint(colour, 0.65))
        if shut:
            _shut_eye(pen, side * 0.15, y + 0.02, WHITE, 0.09)
        else:
            pen.ellipse(side * 0.15, y + 0.02, 0.1, 0.1, (250, 200, 50), outline=False)
            pen.ellipse(side * 0.15, y + 0.02, 0.06, 0.06, BLACK, outline=False)
    pen.poly([(-0.05, y - 0.06), (0.05, y - 0.06), (0, y - 0.19)], BEAK)


def draw_owl(pen: Pen, look: Look) -> None:
    """Draw an owl, facing the viewer."""
    colour = look.rgb
    flies, shut = look.action == "fly", look.action == "sleep"
    for side in (-1, 1):
        if flies:
            wing = [(0.2, 0.62), (0.62, 0.98), (1.0, 0.9), (0.92, 0.66), (0.72, 0.5), (0.25, 0.32)]
            pen.poly([(side * x, y) for x, y in wing], shade(colour, 0.82))
        pen.line([(side * 0.12, 0.14), (side * 0.12, 0.03)], BEAK, 0.09)
    pen.ellipse(0, 0.45, 0.36, 0.4, colour)
    pen.ellipse(0, 0.36, 0.22, 0.26, tint(colour, 0.45), outline=False)
    for x, y in ((-0.1, 0.42), (0.1, 0.42), (0.0, 0.32), (-0.1, 0.24), (0.1, 0.24)):
        pen.arc(x, y, 0.05, 0.05, math.pi, math.tau, shade(colour, 0.75), 0.025)
    if not flies:
        for side in (-1, 1):
            pen.ellipse(side * 0.34, 0.4, 0.1, 0.29, shade(colour, 0.8), angle=side * 0.15)
    pen.ellipse(0, 0.82, 0.36, 0.28, colour)
    _owl_face(pen, colour, 0.82, shut=shut)
    if shut:
        _zzz(pen, look, 0.4, 0.95)


# ---------------------------------------------------------------- water animals


def draw_fish(pen: Pen, look: Look) -> None:
    """Draw a fish with bubbles."""
    colour, y = look.rgb, 0.35
    fin = shade(colour, 0.8)
    pen.poly([(-0.3, y), (-0.7, y + 0.29), (-0.6, y), (-0.7, y - 0.29)], fin)
    pen.poly([(-0.16, y + 0.2), (0.0, y + 0.44), (0.24, y + 0.2)], fin)
    pen.ellipse(0, y, 0.47, 0.28, colour)
    for i in range(3):
        pen.arc(-0.22 + 0.13 * i, y, 0.12, 0.14, -1.2, 1.2, shade(colour, 0.65), 0.03)
    _round_eye(pen, 0.3, y + 0.07, 0.065)
    pen.arc(0.44, y - 0.1, 0.09, 0.06, 2.6, 4.4, shade(colour, 0.5), 0.03)
    for i in range(3):
        pen.arc(0.6 + 0.07 * i, y + 0.2 + 0.14 * i, 0.045 + 0.012 * i, 0.045 + 0.012 * i, 0, math.tau, FOAM, 0.025)


def draw_whale(pen: Pen, look: Look) -> None:
    """Draw a whale that spouts."""
    colour = look.rgb
    for side in (-1, 1):
        pen.arc(
            0.2 + side * 0.13,
            0.8,
            0.13,
            0.22,
            0 if side < 0 else math.pi,
            math.pi if side < 0 else 0,
            WATER,
            0.07,
        )
    pen.line([(0.2, 0.66), (0.2, 0.98)], FOAM, 0.06)
    tail = [
        (-0.55, 0.3),
        (-0.8, 0.55),
        (-1.06, 0.68),
        (-0.92, 0.76),
        (-0.84, 0.72),
        (-0.76, 0.86),
        (-0.62, 0.8),
    ]
    pen.poly([*tail, (-0.66, 0.6), (-0.35, 0.5)], colour)
    pen.ellipse(0.05, 0.36, 0.68, 0.35, colour)
    belly = [(0.7, 0.27), (0.45, 0.2), (0.0, 0.15), (-0.3, 0.09), (0.0, 0.03), (0.4, 0.06), (0.64, 0.17)]
    pen.poly(belly, tint(colour, 0.7), outline=False)
    pen.ellipse(0.05, 0.14, 0.22, 0.09, shade(colour, 0.8), angle=-0.6)
    _round_eye(pen, 0.46, 0.38, 0.06)
    pen.arc(0.62, 0.3, 0.14, 0.06, 3.4, 5.2, BLACK, 0.025)


def draw_octopus(pen: Pen, look: Look) -> None:
    """Draw an octopus with six arms that show."""
    colour = look.rgb
    for i, x in enumerate((-0.62, -0.38, -0.13, 0.13, 0.38, 0.62)):
        root, side = x * 0.55, 1 if x > 0 else -1
        low = 0.22 if abs(x) > 0.5 else 0.08
        arm = [(root, 0.5), (x * 0.8, 0.3), (x, low), (x + side * 0.15, low + 0.06)]
        pen.line(arm, shade(colour, 0.88 if i % 2 else 0.78), 0.13)
    pen.ellipse(0, 0.78, 0.38, 0.42, colour)
    for side in (-1, 1):
        _round_eye(pen, side * 0.14, 0.7, 0.085)
    pen.arc(0, 0.56, 0.1, 0.06, math.pi, math.tau, BLACK, 0.03)


def draw_crab(pen: Pen, look: Look) -> None:
    """Draw a crab with its claws up."""
    colour = look.rgb
    for side in (-1, 1):
        for i in range(3):
            knee = side * (0.5 + 0.06 * i), 0.34 - 0.08 * i
            pen.line([(side * 0.25, 0.3), knee, (knee[0] + side * 0.08, 0.03)], shade(colour, 0.8), 0.06)
        pen.line([(side * 0.32, 0.38), (side * 0.58, 0.46), (side * 0.56, 0.62)], shade(colour, 0.85), 0.085)
        pen.ellipse(side * 0.54, 0.72, 0.16, 0.14, colour)
        notch = [(side * 0.5, 0.72), (side * 0.42, 0.92), (side * 0.58, 0.92)]
        pen.poly(notch, shade(colour, 0.35), outline=False)
        pen.line([(side * 0.12, 0.48), (side * 0.12, 0.64)], colour, 0.045)
    pen.ellipse(0, 0.34, 0.42, 0.24, colour)
    for side in (-1, 1):
        _round_eye(pen, side * 0.12, 0.67, 0.065)
    pen.arc(0, 0.32, 0.13, 0.08, math.pi, math.tau, BLACK, 0.03)


# ---------------------------------------------------------------- small animals


def _butterfly_wings(pen: Pen, colour: RGB, side: int) -> None:
    pen.ellipse(side * 0.32, 0.6, 0.33, 0.25, colour, angle=side * 0.6)
    pen.ellipse(side * 0.25, 0.24, 0.24, 0.18, shade(colour, 0.88), angle=-side * 0.6)
    pen.ellipse(side * 0.38, 0.65, 0.12, 0.1, tint(colour, 0.55), outline=False)
    pen.ellipse(side * 0.27, 0.23, 0.08, 0.07, tint(colour, 0.55), outline=False)


def draw_butterfly(pen: Pen, look: Look) -> None:
    """Draw a butterfly with open wings."""
    ink = (55, 45, 50)
    with pen.turned(-0.2, (0, 0.42)):
        for side in (-1, 1):
            _butterfly_wings(pen, look.rgb, side)
            pen.line([(0, 0.66), (side * 0.08, 0.8), (side * 0.17, 0.88)], ink, 0.025)
        pen.ellipse(0, 0.4, 0.055, 0.3, ink, outline=False)
        pen.ellipse(0, 0.69, 0.07, 0.07, ink, outline=False)


def _turtle_limbs(pen: Pen, skin: RGB, *, swims: bool) -> None:
    if swims:
        pen.ellipse(0.34, 0.2, 0.11, 0.3, skin, angle=0.9)
        pen.ellipse(-0.42, 0.2, 0.09, 0.2, skin, angle=-0.9)
        return
    pen.poly([(-0.42, 0.2), (-0.62, 0.1), (-0.36, 0.1)], skin)
    for x in (-0.28, 0.28):
        pen.rect(x - 0.1, 0, x + 0.1, 0.24, skin)


def draw_turtle(pen: Pen, look: Look) -> None:
    """Draw a turtle; its shell has the named colour."""
    shell, skin = look.rgb, tint(look.rgb, 0.4)
    shut, swims = look.action == "sleep", look.action == "swim"
    drop = -0.12 if shut else 0.08 if swims else 0.0
    with pen.moved(up=drop):
        if not shut:
            _turtle_limbs(pen, skin, swims=swims)
        head = (0.56, 0.26) if shut else (0.64, 0.44)
        pen.line([(0.3, 0.24), head], skin, 0.15)
        pen.ellipse(*head, 0.17, 0.15, skin)
        dome = [(0.48 * math.cos(a), 0.2 + 0.46 * math.sin(a)) for a in (math.pi * i / 12 for i in range(13))]
        pen.poly(dome, shell)
        for x, y in ((-0.22, 0.38), (0.0, 0.5), (0.22, 0.38)):
            pen.ellipse(x, y, 0.1, 0.09, shade(shell, 0.72), outline=False)
        pen.ellipse(0, 0.2, 0.5, 0.06, shade(shell, 0.8))
        _bird_eye(pen, head[0] + 0.05, head[1] + 0.04, skin, shut=shut)
    if shut:
        _zzz(pen, look, 0.62, 0.4)
    if swims:
        _puddle(pen, 0.85, 0.18)


def _frog_trunk(pen: Pen, colour: RGB) -> None:
    pen.ellipse(-0.02, 0.3, 0.4, 0.26, colour, angle=0.35)
    pen.ellipse(0.12, 0.22, 0.24, 0.14, tint(colour, 0.55), angle=0.3, outline=False)
    pen.ellipse(0.26, 0.5, 0.27, 0.18, colour)
    for x in (0.14, 0.36):
        pen.ellipse(x, 0.66, 0.1, 0.1, colour)
        _round_eye(pen, x + 0.01, 0.67, 0.065)
    pen.arc(0.32, 0.48, 0.16, 0.07, math.pi, math.tau, shade(colour, 0.4), 0.03)


def draw_frog(pen: Pen, look: Look) -> None:
    """Draw a frog, squatting or leaping."""
    colour = look.rgb
    limb = shade(colour, 0.82)
    if look.action == "jump":
        _shadow(pen, 0.42)
        with pen.moved(up=0.42), pen.turned(0.35, (0, 0.3)):
            pen.line([(-0.25, 0.22), (-0.55, 0.3), (-0.62, 0.06), (-0.95, 0.04)], limb, 0.1)
            pen.line([(0.22, 0.2), (0.46, 0.1), (0.62, 0.18)], limb, 0.08)
            _frog_trunk(pen, colour)
        return
    _frog_trunk(pen, colour)
    pen.ellipse(-0.22, 0.2, 0.22, 0.16, limb, angle=0.4)
    pen.line([(-0.34, 0.05), (0.02, 0.04)], limb, 0.08)
    pen.line([(0.2, 0.26), (0.24, 0.04), (0.38, 0.04)], limb, 0.08)


def draw_snail(pen: Pen, look: Look) -> None:
    """Draw a snail; its shell has the named colour."""
    skin = (222, 196, 150)
    body = [(-0.62, 0.0), (-0.4, 0.14), (0.25, 0.16), (0.38, 0.5), (0.6, 0.52), (0.64, 0.2), (0.5, 0.0)]
    pen.poly(body, skin)
    for x in (0.44, 0.58):
        pen.line([(x, 0.48), (x + 0.06, 0.72)], skin, 0.04)
        pen.ellipse(x + 0.06, 0.74, 0.05, 0.05, BLACK, outline=False)
    pen.ellipse(-0.08, 0.42, 0.38, 0.36, look.rgb)
    spiral = [(0.03 * t * math.cos(t), 0.028 * t * math.sin(t)) for t in (0.6 * i for i in range(2, 18))]
    pen.line([(x - 0.08, y + 0.42) for x, y in spiral], shade(look.rgb, 0.55), 0.045)
    pen.arc(0.56, 0.34, 0.08, 0.06, math.pi, math.tau, BLACK, 0.025)


# ---------------------------------------------------------------- the table

BIRD = ("animal", "bird")
SEA = ("animal", "sea animal")

KINDS: tuple[Kind, ...] = (
    *(_quadruped(build) for build in BUILDS),
    Kind(
        name="bird",
        draw=draw_bird,
        nouns=("bird", "birdie", "sparrow", "songbird"),
        hypernyms=("animal",),
        actions=("stand", "fly", "eat", "sleep"),
        colours=("red", "blue", "yellow", "green", "black", "white", "brown"),
        size=0.6,
    ),
    Kind(
        name="duck",
        draw=draw_duck,
        nouns=("duck", "duckling", "ducky"),
        hypernyms=BIRD,
        actions=("stand", "swim", "eat", "sleep"),
        colours=("yellow", "white", "brown"),
        size=0.7,
    ),
    Kind("penguin", draw_penguin, ("penguin",), BIRD, ("stand", "jump", "sleep"), size=0.9),
    Kind(
        name="chicken",
        draw=draw_chicken,
        nouns=("chicken", "hen", "rooster"),
        hypernyms=(*FARM, "bird"),
        actions=("stand", "eat", "sleep"),
        colours=("white", "brown", "black"),
        size=0.7,
    ),
    Kind(
        name="owl",
        draw=draw_owl,
        nouns=("owl",),
        hypernyms=BIRD,
        actions=("stand", "fly", "sleep"),
        colours=("brown", "white", "gray"),
        size=0.7,
    ),
    Kind(
        name="fish",
        draw=draw_fish,
        nouns=("fish", "goldfish"),
        hypernyms=SEA,
        actions=("swim",),
        colours=("red", "blue", "yellow", "orange", "green", "purple"),
        zone="water",
        size=0.65,
    ),
    Kind(
        name="butterfly",
        draw=draw_butterfly,
        nouns=("butterfly",),
        hypernyms=("animal", "insect"),
        actions=("fly",),
        colours=("yellow", "blue", "orange", "pink", "purple", "white"),
        zone="sky",
        size=0.5,
    ),
    Kind(
        name="turtle",
        draw=draw_turtle,
        nouns=("turtle", "tortoise"),
        hypernyms=("animal", "reptile"),
        actions=("stand", "swim", "sleep"),
        colours=("green", "brown"),
        size=0.65,
    ),
    Kind("frog", draw_frog, ("frog", "toad"), ("animal",), ("sit", "jump"), ("green",), size=0.55),
    Kind("snail", draw_snail, ("snail",), ("animal",), (), ("brown", "yellow", "pink"), size=0.5),
    Kind("crab", draw_crab, ("crab",), SEA, (), ("red", "orange"), size=0.6),
    Kind("whale", draw_whale, ("whale",), SEA, ("swim",), ("blue", "gray", "black"), zone="water", size=1.5),
    Kind(
        name="octopus",
        draw=draw_octopus,
        nouns=("octopus",),
        hypernyms=SEA,
        actions=("swim",),
        colours=("purple", "red", "orange", "pink"),
        zone="water",
        size=0.95,
    ),
)
"""Every animal, quadrupeds first."""
