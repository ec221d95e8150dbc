"""People of the picture book: men, women, boys, girls, babies, and a robot.

A person is a set of proportions and colours (`Body`); a pose is a function that draws a body with its props.
Limbs are given by joint angles, measured from straight down and growing forwards (to the right), so that one
pose fits adults and children alike. A person's colour is that of the shirt or the dress.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .canvas import COLOURS, RGB, Pen, Point, is_dark, jitter, shade, tint
from .kinds import PAINT, Kind, Look

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from random import Random

SKIN: tuple[RGB, ...] = ((250, 215, 185), (225, 175, 135), (172, 118, 82), (134, 90, 62))
HAIR: tuple[RGB, ...] = ((45, 30, 25), (110, 65, 30), (230, 190, 90), (165, 70, 30))
TROUSERS: tuple[RGB, ...] = ((50, 60, 100), (78, 80, 86), (115, 92, 66))
SHOES: RGB = (52, 40, 38)
INK: RGB = (25, 22, 24)
WOOD: RGB = (140, 95, 55)
PAPER: RGB = (252, 250, 240)
STEEL: RGB = (95, 98, 105)


@dataclass(frozen=True)
class Body:
    """One person's proportions and colours, in figure units."""

    female: bool
    child: bool
    clothes: RGB
    skin: RGB
    hair: RGB
    trousers: RGB
    extra: str
    """What else is about the head: "beard", "hat", "bun", "cap" or nothing."""
    rng: Random

    @property
    def scale(self) -> float:
        """Size of limbs and props beside an adult's."""
        return 0.68 if self.child else 1.0

    @property
    def hip(self) -> float:
        """Height of the hip when standing."""
        return 0.6 * self.scale

    @property
    def shoulder(self) -> float:
        """Height of the shoulders when standing."""
        return 1.06 * self.scale

    @property
    def radius(self) -> float:
        """Radius of the head: children's are bigger."""
        return 0.215 if self.child else 0.155

    @property
    def head(self) -> Point:
        """Centre of the head when standing."""
        return 0.02, self.shoulder + 0.02 + self.radius

    @property
    def limb(self) -> float:
        """Thickness of an arm."""
        return 0.035 + 0.07 * self.scale


def _body(look: Look, *, female: bool, child: bool) -> Body:
    rng = look.rng
    extras = {
        (False, False): ("beard", "hat", "beard", ""),
        (True, False): ("", "", "bun"),
        (False, True): ("cap", "", ""),
        (True, True): ("",),
    }
    return Body(
        female=female,
        child=child,
        clothes=look.rgb,
        skin=jitter(rng.choice(SKIN), rng, 6),
        hair=jitter(rng.choice(HAIR), rng, 8),
        trousers=jitter(rng.choice(TROUSERS), rng, 8),
        extra=rng.choice(extras[female, child]),
        rng=rng,
    )


def _reach(start: Point, angles: Sequence[float], lengths: Sequence[float]) -> list[Point]:
    """Find the joints of a limb from `start`, each bone at its angle from straight down."""
    points = [start]
    for angle, length in zip(angles, lengths, strict=True):
        x, y = points[-1]
        points.append((x + length * math.sin(angle), y - length * math.cos(angle)))
    return points


def _leg(pen: Pen, body: Body, thigh: float, shin: float, *, x: float = 0.0, far: bool = False) -> None:
    """Draw a leg with its shoe: trousers on men, shorts on boys, bare on women and girls."""
    s = body.scale
    points = _reach((x * s, body.hip), (thigh, shin), (0.29 * s, 0.28 * s))
    cloth = shade(body.trousers, 0.8) if far else body.trousers
    skin = shade(body.skin, 0.88) if far else body.skin
    bare = body.female or body.child
    pen.line(points, skin if bare else cloth, body.limb * (0.95 if bare else 1.2))
    if body.child and not body.female:
        pen.line(points[:2], cloth, body.limb * 1.5)
    foot = points[-1]
    toe = shin + 1.4
    pen.line(
        [foot, (foot[0] + 0.12 * s * math.sin(toe), foot[1] - 0.12 * s * math.cos(toe))],
        SHOES,
        body.limb * 0.8,
    )


def _arm(pen: Pen, body: Body, upper: float, fore: float, *, x: float = 0.0) -> Point:
    """Draw an arm (long sleeves on men, short ones on others) and return where the hand is."""
    s = body.scale
    start = (x * s, body.shoulder - 0.06 * s)
    points = _reach(start, (upper, fore), (0.23 * s, 0.23 * s))
    sleeve = shade(body.clothes, 0.86)
    if body.female or body.child:
        pen.line(points, body.skin, body.limb * 0.8)
        pen.line([start, _reach(start, (upper,), (0.13 * s,))[-1]], sleeve, body.limb * 1.1)
    else:
        pen.line(points, sleeve, body.limb * 0.95)
    pen.ellipse(*points[-1], body.limb * 0.55, body.limb * 0.55, body.skin)
    return points[-1]


def _torso(pen: Pen, body: Body, *, seated: bool = False, sway: float = 0.0) -> None:
    """Draw a shirt or dress; `seated` lays the skirt over the knees, `sway` swings it."""
    s, top, hip = body.scale, body.shoulder, body.hip
    if not body.female:
        wide = 0.2 * s if not body.child else 0.17 * s
        pen.poly(
            [(-wide, top), (wide, top), (wide * 0.86, hip - 0.05 * s), (-wide * 0.86, hip - 0.05 * s)],
            body.clothes,
        )
        return
    chest, waist = 0.15 * s, 0.11 * s
    hem = [(0.31 * s + sway, hip - 0.2 * s), (-0.31 * s + sway, hip - 0.2 * s)]
    if seated:
        hem = [(0.3 * s, hip + 0.09 * s), (0.38 * s, hip - 0.1 * s), (-0.18 * s, hip - 0.08 * s)]
    middle = hip + 0.17 * s
    pen.poly([(-waist, middle), (-chest, top), (chest, top), (waist, middle), *hem], body.clothes)


def _hair_behind(pen: Pen, body: Body, x: float, y: float) -> None:
    r = body.radius
    if not body.female:
        return
    if body.child:
        for side in (-1, 1):
            pen.ellipse(x + side * r * 1.35, y - r * 0.05, r * 0.34, r * 0.62, body.hair, angle=side * 0.5)
            pen.ellipse(x + side * r * 1.05, y + r * 0.42, r * 0.2, r * 0.2, body.clothes)
        return
    if body.extra == "bun":
        pen.ellipse(x - r * 0.3, y + r * 1.2, r * 0.5, r * 0.45, body.hair)
    pen.poly(
        [
            (x - r * 0.8, y + r * 0.9),
            (x + r * 0.8, y + r * 0.9),
            (x + r * 1.3, y - r * 0.4),
            (x + r * 1.15, y - r * 1.9),
            (x - r * 1.3, y - r * 1.9),
            (x - r * 1.4, y - r * 0.4),
        ],
        body.hair,
    )


def _hair_before(pen: Pen, body: Body, x: float, y: float) -> None:
    r = body.radius
    fringe = [(-1.04, 0.0), (-0.85, 0.75), (-0.4, 1.1), (0.3, 1.15), (0.85, 0.75), (1.02, 0.1), (0.35, 0.52)]
    if body.child and not body.female:
        fringe = [(-1.04, 0.0), (-1.0, 0.8), (-0.6, 0.9), (-0.4, 1.3), (0.0, 1.1), (0.4, 1.35), (0.6, 0.95)]
        fringe += [(1.05, 0.8), (0.95, 0.3), (0.3, 0.5)]
    pen.poly([(x + u * r, y + v * r) for u, v in fringe], body.hair, outline=False)


def _headwear(pen: Pen, body: Body, x: float, y: float) -> None:
    r = body.radius
    if body.extra == "hat":
        felt = (96, 70, 52)
        pen.poly([(x + u * r, y + v * r) for u, v in ((-0.8, 0.6), (-0.65, 1.6), (0.65, 1.6), (0.8, 0.6))], felt)
        pen.ellipse(x, y + r * 0.62, r * 1.5, r * 0.2, felt)
    elif body.extra == "cap":
        pen.poly(
            [(x + u * r, y + v * r) for u, v in ((-1, 0.5), (-0.7, 1.1), (0, 1.3), (0.7, 1.1), (1, 0.5))],
            body.clothes,
        )
        pen.line([(x + r * 0.5, y + r * 0.52), (x + r * 1.6, y + r * 0.45)], shade(body.clothes, 0.8), r * 0.22)


def _beard(pen: Pen, body: Body, x: float, y: float) -> None:
    r = body.radius
    shape = (
        (-0.98, 0.0),
        (-0.55, -0.35),
        (0.25, -0.3),
        (0.98, -0.05),
        (0.85, -0.85),
        (0.2, -1.35),
        (-0.6, -1.05),
    )
    pen.poly([(x + u * r, y + v * r) for u, v in shape], body.hair, outline=False)


def _face(pen: Pen, body: Body, x: float, y: float, mood: str) -> None:
    """Draw eyes and mouth; `mood` is "awake", "asleep" or "eating"."""
    r = body.radius
    for dx in (-0.2, 0.5):
        if mood == "asleep":
            pen.arc(x + dx * r, y + 0.1 * r, 0.2 * r, 0.18 * r, math.pi, math.tau, INK, 0.025)
        else:
            pen.ellipse(x + dx * r, y + 0.08 * r, 0.14 * r, 0.18 * r, INK, outline=False)
    lips = (200, 40, 60) if body.female and not body.child else (150, 50, 45)
    if mood == "eating":
        pen.ellipse(x + 0.25 * r, y - 0.48 * r, 0.22 * r, 0.2 * r, (120, 30, 35), outline=False)
    else:
        pen.arc(x + 0.2 * r, y - 0.36 * r, 0.32 * r, 0.22 * r, math.pi, math.tau, lips, max(0.022, r * 0.15))


def _head(pen: Pen, body: Body, mood: str = "awake", at: Point | None = None) -> None:
    x, y = at or body.head
    r = body.radius
    _hair_behind(pen, body, x, y)
    pen.ellipse(x, y, r, r * 1.06, body.skin)
    if body.extra == "beard":
        _beard(pen, body, x, y)
    _face(pen, body, x, y, mood)
    _hair_before(pen, body, x, y)
    if mood != "asleep":
        _headwear(pen, body, x, y)


def _upright(pen: Pen, x: float, points: Sequence[Point]) -> list[Point]:
    """`points` (relative to column `x`) so that they read the same in a mirrored figure."""
    flip = -1 if pen.mirrored else 1
    return [(x + flip * u, v) for u, v in points]


def _snore(pen: Pen, x: float, y: float, rng: Random) -> None:
    """Write Z Z Z, growing as they rise."""
    ink = rng.choice(((255, 255, 255), (70, 90, 220), (40, 40, 90)))
    for i in range(3):
        half = 0.05 + 0.022 * i
        bottom = y + 0.17 * i
        zed = [(-half, bottom + 2 * half), (half, bottom + 2 * half), (-half, bottom), (half, bottom)]
        pen.line(_upright(pen, x + 0.17 * i, zed), ink, 0.04)


def _note(pen: Pen, x: float, y: float) -> None:
    """Draw a musical note."""
    pen.line(_upright(pen, x, [(0.05, y), (0.05, y + 0.2), (0.14, y + 0.13)]), INK, 0.03)
    pen.ellipse(_upright(pen, x, [(0, y)])[0][0], y, 0.06, 0.045, INK, outline=False)


def _chair(pen: Pen, s: float) -> None:
    pen.rect(-0.3 * s, 0, -0.22 * s, 0.95 * s, shade(WOOD, 0.85))
    pen.rect(0.17 * s, 0, 0.24 * s, 0.28 * s, shade(WOOD, 0.85))
    pen.rect(-0.3 * s, 0.25 * s, 0.26 * s, 0.33 * s, WOOD)


def _seated(pen: Pen, body: Body) -> None:
    """Legs and trunk on a chair; to be drawn lowered by a chair's height."""
    _leg(pen, body, 1.5, 0.1, far=True, x=0.02)
    _leg(pen, body, 1.5, 0.0)
    _torso(pen, body, seated=True)


def _standing(pen: Pen, body: Body) -> None:
    _leg(pen, body, -0.06, -0.04, x=-0.09, far=True)
    _leg(pen, body, 0.06, 0.04, x=0.09)
    _torso(pen, body)


def _stand(pen: Pen, body: Body) -> None:
    _arm(pen, body, -0.35, -0.15, x=-0.15)
    _standing(pen, body)
    _arm(pen, body, 0.35, 0.15, x=0.15)
    _head(pen, body)


def _wave(pen: Pen, body: Body) -> None:
    _arm(pen, body, -0.35, -0.15, x=-0.15)
    _standing(pen, body)
    _head(pen, body)
    x, y = _arm(pen, body, 1.5, 2.2, x=0.18) if body.child else _arm(pen, body, 1.9, 2.8, x=0.15)
    s = body.scale
    pen.ellipse(x, y + 0.03, 0.08 * s + 0.02, 0.09 * s + 0.02, body.skin)
    for start, end in ((-0.5, 0.6), (math.pi - 0.6, math.pi + 0.5)):
        pen.arc(x, y + 0.05, 0.19, 0.19, start, end, (255, 255, 255), 0.04)


def _run(pen: Pen, body: Body) -> None:
    s = body.scale
    with pen.moved(up=0.03 * s), pen.turned(-0.16, (0, body.hip)):
        _arm(pen, body, -0.9, 0.5, x=-0.08)
        _leg(pen, body, -0.45, -1.5, far=True)
        _leg(pen, body, 1.15, -0.1)
        _torso(pen, body, sway=-0.06 * s)
        _arm(pen, body, 0.8, 2.1, x=0.05)
        _head(pen, body)
    for height in (0.95, 0.72, 0.5):
        pen.line([(-0.62 * s, height * s), (-0.95 * s, height * s)], (255, 255, 255), 0.035)


def _jump(pen: Pen, body: Body) -> None:
    pen.ellipse(0, 0.03, 0.32, 0.045, (75, 75, 78), outline=False)
    with pen.moved(up=0.34):
        for side in (-1, 1):
            _arm(pen, body, side * 2.4, side * 2.8, x=side * 0.16)
        _leg(pen, body, -0.8, -0.3, x=-0.07, far=True)
        _leg(pen, body, 0.9, -0.5, x=0.07)
        _torso(pen, body)
        _head(pen, body)


def _sit(pen: Pen, body: Body) -> None:
    s = body.scale
    _chair(pen, s)
    with pen.moved(up=-0.22 * s):
        _seated(pen, body)
        _arm(pen, body, 0.2, 1.1)
        _head(pen, body)


def _read(pen: Pen, body: Body) -> None:
    s = body.scale
    cover = COLOURS[body.rng.choice(("red", "blue", "green"))]
    _chair(pen, s)
    with pen.moved(up=-0.22 * s):
        _seated(pen, body)
        _head(pen, body)
        x, y = 0.42 * s, 0.8 * s
        for side in (-1, 1):
            cover_shape = [(0, 0), (side * 0.24, 0.06), (side * 0.24, 0.34), (0, 0.26)]
            page_shape = [(0, 0.04), (side * 0.2, 0.09), (side * 0.2, 0.31), (0, 0.25)]
            pen.poly([(x + u, y + v) for u, v in cover_shape], cover)
            pen.poly([(x + u, y + v) for u, v in page_shape], PAPER, outline=False)
            for height in (0.12, 0.19):
                pen.line([(x + side * 0.04, y + height), (x + side * 0.16, y + height + 0.03)], STEEL, 0.02)
        _arm(pen, body, 0.5, 1.6)


def _sleep(pen: Pen, body: Body) -> None:
    """Lies in a bed, the head on the pillow at the left, under a blanket of the person's colour."""
    s, r = body.scale, body.radius
    end = 1.0 * s
    pen.rect(-0.85 * s - r, 0, -0.77 * s - r, 0.68 * s + 0.05, shade(WOOD, 0.8))
    pen.rect(end, 0, end + 0.08 * s, 0.5 * s, shade(WOOD, 0.8))
    pen.rect(-0.77 * s - r, 0.1 * s, end, 0.24 * s, WOOD)
    pen.rect(-0.77 * s - r, 0.22 * s, end, 0.38 * s, PAPER)
    pen.ellipse(-0.55 * s - r * 0.6, 0.42 * s, 0.2 * s + r * 0.4, 0.11, (235, 240, 252))
    head = (-0.55 * s - r * 0.3, 0.44 * s + r * 0.75)
    with pen.turned(math.pi / 2.6, head):
        _head(pen, body, "asleep", head)
    top = 0.38 * s
    blanket = [
        (-0.42, 0.0),
        (-0.4, 0.2),
        (-0.1, 0.26),
        (0.4, 0.22),
        (0.8, 0.3),
        (0.96, 0.22),
        (0.98, -0.22),
        (-0.42, -0.2),
    ]
    pen.poly([(u * s, top + v * s) for u, v in blanket], body.clothes)
    pen.line([(-0.41 * s, top + 0.02), (-0.4 * s, top + 0.19 * s)], tint(body.clothes, 0.6), 0.08 * s)
    _snore(pen, head[0] + 0.25 * s, head[1] + r + 0.1, body.rng)


def _bicycle(pen: Pen, s: float, paint: RGB) -> None:
    for x in (-0.5, 0.5):
        pen.arc(x * s, 0.29 * s, 0.26 * s, 0.26 * s, 0, math.tau, INK, 0.055)
    frame = ((-0.5, 0.29), (0.0, 0.27), (0.38, 0.66), (-0.16, 0.64), (-0.5, 0.29))
    pen.line([(x * s, y * s) for x, y in frame], paint, 0.055)
    pen.line([(0.5 * s, 0.29 * s), (0.36 * s, 0.86 * s), (0.27 * s, 0.9 * s)], paint, 0.055)
    pen.line([(-0.3 * s, 0.71 * s), (-0.04 * s, 0.71 * s)], INK, 0.06)


def _ride(pen: Pen, body: Body) -> None:
    s = body.scale
    paint = COLOURS[body.rng.choice(("red", "blue", "green", "black"))]
    with pen.moved(right=-0.16 * s, up=0.17 * s):
        _leg(pen, body, 1.1, 0.1, far=True)
    _bicycle(pen, s, paint)
    with pen.moved(right=-0.16 * s, up=0.17 * s):
        _leg(pen, body, 0.65, -0.2)
        with pen.turned(-0.22, (0, body.hip)):
            _torso(pen, body, seated=body.female)
            _arm(pen, body, 0.95, 1.2)
            _head(pen, body)


def _burger(pen: Pen, x: float, y: float) -> None:
    pen.ellipse(x, y + 0.05, 0.17, 0.11, (225, 160, 75))
    pen.rect(x - 0.18, y - 0.02, x + 0.18, y + 0.04, (90, 175, 65), outline=False)
    pen.rect(x - 0.17, y - 0.07, x + 0.17, y - 0.01, (110, 60, 35), outline=False)
    pen.rect(x - 0.16, y - 0.13, x + 0.16, y - 0.07, (225, 160, 75), outline=False)


def _ice_cream(pen: Pen, x: float, y: float) -> None:
    pen.poly([(x - 0.1, y), (x + 0.1, y), (x, y - 0.26)], (222, 165, 90))
    pen.ellipse(x, y + 0.06, 0.13, 0.12, (252, 170, 200))


def _pizza(pen: Pen, x: float, y: float) -> None:
    pen.poly([(x - 0.16, y), (x + 0.2, y + 0.14), (x + 0.2, y - 0.16)], (250, 205, 80))
    pen.line([(x + 0.2, y + 0.15), (x + 0.2, y - 0.17)], (190, 120, 60), 0.06)
    for dx, dy in ((0.02, 0.0), (0.12, 0.06), (0.12, -0.07)):
        pen.ellipse(x + dx, y + dy, 0.03, 0.03, (205, 50, 40), outline=False)


def _eat(pen: Pen, body: Body) -> None:
    food = body.rng.choice((_burger, _ice_cream, _pizza))
    _arm(pen, body, -0.35, -0.15, x=-0.15)
    _standing(pen, body)
    _head(pen, body, "eating")
    x, y = body.head
    food(pen, x + body.radius * 0.95 + 0.1, y - body.radius * 0.5)
    _arm(pen, body, 0.95, 2.5, x=0.1)


def _play(pen: Pen, body: Body) -> None:
    """Kicks a ball."""
    s = body.scale
    ball = COLOURS[body.rng.choice(("red", "blue", "yellow", "orange"))]
    with pen.turned(0.1, (0, 0)):
        _arm(pen, body, -1.1, -0.9, x=-0.12)
        _leg(pen, body, -0.1, -0.15, x=-0.04, far=True)
        _leg(pen, body, 0.8, 1.1, x=0.04)
        _torso(pen, body, sway=0.04 * s)
        _arm(pen, body, 1.1, 1.4, x=0.12)
        _head(pen, body)
    x, y = 0.58 * s + 0.18, 0.3 * s + 0.17
    pen.ellipse(x, y, 0.17, 0.17, ball)
    pen.arc(x - 0.08, y, 0.12, 0.14, -1.1, 1.1, tint(ball, 0.8), 0.035)
    pen.arc(x + 0.16, y, 0.12, 0.14, 2.2, 4.0, tint(ball, 0.8), 0.035)


def _dance(pen: Pen, body: Body) -> None:
    s = body.scale
    with pen.turned(0.1, (0, 0)):
        _arm(pen, body, -2.2, -3.0, x=-0.13)
        _leg(pen, body, 0.0, 0.0, x=-0.06, far=True)
        _leg(pen, body, 1.2, -0.5, x=0.06)
        _torso(pen, body, sway=0.07 * s)
        _arm(pen, body, 1.2, -0.9, x=0.15)
        _head(pen, body)
    for dx, height in ((0.6, 0.85), (0.5, 1.25), (-0.75, 0.75)):
        _note(pen, dx * (0.4 + 0.6 * s), height * s)


def _chef_hat(pen: Pen, body: Body) -> None:
    x, y = body.head
    r = body.radius * (0.8 if body.child else 1.0)
    y += body.radius - r
    white = (250, 250, 250)
    for dx in (-0.55, 0.55, 0.0):
        pen.ellipse(x + dx * r, y + 1.75 * r, 0.6 * r, 0.5 * r, white)
    pen.rect(x - 0.8 * r, y + 0.75 * r, x + 0.8 * r, y + 1.5 * r, white)


def _cook(pen: Pen, body: Body) -> None:
    """Cooks: wears a white cap and holds a pan over a flame."""
    s = body.scale
    _standing(pen, body)
    _head(pen, body)
    _chef_hat(pen, body)
    left, right, top = 0.34 * s, 0.95 * s, 0.5 * s
    pen.rect(left, 0, right, top, (205, 208, 214))
    pen.rect(left + 0.1 * s, 0.1 * s, right - 0.1 * s, 0.34 * s, (70, 72, 80))
    middle = (left + right) / 2
    for dx in (-0.13, 0.0, 0.13):
        flame = [(dx - 0.06, 0.0), (dx + 0.06, 0.0), (dx, 0.17)]
        pen.poly([(middle + x * s, top + y * s) for x, y in flame], (250, 140, 30), outline=False)
    hand = _arm(pen, body, 0.75, 1.2, x=0.1)
    pan = top + 0.16 * s
    pen.line([hand, (middle - 0.15 * s, pan + 0.04 * s)], INK, 0.045)
    pen.poly(
        [(middle + x * s, pan + y * s) for x, y in ((-0.24, 0.1), (0.24, 0.1), (0.18, 0.0), (-0.18, 0.0))],
        INK,
    )
    pen.ellipse(middle, pan + 0.12 * s, 0.17 * s, 0.05 * s, (250, 215, 90), outline=False)


def _paint(pen: Pen, body: Body) -> None:
    """Before an easel, brush in hand."""
    s = body.scale
    wood = WOOD
    _arm(pen, body, -0.35, -0.15, x=-0.15)
    _standing(pen, body)
    _head(pen, body)
    for foot in (0.45, 1.0):
        pen.line([(foot * s, 0.0), (0.74 * s, 1.3 * s)], wood, 0.05)
    pen.rect(0.46 * s, 0.5 * s, 1.04 * s, 1.14 * s, PAPER)
    pen.line([(0.42 * s, 0.48 * s), (1.06 * s, 0.48 * s)], wood, 0.06)
    blobs = ((0.66, 0.92, "red"), (0.87, 0.98, "yellow"), (0.68, 0.66, "blue"), (0.88, 0.72, "green"))
    for x, y, name in blobs:
        pen.ellipse(x * s, y * s, 0.11 * s, 0.07 * s, COLOURS[name], outline=False)
    x, y = _arm(pen, body, 0.9, 1.7, x=0.12)
    pen.line([(x - 0.06 * s, y - 0.06 * s), (x + 0.14 * s, y + 0.12 * s)], (100, 60, 35), 0.04)


_POSES: dict[str, Callable[[Pen, Body], None]] = {
    "stand": _stand,
    "run": _run,
    "sit": _sit,
    "sleep": _sleep,
    "jump": _jump,
    "read": _read,
    "wave": _wave,
    "ride": _ride,
    "eat": _eat,
    "play": _play,
    "dance": _dance,
    "cook": _cook,
    "paint": _paint,
}


def _person(*, female: bool, child: bool) -> Callable[[Pen, Look], None]:
    """Return the drawing of one sort of person in any of the poses."""

    def draw(pen: Pen, look: Look) -> None:
        _POSES[look.action or "stand"](pen, _body(look, female=female, child=child))

    return draw


def _baby_head(pen: Pen, skin: RGB, x: float, y: float, *, asleep: bool) -> None:
    pen.ellipse(x, y, 0.25, 0.24, skin)
    for dx in (-0.05, 0.12):
        if asleep:
            pen.arc(x + dx, y + 0.02, 0.045, 0.04, math.pi, math.tau, INK, 0.025)
        else:
            pen.ellipse(x + dx, y + 0.03, 0.03, 0.04, INK, outline=False)
    pen.ellipse(x + 0.04, y - 0.1, 0.065, 0.055, (245, 120, 150))
    pen.arc(x, y + 0.26, 0.07, 0.06, -0.8, 3.6, (110, 65, 30), 0.035)


def _baby_crawl(pen: Pen, look: Look, skin: RGB) -> None:
    cloth = look.rgb
    pen.line([(-0.28, 0.28), (-0.22, 0.08), (-0.52, 0.06)], shade(cloth, 0.85), 0.15)
    pen.line([(0.2, 0.34), (0.14, 0.06)], shade(cloth, 0.8), 0.11)
    pen.ellipse(-0.05, 0.36, 0.38, 0.21, cloth, angle=0.15)
    pen.line([(0.22, 0.36), (0.36, 0.07)], shade(cloth, 0.85), 0.12)
    for x in (0.15, 0.38):
        pen.ellipse(x, 0.06, 0.065, 0.055, skin)
    _baby_head(pen, skin, 0.38, 0.58, asleep=False)


def _baby_sit(pen: Pen, look: Look, skin: RGB) -> None:
    cloth = look.rgb
    pen.ellipse(0, 0.27, 0.26, 0.27, cloth)
    for side in (-1, 1):
        pen.line([(side * 0.12, 0.12), (side * 0.36, 0.08)], shade(cloth, 0.88), 0.15)
        pen.ellipse(side * 0.42, 0.1, 0.07, 0.09, skin)
        pen.line([(side * 0.2, 0.4), (side * 0.36, 0.28)], shade(cloth, 0.88), 0.1)
        pen.ellipse(side * 0.37, 0.27, 0.055, 0.055, skin)
    _baby_head(pen, skin, 0.0, 0.7, asleep=False)


def _baby_sleep(pen: Pen, look: Look, skin: RGB) -> None:
    """Lies in a cot on rockers."""
    pen.arc(0, 0.3, 0.6, 0.27, math.pi + 0.5, math.tau - 0.5, shade(WOOD, 0.7), 0.06)
    pen.ellipse(-0.4, 0.46, 0.2, 0.12, PAPER)
    with pen.turned(math.pi / 3, (-0.3, 0.56)):
        _baby_head(pen, skin, -0.3, 0.56, asleep=True)
    pen.poly([(-0.12, 0.4), (-0.08, 0.62), (0.2, 0.68), (0.56, 0.54), (0.6, 0.4)], look.rgb)
    pen.poly([(-0.66, 0.46), (0.68, 0.46), (0.52, 0.1), (-0.5, 0.1)], look.rgb)
    pen.line([(-0.68, 0.44), (0.7, 0.44)], WOOD, 0.08)
    _snore(pen, -0.1, 0.85, look.rng)


def _baby(pen: Pen, look: Look) -> None:
    skin = jitter(look.rng.choice(SKIN), look.rng, 6)
    poses = {"sit": _baby_sit, "sleep": _baby_sleep}
    poses.get(look.action or "crawl", _baby_crawl)(pen, look, skin)


def _robot_head(pen: Pen, metal: RGB) -> None:
    pen.line([(0, 1.3), (0, 1.47)], STEEL, 0.04)
    pen.ellipse(0, 1.48, 0.06, 0.06, (235, 60, 60))
    pen.rect(-0.26, 0.94, 0.26, 1.32, metal)
    pen.rect(-0.2, 1.0, 0.2, 1.26, (50, 56, 66), outline=False)
    for x in (-0.09, 0.09):
        pen.ellipse(x, 1.16, 0.06, 0.06, (120, 240, 255), outline=False)
    pen.line([(-0.1, 1.05), (0.1, 1.05)], (120, 240, 255), 0.03)


def _robot_arm(pen: Pen, points: Sequence[Point], metal: RGB) -> None:
    x, y = points[-1]
    pen.line(points, metal, 0.1)
    pen.ellipse(x, y, 0.08, 0.08, STEEL)


def _robot(pen: Pen, look: Look) -> None:
    metal, dim = look.rgb, shade(look.rgb, 0.8)
    for side in (-1, 1):
        pen.rect(side * 0.16 - 0.08, 0.06, side * 0.16 + 0.08, 0.36, dim)
        pen.rect(side * 0.17 - 0.12, 0, side * 0.17 + 0.12, 0.1, STEEL)
    _robot_arm(pen, [(-0.3, 0.8), (-0.46, 0.66), (-0.48, 0.42)], dim)
    if look.action == "wave":
        _robot_arm(pen, [(0.3, 0.8), (0.5, 0.86), (0.54, 1.2)], dim)
        for start, end in ((-0.5, 0.6), (math.pi - 0.6, math.pi + 0.5)):
            pen.arc(0.54, 1.22, 0.17, 0.17, start, end, (255, 255, 255), 0.04)
    else:
        _robot_arm(pen, [(0.3, 0.8), (0.46, 0.66), (0.48, 0.42)], dim)
    pen.rect(-0.33, 0.33, 0.33, 0.9, metal)
    pen.rect(-0.17, 0.5, 0.17, 0.74, (228, 230, 234) if is_dark(metal) or sum(metal) < 600 else (110, 114, 122))
    for x, colour in ((-0.09, "red"), (0.0, "yellow"), (0.09, "green")):
        pen.ellipse(x, 0.62, 0.032, 0.032, COLOURS[colour], outline=False)
    _robot_head(pen, metal)


def _someone(name: str, nouns: tuple[str, ...], size: float, *, female: bool, child: bool) -> Kind:
    return Kind(
        name,
        _person(female=female, child=child),
        nouns,
        hypernyms=("person",),
        actions=tuple(_POSES),
        colours=PAINT,
        size=size,
    )


KINDS: tuple[Kind, ...] = (
    _someone("man", ("man", "guy", "gentleman"), 1.3, female=False, child=False),
    _someone("woman", ("woman", "lady"), 1.25, female=True, child=False),
    _someone("boy", ("boy", "kid", "child"), 1.0, female=False, child=True),
    _someone("girl", ("girl", "kid", "child"), 1.0, female=True, child=True),
    Kind(
        "baby",
        _baby,
        ("baby", "infant"),
        hypernyms=("person",),
        actions=("crawl", "sit", "sleep"),
        colours=PAINT,
        size=0.7,
    ),
    Kind("robot", _robot, ("robot",), hypernyms=("toy",), actions=("stand", "wave"), colours=PAINT, size=1.0),
)
