"""Things of the picture book: vehicles, buildings, plants, furniture, toys, food, and household things.

Each thing is one short drawing function whose main body has the colour of the look, so that the colour can be
named.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .canvas import COLOURS, RGB, Pen, jitter, shade, tint
from .kinds import PAINT, Kind, Look

if TYPE_CHECKING:
    from collections.abc import Callable

FURNITURE = (*PAINT, "brown")
"""Colours of furniture."""

GLASS: RGB = (190, 225, 245)
TYRE: RGB = (38, 38, 40)
STEEL: RGB = (140, 144, 150)
IRON: RGB = (72, 74, 80)
WOOD: RGB = (125, 80, 45)
INK: RGB = (25, 22, 24)
LEAF: RGB = (55, 150, 60)
PAPER: RGB = (253, 250, 240)
LAMP: RGB = (255, 240, 150)
FOAM: RGB = (230, 245, 255)
ROOFS: tuple[RGB, ...] = ((150, 60, 45), (95, 62, 52), (90, 95, 105))


def _is_light(colour: RGB) -> bool:
    return sum(colour) > 610


def _trim(colour: RGB) -> RGB:
    """Mix a trim that shows on `colour` without adding a colour of its own: near white, or grey."""
    return (150, 152, 160) if _is_light(colour) else tint(colour, 0.78)


def _wheel(pen: Pen, x: float, y: float, radius: float) -> None:
    pen.ellipse(x, y, radius, radius, TYRE)
    pen.ellipse(x, y, radius * 0.45, radius * 0.45, (200, 200, 205), outline=False)


def _ring(pen: Pen, x: float, y: float, radius: float, colour: RGB, width: float) -> None:
    pen.arc(x, y, radius, radius, 0, math.tau, colour, width)


def _ripples(pen: Pen, reach: float) -> None:
    for x in (-reach, 0, reach):
        pen.arc(x, 0.05, reach * 0.45, 0.05, math.pi, math.tau, FOAM, 0.04)


# Vehicles on land.


def _car(pen: Pen, look: Look) -> None:
    body = [
        (-0.78, 0.16),
        (-0.78, 0.42),
        (-0.52, 0.47),
        (-0.32, 0.76),
        (0.24, 0.76),
        (0.46, 0.47),
        (0.76, 0.41),
    ]
    pen.poly([*body, (0.8, 0.16)], look.rgb)
    pen.poly([(-0.41, 0.47), (-0.26, 0.69), (-0.05, 0.69), (-0.05, 0.47)], GLASS)
    pen.poly([(0.02, 0.47), (0.02, 0.69), (0.2, 0.69), (0.36, 0.47)], GLASS)
    for x in (-0.43, 0.45):
        _wheel(pen, x, 0.17, 0.17)
    pen.ellipse(0.74, 0.33, 0.045, 0.055, LAMP, outline=False)


def _truck(pen: Pen, look: Look) -> None:
    pen.rect(-0.95, 0.18, 0.88, 0.28, IRON)
    pen.rect(-0.98, 0.26, 0.3, 1.02, look.rgb)
    pen.poly(
        [(0.35, 0.2), (0.35, 0.82), (0.66, 0.82), (0.86, 0.5), (0.92, 0.46), (0.92, 0.2)],
        shade(look.rgb, 0.85),
    )
    pen.poly([(0.46, 0.5), (0.46, 0.74), (0.62, 0.74), (0.77, 0.5)], GLASS)
    for x in (-0.68, -0.3, 0.63):
        _wheel(pen, x, 0.17, 0.17)
    pen.ellipse(0.88, 0.34, 0.04, 0.05, LAMP, outline=False)


def _bus(pen: Pen, look: Look) -> None:
    pen.rect(-1.0, 0.18, 1.0, 1.0, look.rgb)
    for i in range(4):
        pen.rect(-0.92 + 0.36 * i, 0.56, -0.64 + 0.36 * i, 0.86, GLASS)
    pen.rect(0.56, 0.2, 0.82, 0.86, GLASS)
    pen.line([(0.69, 0.2), (0.69, 0.86)], shade(look.rgb), 0.025)
    pen.line([(-1.0, 0.44), (0.54, 0.44)], _trim(look.rgb), 0.05)
    for x in (-0.6, 0.38):
        _wheel(pen, x, 0.17, 0.17)
    pen.ellipse(0.95, 0.32, 0.04, 0.05, LAMP, outline=False)


def _train(pen: Pen, look: Look) -> None:
    pen.line([(-1.2, 0.03), (1.1, 0.03)], (90, 80, 75), 0.05)
    pen.line([(-0.35, 0.3), (0.0, 0.3)], IRON, 0.07)
    pen.rect(-1.1, 0.2, -0.3, 0.86, shade(look.rgb, 0.85))
    for x in (-1.0, -0.64):
        pen.rect(x, 0.48, x + 0.26, 0.74, GLASS)
    pen.rect(-0.15, 0.2, 0.8, 0.66, look.rgb)
    pen.rect(-0.15, 0.6, 0.27, 1.06, look.rgb)
    pen.rect(-0.22, 1.04, 0.34, 1.14, shade(look.rgb, 0.7))
    pen.rect(-0.05, 0.7, 0.17, 0.94, GLASS)
    pen.poly([(0.52, 0.64), (0.46, 0.98), (0.74, 0.98), (0.68, 0.64)], IRON)
    for x, y, radius in ((0.56, 1.12, 0.1), (0.42, 1.26, 0.13), (0.2, 1.38, 0.15)):
        pen.ellipse(x, y, radius, radius * 0.75, (232, 232, 236), outline=False)
    pen.poly([(0.8, 0.34), (1.02, 0.06), (0.8, 0.06)], IRON)
    for x in (-0.92, -0.48, -0.02, 0.3, 0.62):
        _wheel(pen, x, 0.17, 0.14)


def _bicycle(pen: Pen, look: Look) -> None:
    for x in (-0.52, 0.52):
        _ring(pen, x, 0.31, 0.28, TYRE, 0.06)
    frame = [(-0.52, 0.31), (0, 0.29), (0.38, 0.7), (-0.15, 0.7), (-0.52, 0.31)]
    pen.line(frame, look.rgb, 0.085)
    pen.line([(0, 0.29), (-0.19, 0.82)], look.rgb, 0.085)
    pen.line([(0.52, 0.31), (0.35, 0.92), (0.2, 0.96)], look.rgb, 0.085)
    pen.line([(-0.33, 0.84), (-0.06, 0.84)], INK, 0.08)


def _motorcycle(pen: Pen, look: Look) -> None:
    pen.line([(0.58, 0.26), (0.32, 0.84), (0.14, 0.9)], STEEL, 0.07)
    pen.line([(-0.75, 0.2), (0.0, 0.2)], STEEL, 0.08)
    for x in (-0.55, 0.58):
        _wheel(pen, x, 0.26, 0.26)
    pen.ellipse(0.0, 0.3, 0.18, 0.15, IRON)
    body = [
        (-0.72, 0.52),
        (-0.66, 0.64),
        (-0.3, 0.58),
        (-0.1, 0.6),
        (0.1, 0.74),
        (0.34, 0.7),
        (0.32, 0.42),
        (-0.22, 0.32),
    ]
    pen.poly(body, look.rgb)
    pen.poly([(-0.66, 0.64), (-0.3, 0.56), (-0.06, 0.6), (-0.14, 0.68), (-0.6, 0.75)], TYRE)
    pen.arc(0.58, 0.28, 0.32, 0.32, 0.9, 2.6, look.rgb, 0.08)
    pen.ellipse(0.4, 0.74, 0.07, 0.08, LAMP)


def _tractor(pen: Pen, look: Look) -> None:
    pen.rect(0.02, 0.28, 0.72, 0.62, look.rgb)
    pen.rect(-0.56, 0.3, 0.06, 0.56, look.rgb)
    pen.rect(-0.46, 0.56, 0.04, 1.02, look.rgb)
    pen.rect(-0.37, 0.62, -0.05, 0.94, GLASS)
    pen.rect(-0.54, 1.0, 0.12, 1.1, shade(look.rgb, 0.75))
    pen.rect(0.42, 0.62, 0.5, 0.94, IRON)
    for y in (0.42, 0.5):
        pen.line([(0.5, y), (0.68, y)], shade(look.rgb), 0.03)
    _wheel(pen, -0.35, 0.34, 0.34)
    _wheel(pen, 0.52, 0.19, 0.19)


# Vehicles on water and in the sky.


def _boat(pen: Pen, look: Look) -> None:
    pen.line([(0, 0.25), (0, 1.28)], (110, 70, 40), 0.05)
    pen.poly([(0.06, 0.38), (0.06, 1.24), (0.64, 0.42)], look.rgb)
    pen.poly([(-0.06, 0.38), (-0.06, 1.1), (-0.5, 0.42)], shade(look.rgb, 0.9))
    pen.poly([(-0.72, 0.32), (0.78, 0.32), (0.5, 0.03), (-0.5, 0.03)], look.rgb)
    pen.line([(-0.7, 0.3), (0.76, 0.3)], WOOD, 0.06)
    _ripples(pen, 0.42)


def _airplane(pen: Pen, look: Look) -> None:
    pen.poly([(-0.7, 0.5), (-0.98, 0.96), (-0.76, 0.96), (-0.38, 0.56)], shade(look.rgb, 0.85))
    pen.poly([(0.15, 0.6), (-0.18, 0.86), (-0.34, 0.86), (-0.14, 0.6)], shade(look.rgb, 0.75))
    pen.ellipse(0, 0.48, 0.92, 0.2, look.rgb)
    pen.poly([(0.22, 0.42), (-0.36, 0.02), (-0.58, 0.02), (-0.16, 0.42)], shade(look.rgb, 0.85))
    for i in range(6):
        pen.ellipse(-0.36 + 0.17 * i, 0.54, 0.045, 0.05, GLASS, outline=False)
    pen.poly([(0.62, 0.61), (0.86, 0.52), (0.62, 0.5)], GLASS)


def _helicopter(pen: Pen, look: Look) -> None:
    pen.line([(-0.3, 0.18), (-0.28, 0.4)], IRON, 0.05)
    pen.line([(0.28, 0.18), (0.26, 0.4)], IRON, 0.05)
    pen.line([(-0.48, 0.14), (0.48, 0.14), (0.58, 0.22)], IRON, 0.06)
    pen.poly([(-0.3, 0.66), (-1.0, 0.7), (-1.08, 0.92), (-0.96, 0.92), (-0.9, 0.78), (-0.2, 0.8)], look.rgb)
    pen.line([(-1.18, 0.7), (-0.94, 0.98)], STEEL, 0.045)
    pen.ellipse(0.05, 0.58, 0.5, 0.33, look.rgb)
    pen.poly([(0.14, 0.54), (0.14, 0.82), (0.3, 0.8), (0.46, 0.68), (0.5, 0.54)], GLASS)
    pen.line([(0.02, 0.88), (0.02, 1.04)], IRON, 0.06)
    pen.line([(-0.75, 1.04), (0.8, 1.04)], IRON, 0.055)


def _rocket(pen: Pen, look: Look) -> None:
    pen.poly([(-0.16, 0.32), (0.0, -0.02), (0.16, 0.32)], (250, 140, 30), outline=False)
    pen.poly([(-0.08, 0.32), (0.0, 0.12), (0.08, 0.32)], (255, 225, 90), outline=False)
    for side in (-1, 1):
        pen.poly([(side * 0.2, 0.66), (side * 0.44, 0.3), (side * 0.2, 0.36)], shade(look.rgb, 0.7))
    hull = [(-0.17, 0.32), (-0.25, 0.7), (-0.2, 1.1), (0, 1.5), (0.2, 1.1), (0.25, 0.7), (0.17, 0.32)]
    pen.poly(hull, look.rgb)
    pen.poly([(-0.17, 1.16), (0, 1.5), (0.17, 1.16)], _trim(look.rgb))
    pen.ellipse(0, 0.88, 0.13, 0.13, _trim(look.rgb))
    pen.ellipse(0, 0.88, 0.085, 0.085, (70, 130, 190), outline=False)


def _hot_air_balloon(pen: Pen, look: Look) -> None:
    for side in (-1, 1):
        pen.line([(side * 0.14, 0.25), (side * 0.28, 0.65)], (90, 60, 40), 0.03)
    pen.poly([(-0.49, 0.88), (0.49, 0.88), (0.15, 0.46), (-0.15, 0.46)], look.rgb)
    pen.ellipse(0, 1.04, 0.56, 0.5, look.rgb)
    pen.poly([(-0.46, 0.84), (0.46, 0.84), (0.44, 0.94), (-0.44, 0.94)], look.rgb, outline=False)
    pen.ellipse(0, 1.04, 0.18, 0.5, tint(look.rgb, 0.35), outline=False)
    pen.rect(-0.17, 0.02, 0.17, 0.27, (165, 110, 60))


# Buildings.


def _house(pen: Pen, look: Look) -> None:
    pen.rect(0.3, 0.95, 0.46, 1.32, (140, 70, 55))
    pen.rect(-0.6, 0, 0.6, 0.76, look.rgb)
    pen.poly([(-0.75, 0.73), (0, 1.32), (0.75, 0.73)], look.rng.choice(ROOFS))
    pen.rect(-0.13, 0, 0.13, 0.42, (110, 70, 40))
    for x in (-0.48, 0.24):
        pen.rect(x, 0.34, x + 0.24, 0.6, GLASS)


def _battlements(pen: Pen, left: float, right: float, y: float, count: int, colour: RGB) -> None:
    step = (right - left) / (2 * count - 1)
    for i in range(count):
        pen.rect(left + 2 * i * step, y, left + (2 * i + 1) * step, y + 0.12, colour)


def _castle(pen: Pen, look: Look) -> None:
    dim = shade(look.rgb, 0.88)
    pen.rect(-0.45, 0, 0.45, 0.72, look.rgb)
    _battlements(pen, -0.45, 0.45, 0.72, 4, look.rgb)
    for x in (-0.62, 0.62):
        pen.rect(x - 0.2, 0, x + 0.2, 1.02, dim)
        _battlements(pen, x - 0.24, x + 0.24, 1.02, 3, dim)
        pen.rect(x - 0.05, 0.62, x + 0.05, 0.84, IRON)
        pen.line([(x, 1.1), (x, 1.5)], IRON, 0.03)
        pen.poly([(x, 1.5), (x + 0.24, 1.42), (x, 1.32)], look.rgb)
    pen.ellipse(0, 0.3, 0.18, 0.2, (90, 58, 35))
    pen.rect(-0.18, 0, 0.18, 0.32, (90, 58, 35), outline=False)


def _church(pen: Pen, look: Look) -> None:
    roof = look.rng.choice(ROOFS)
    pen.rect(-0.25, 0, 0.75, 0.66, look.rgb)
    pen.poly([(-0.3, 0.64), (-0.2, 0.98), (0.68, 0.98), (0.84, 0.64)], roof)
    pen.rect(-0.62, 0, -0.2, 1.02, look.rgb)
    pen.poly([(-0.7, 1.0), (-0.41, 1.5), (-0.12, 1.0)], roof)
    pen.line([(-0.41, 1.48), (-0.41, 1.78)], INK, 0.05)
    pen.line([(-0.51, 1.68), (-0.31, 1.68)], INK, 0.05)
    pen.ellipse(-0.41, 0.8, 0.09, 0.09, GLASS)
    pen.rect(-0.51, 0, -0.31, 0.38, (110, 70, 40))
    for x in (-0.04, 0.24, 0.52):
        pen.poly([(x, 0.2), (x, 0.42), (x + 0.06, 0.52), (x + 0.12, 0.42), (x + 0.12, 0.2)], GLASS)


def _lighthouse(pen: Pen, look: Look) -> None:
    band = (200, 202, 208) if _is_light(look.rgb) else (248, 248, 248)
    for side in (-1, 1):
        pen.poly([(side * 0.14, 1.32), (side * 0.75, 1.5), (side * 0.75, 1.16)], (255, 244, 170), outline=False)
    pen.poly([(-0.34, 0), (-0.2, 1.14), (0.2, 1.14), (0.34, 0)], look.rgb)
    for y in (0.25, 0.72):
        left, right = 0.34 - 0.123 * y, 0.34 - 0.123 * (y + 0.2)
        pen.poly([(-left, y), (-right, y + 0.2), (right, y + 0.2), (left, y)], band, outline=False)
    pen.rect(-0.28, 1.12, 0.28, 1.2, IRON)
    pen.rect(-0.15, 1.2, 0.15, 1.44, LAMP)
    pen.poly([(-0.22, 1.42), (0, 1.66), (0.22, 1.42)], shade(look.rgb, 0.85))
    pen.rect(-0.09, 0, 0.09, 0.2, (90, 58, 35))


def _windmill(pen: Pen, look: Look) -> None:
    pen.poly([(-0.36, 0), (-0.22, 0.92), (0.22, 0.92), (0.36, 0)], look.rgb)
    pen.poly([(-0.26, 0.9), (0, 1.2), (0.26, 0.9)], look.rng.choice(ROOFS))
    pen.rect(-0.1, 0, 0.1, 0.3, (90, 58, 35))
    hub = (0.0, 0.94)
    angle = look.rng.uniform(0.35, 1.2)
    for i in range(4):
        with pen.turned(angle + i * math.pi / 2, hub):
            pen.line([hub, (0, 1.66)], WOOD, 0.045)
            pen.rect(0.02, 1.1, 0.18, 1.64, PAPER)
    pen.ellipse(*hub, 0.06, 0.06, IRON)


def _tent(pen: Pen, look: Look) -> None:
    for side in (-1, 1):
        pen.line([(0, 0.95), (side * 0.1, 1.08)], (90, 60, 40), 0.045)
    pen.poly([(-0.85, 0), (0, 1.0), (0.85, 0)], look.rgb)
    pen.poly([(-0.27, 0), (0, 0.72), (0.27, 0)], shade(look.rgb, 0.4))
    pen.poly([(-0.27, 0), (-0.02, 0.72), (-0.4, 0.2)], tint(look.rgb, 0.4))


# Plants.


def _flower(pen: Pen, look: Look) -> None:
    pen.line([(0, 0), (0.03, 0.65)], LEAF, 0.07)
    pen.ellipse(0.17, 0.25, 0.17, 0.07, LEAF, angle=0.5)
    pen.ellipse(-0.14, 0.18, 0.15, 0.06, LEAF, angle=2.6)
    for i in range(6):
        angle = i * math.pi / 3
        pen.ellipse(0.03 + 0.21 * math.cos(angle), 0.8 + 0.21 * math.sin(angle), 0.15, 0.15, look.rgb)
    yellowish = look.colour in {"yellow", "orange"}
    pen.ellipse(0.03, 0.8, 0.12, 0.12, (130, 80, 40) if yellowish else (250, 205, 60))


def _tree(pen: Pen, look: Look) -> None:
    leaf = jitter((55, 140, 60), look.rng, 20)
    pen.rect(-0.1, 0, 0.1, 0.65, (115, 75, 45))
    if look.rng.random() < 0.5:
        pen.ellipse(-0.29, 0.86, 0.33, 0.31, leaf)
        pen.ellipse(0.29, 0.86, 0.33, 0.31, leaf)
        pen.ellipse(0, 1.16, 0.42, 0.38, leaf)
        pen.ellipse(0, 0.88, 0.3, 0.26, leaf, outline=False)
        return
    for i in range(3):
        base, half = 0.38 + 0.34 * i, 0.56 - 0.1 * i
        pen.poly([(-half, base), (half, base), (0, base + 0.62)], shade(leaf, 0.8))


def _cactus(pen: Pen, look: Look) -> None:
    dim = shade(look.rgb, 0.7)
    for side, low, high in ((-1, 0.42, 0.82), (1, 0.56, 1.0)):
        pen.line([(0, low), (side * 0.36, low), (side * 0.36, high)], look.rgb, 0.17)
        pen.ellipse(side * 0.36, low, 0.085, 0.085, look.rgb, outline=False)
        pen.ellipse(side * 0.36, high, 0.085, 0.085, look.rgb, outline=False)
    pen.rect(-0.16, 0, 0.16, 1.05, look.rgb)
    pen.ellipse(0, 1.05, 0.16, 0.16, look.rgb)
    pen.rect(-0.14, 0.9, 0.14, 1.06, look.rgb, outline=False)
    for x in (-0.06, 0.06):
        pen.line([(x, 0.08), (x, 1.1)], dim, 0.03)


def _mushroom(pen: Pen, look: Look) -> None:
    pen.poly([(-0.15, 0), (-0.12, 0.45), (0.12, 0.45), (0.15, 0)], (240, 225, 200))
    dome = [(0.5 * math.cos(math.pi * i / 10), 0.38 + 0.48 * math.sin(math.pi * i / 10)) for i in range(11)]
    pen.poly([*dome, (-0.3, 0.32), (0.3, 0.32)], look.rgb)
    if look.colour == "red":
        for x, y, radius in ((-0.24, 0.56, 0.09), (0.05, 0.7, 0.09), (0.27, 0.5, 0.075), (0.02, 0.47, 0.06)):
            pen.ellipse(x, y, radius, radius * 0.85, (252, 250, 245), outline=False)


# Furniture.


def _chair(pen: Pen, look: Look) -> None:
    dim = shade(look.rgb, 0.82)
    for x in (-0.34, 0.25):
        pen.rect(x, 0, x + 0.1, 0.45, dim)
    pen.rect(-0.36, 0.42, 0.38, 0.54, look.rgb)
    pen.poly([(-0.36, 0.46), (-0.46, 1.16), (-0.34, 1.18), (-0.22, 0.5)], look.rgb)


def _sofa(pen: Pen, look: Look) -> None:
    for x in (-0.75, 0.65):
        pen.rect(x, 0, x + 0.1, 0.14, (80, 50, 30))
    pen.rect(-0.82, 0.4, 0.82, 0.94, shade(look.rgb, 0.9))
    pen.rect(-0.85, 0.12, 0.85, 0.34, look.rgb)
    for x in (-0.72, 0.0):
        pen.rect(x, 0.3, x + 0.72, 0.48, tint(look.rgb, 0.12))
    pen.line([(0, 0.5), (0, 0.92)], shade(look.rgb, 0.6), 0.03)
    for x in (-0.85, 0.85):
        pen.ellipse(x, 0.4, 0.15, 0.28, look.rgb)


def _table(pen: Pen, look: Look) -> None:
    for x in (-0.66, 0.55):
        pen.rect(x, 0, x + 0.11, 0.58, shade(look.rgb, 0.82))
    pen.rect(-0.8, 0.55, 0.8, 0.7, look.rgb)


def _bed(pen: Pen, look: Look) -> None:
    pen.rect(-0.95, 0, -0.85, 0.78, WOOD)
    pen.rect(0.87, 0, 0.97, 0.52, WOOD)
    pen.rect(-0.86, 0.12, 0.88, 0.28, WOOD)
    pen.rect(-0.86, 0.26, 0.88, 0.4, PAPER)
    pen.ellipse(-0.62, 0.46, 0.22, 0.11, (236, 240, 250))
    pen.poly([(-0.4, 0.14), (-0.42, 0.48), (0.7, 0.5), (0.88, 0.42), (0.9, 0.14)], look.rgb)
    pen.line([(-0.4, 0.18), (-0.41, 0.46)], tint(look.rgb, 0.5), 0.09)


def _lamp(pen: Pen, look: Look) -> None:
    pen.line([(0, 0.08), (0, 0.7)], STEEL, 0.07)
    pen.ellipse(0, 0.07, 0.27, 0.07, STEEL)
    pen.ellipse(0, 0.58, 0.1, 0.1, LAMP)
    pen.poly([(-0.44, 0.6), (-0.22, 1.12), (0.22, 1.12), (0.44, 0.6)], look.rgb)
    pen.line([(-0.42, 0.63), (0.42, 0.63)], tint(look.rgb, 0.5), 0.05)


def _bench(pen: Pen, look: Look) -> None:
    for x in (-0.68, 0.6):
        pen.rect(x, 0, x + 0.08, 0.86, IRON)
    for y in (0.54, 0.74):
        pen.rect(-0.85, y, 0.85, y + 0.13, look.rgb)
    pen.poly([(-0.92, 0.3), (-0.84, 0.44), (0.84, 0.44), (0.92, 0.3)], look.rgb)


# Toys.


def _ball(pen: Pen, look: Look) -> None:
    band = _trim(look.rgb)
    pen.ellipse(0, 0.4, 0.4, 0.4, look.rgb)
    pen.arc(-0.36, 0.4, 0.24, 0.36, -1.0, 1.0, band, 0.045)
    pen.arc(0.36, 0.4, 0.24, 0.36, 2.14, 4.14, band, 0.045)
    pen.ellipse(0.02, 0.62, 0.08, 0.05, tint(look.rgb, 0.7), outline=False)


def _balloon(pen: Pen, look: Look) -> None:
    pen.line([(0, 0.5), (0.06, 0.3), (-0.04, 0.15), (0.02, 0)], (105, 105, 110), 0.03)
    pen.poly([(-0.07, 0.44), (0.07, 0.44), (0, 0.54)], look.rgb)
    pen.ellipse(0, 0.92, 0.36, 0.43, look.rgb)
    pen.ellipse(-0.13, 1.08, 0.07, 0.11, tint(look.rgb, 0.7), outline=False, angle=-0.4)


def _kite(pen: Pen, look: Look) -> None:
    pen.line([(0, 0.4), (-0.15, 0.24), (0.08, 0.1), (-0.1, -0.04)], (105, 105, 110), 0.03)
    pen.poly([(0, 1.24), (0.42, 0.88), (0, 0.34), (-0.42, 0.88)], look.rgb)
    pen.line([(0, 1.22), (0, 0.36)], shade(look.rgb), 0.035)
    pen.line([(-0.4, 0.88), (0.4, 0.88)], shade(look.rgb), 0.035)
    for x, y in ((-0.13, 0.25), (0.06, 0.1)):
        for side in (-1, 1):
            pen.poly([(x, y), (x + side * 0.12, y + 0.07), (x + side * 0.12, y - 0.07)], look.rgb)


# Food.


def _apple(pen: Pen, look: Look) -> None:
    pen.line([(0, 0.66), (0.05, 0.9)], (95, 60, 35), 0.06)
    for x in (-0.15, 0.15):
        pen.ellipse(x, 0.37, 0.27, 0.37, look.rgb)
    pen.ellipse(0, 0.34, 0.27, 0.3, look.rgb, outline=False)
    pen.ellipse(0.2, 0.82, 0.15, 0.065, LEAF, angle=0.4)
    pen.ellipse(-0.22, 0.5, 0.05, 0.09, tint(look.rgb, 0.65), outline=False)


def _cake(pen: Pen, look: Look) -> None:
    pen.ellipse(0, 0.06, 0.66, 0.06, (205, 210, 220))
    pen.rect(-0.5, 0.08, 0.5, 0.4, look.rgb)
    pen.rect(-0.34, 0.4, 0.34, 0.66, look.rgb)
    cream = (225, 200, 170) if look.colour == "white" else (252, 246, 236)
    for half, y, drops in ((0.5, 0.4, 5), (0.34, 0.66, 4)):
        pen.line([(-half, y), (half, y)], cream, 0.08)
        for i in range(drops):
            pen.ellipse(-half + (i + 0.5) * 2 * half / drops, y - 0.04, 0.07, 0.06, cream, outline=False)
    pen.ellipse(0, 0.76, 0.08, 0.08, (215, 40, 50))


# Things of the house.


def _umbrella(pen: Pen, look: Look) -> None:
    pen.line([(0, 0.1), (0, 1.12)], (100, 70, 50), 0.055)
    pen.arc(0.08, 0.12, 0.08, 0.09, math.pi, math.tau, (100, 70, 50), 0.055)
    dome = [(-0.66 * math.cos(math.pi * i / 12), 0.62 + 0.55 * math.sin(math.pi * i / 12)) for i in range(13)]
    pen.poly([*dome, (0.44, 0.55), (0.22, 0.64), (0, 0.55), (-0.22, 0.64), (-0.44, 0.55)], look.rgb)
    pen.line([(-0.22, 0.63), (-0.13, 0.92), (0, 1.16), (0.13, 0.92), (0.22, 0.63)], shade(look.rgb, 0.7), 0.03)
    pen.line([(0, 1.15), (0, 1.24)], (100, 70, 50), 0.05)


def _cup(pen: Pen, look: Look) -> None:
    pen.arc(0.31, 0.4, 0.19, 0.2, -1.6, 1.6, look.rgb, 0.09)
    pen.poly([(-0.34, 0.72), (0.34, 0.72), (0.27, 0.04), (-0.27, 0.04)], look.rgb)
    pen.ellipse(0, 0.72, 0.34, 0.075, look.rgb)
    pen.ellipse(0, 0.72, 0.27, 0.05, (90, 55, 35), outline=False)
    for x in (-0.13, 0.08):
        pen.line([(x, 0.86), (x + 0.06, 0.95), (x, 1.04), (x + 0.06, 1.13)], (235, 235, 238), 0.04)


def _bottle(pen: Pen, look: Look) -> None:
    body = [
        (-0.22, 0.02),
        (-0.22, 0.62),
        (-0.08, 0.82),
        (-0.08, 1.06),
        (0.08, 1.06),
        (0.08, 0.82),
        (0.22, 0.62),
    ]
    pen.poly([*body, (0.22, 0.02)], look.rgb)
    pen.rect(-0.1, 1.02, 0.1, 1.16, (190, 140, 85) if look.colour != "orange" else IRON)
    pen.rect(-0.2, 0.24, 0.2, 0.46, _trim(look.rgb), outline=False)
    pen.line([(-0.14, 0.54), (-0.14, 0.64)], tint(look.rgb, 0.6), 0.05)


def _book(pen: Pen, look: Look) -> None:
    """Open, or closed and lying with its cover to us."""
    if look.rng.random() < 0.5:
        pen.poly([(-0.66, 0.1), (0, 0), (0.66, 0.1), (0.66, 0.78), (0, 0.66), (-0.66, 0.78)], look.rgb)
        for side in (-1, 1):
            page = [(side * 0.54, 0.22), (0, 0.12), (0, 0.64), (side * 0.54, 0.74)]
            pen.poly(page, PAPER)
            for y in (0.34, 0.46, 0.58):
                pen.line([(side * 0.44, y + 0.02), (side * 0.1, y - 0.04)], (125, 125, 130), 0.03)
        return
    pen.poly([(-0.36, 0.06), (-0.28, 0), (0.38, 0), (0.38, 0.84), (-0.28, 0.84)], PAPER)
    pen.poly([(-0.38, 0.06), (0.32, 0.06), (0.32, 0.92), (-0.38, 0.92)], look.rgb)
    pen.rect(-0.38, 0.06, -0.28, 0.92, shade(look.rgb, 0.75))
    for y, half in ((0.7, 0.2), (0.58, 0.13)):
        pen.line([(0.03 - half, y), (0.03 + half, y)], _trim(look.rgb), 0.06)


def _hat(pen: Pen, look: Look) -> None:
    pen.ellipse(0, 0.13, 0.64, 0.13, look.rgb)
    crown = [(-0.36, 0.14), (-0.3, 0.58), (-0.16, 0.66), (0, 0.6), (0.16, 0.66), (0.3, 0.58), (0.36, 0.14)]
    pen.poly(crown, look.rgb)
    pen.poly([(-0.355, 0.16), (-0.34, 0.29), (0.34, 0.29), (0.355, 0.16)], _trim(look.rgb), outline=False)


def _gift(pen: Pen, look: Look) -> None:
    ribbon = _trim(look.rgb)
    pen.rect(-0.4, 0, 0.4, 0.56, look.rgb)
    pen.rect(-0.46, 0.5, 0.46, 0.7, look.rgb)
    pen.rect(-0.08, 0.01, 0.08, 0.69, ribbon, outline=False)
    for side in (-1, 1):
        pen.poly([(0, 0.7), (side * 0.3, 0.92), (side * 0.34, 0.74)], ribbon)
    pen.ellipse(0, 0.74, 0.07, 0.06, ribbon)


def _snowman(pen: Pen, look: Look) -> None:
    scarf = COLOURS[look.rng.choice(("red", "blue", "green", "purple"))]
    for side in (-1, 1):
        pen.line([(side * 0.18, 0.78), (side * 0.56, 1.0)], (100, 65, 40), 0.05)
    for y, radius in ((0.3, 0.33), (0.76, 0.25), (1.12, 0.19)):
        pen.ellipse(0, y, radius, radius, (250, 252, 255))
    pen.line([(-0.17, 0.95), (0.0, 0.92), (0.17, 0.95)], scarf, 0.09)
    pen.poly([(0.02, 1.14), (0.3, 1.09), (0.02, 1.06)], (245, 140, 40))
    for x, y in ((-0.05, 1.18), (0.09, 1.18), (0.02, 0.66), (0.02, 0.8)):
        pen.ellipse(x, y, 0.03, 0.03, INK, outline=False)
    pen.rect(-0.16, 1.28, 0.16, 1.54, TYRE)
    pen.line([(-0.25, 1.29), (0.25, 1.29)], TYRE, 0.05)


def _backpack(pen: Pen, look: Look) -> None:
    dim = shade(look.rgb, 0.78)
    pen.arc(0, 0.9, 0.13, 0.14, 0, math.pi, dim, 0.06)
    for side in (-1, 1):
        pen.ellipse(side * 0.38, 0.28, 0.13, 0.22, dim)
    pen.poly(
        [(-0.38, 0), (-0.4, 0.6), (-0.28, 0.86), (0, 0.94), (0.28, 0.86), (0.4, 0.6), (0.38, 0)],
        look.rgb,
    )
    pen.rect(-0.27, 0.08, 0.27, 0.42, dim)
    pen.line([(-0.27, 0.35), (0.27, 0.35)], _trim(look.rgb), 0.035)
    pen.arc(0, 0.5, 0.32, 0.28, 0.3, math.pi - 0.3, _trim(look.rgb), 0.035)


def _clock(pen: Pen, look: Look) -> None:
    for side in (-1, 1):
        pen.line([(side * 0.22, 0.2), (side * 0.32, 0.03)], shade(look.rgb, 0.75), 0.1)
        pen.ellipse(side * 0.27, 0.92, 0.16, 0.1, look.rgb, angle=-side * 0.7)
    pen.ellipse(0, 0.5, 0.47, 0.47, look.rgb)
    pen.ellipse(0, 0.5, 0.32, 0.32, PAPER)
    for i in range(4):
        angle = i * math.pi / 2
        pen.ellipse(0.26 * math.cos(angle), 0.5 + 0.26 * math.sin(angle), 0.03, 0.03, INK, outline=False)
    for length, width in ((0.15, 0.05), (0.23, 0.035)):
        angle = look.rng.uniform(0, math.tau)
        pen.line([(0, 0.5), (length * math.cos(angle), 0.5 + length * math.sin(angle))], INK, width)


def _guitar(pen: Pen, look: Look) -> None:
    with pen.turned(-0.5, (0, 0.5)):
        pen.rect(-0.06, 0.5, 0.06, 1.3, (70, 45, 30))
        pen.poly([(-0.09, 1.26), (-0.11, 1.46), (0.11, 1.46), (0.09, 1.26)], (70, 45, 30))
        pen.ellipse(0, 0.27, 0.32, 0.28, look.rgb)
        pen.ellipse(0, 0.61, 0.24, 0.22, look.rgb)
        pen.ellipse(0, 0.32, 0.26, 0.22, look.rgb, outline=False)
        pen.ellipse(0, 0.52, 0.18, 0.2, look.rgb, outline=False)
        pen.rect(-0.055, 0.62, 0.055, 0.9, (70, 45, 30), outline=False)
        pen.ellipse(0, 0.52, 0.1, 0.1, INK, outline=False)
        pen.rect(-0.13, 0.2, 0.13, 0.25, INK, outline=False)
        for x in (-0.025, 0.025):
            pen.line([(x, 0.24), (x, 1.3)], (235, 230, 215), 0.016)


def _star(pen: Pen, look: Look) -> None:
    points = []
    for i in range(10):
        radius = 0.22 if i % 2 else 0.5
        angle = math.pi / 2 + i * math.pi / 5
        points.append((radius * math.cos(angle), 0.42 + radius * math.sin(angle)))
    with pen.turned(look.rng.uniform(-0.2, 0.2), (0, 0.42)):
        pen.poly(points, look.rgb)


def _thing(
    draw: Callable[[Pen, Look], None],
    *nouns: str,
    size: float,
    hypernyms: tuple[str, ...] = (),
    colours: tuple[str, ...] = PAINT,
    zone: str = "ground",
    actions: tuple[str, ...] = (),
) -> Kind:
    """Make a kind named by its first noun."""
    return Kind(nouns[0], draw, nouns, hypernyms, actions, colours, zone, size)


def _flyer(
    draw: Callable[[Pen, Look], None], *nouns: str, size: float, hypernyms: tuple[str, ...] = ("vehicle",)
) -> Kind:
    return _thing(draw, *nouns, size=size, hypernyms=hypernyms, zone="sky", actions=("fly",))


KINDS: tuple[Kind, ...] = (
    _thing(_car, "car", "automobile", size=1.0, hypernyms=("vehicle",)),
    _thing(_truck, "truck", "lorry", size=1.1, hypernyms=("vehicle",)),
    _thing(_bus, "bus", "coach", size=1.2, hypernyms=("vehicle",)),
    _thing(_train, "train", "locomotive", size=1.1, hypernyms=("vehicle",)),
    _thing(_bicycle, "bicycle", "bike", size=0.95, hypernyms=("vehicle",)),
    _thing(_motorcycle, "motorcycle", "motorbike", size=0.95, hypernyms=("vehicle",)),
    _thing(_tractor, "tractor", size=1.1, hypernyms=("vehicle",)),
    _thing(
        _boat,
        "boat",
        "sailboat",
        "sailing boat",
        size=1.1,
        hypernyms=("vehicle",),
        zone="water",
        actions=("sail",),
    ),
    _flyer(_airplane, "airplane", "plane", "aeroplane", "jet", size=1.0),
    _flyer(_helicopter, "helicopter", "chopper", size=1.0),
    _flyer(_rocket, "rocket", "spaceship", size=1.1),
    _flyer(_hot_air_balloon, "hot air balloon", size=1.2),
    _thing(_house, "house", "home", "cottage", size=1.5, hypernyms=("building",)),
    _thing(_castle, "castle", "fortress", size=1.6, hypernyms=("building",), colours=(*PAINT, "gray")),
    _thing(_church, "church", "chapel", size=1.6, hypernyms=("building",)),
    _thing(_lighthouse, "lighthouse", size=1.6, hypernyms=("building",)),
    _thing(_windmill, "windmill", size=1.6, hypernyms=("building",)),
    _thing(_tent, "tent", size=1.1),
    _thing(_flower, "flower", "blossom", size=0.7, hypernyms=("plant",)),
    _thing(_tree, "tree", size=1.6, hypernyms=("plant",), colours=()),
    _thing(_cactus, "cactus", size=0.95, hypernyms=("plant",), colours=("green",)),
    _thing(_mushroom, "mushroom", "toadstool", size=0.5, colours=("red", "brown", "white")),
    _thing(_chair, "chair", size=0.9, hypernyms=("furniture",), colours=FURNITURE),
    _thing(_sofa, "sofa", "couch", size=0.95, hypernyms=("furniture",), colours=FURNITURE),
    _thing(_table, "table", size=0.85, hypernyms=("furniture",), colours=FURNITURE),
    _thing(_bed, "bed", size=0.9, hypernyms=("furniture",), colours=FURNITURE),
    _thing(_lamp, "lamp", size=0.8, hypernyms=("furniture",)),
    _thing(_bench, "bench", size=0.85, hypernyms=("furniture",), colours=FURNITURE),
    _thing(_ball, "ball", size=0.45, hypernyms=("toy",)),
    _thing(_balloon, "balloon", size=0.8, hypernyms=("toy",), zone="sky"),
    _flyer(_kite, "kite", size=0.9, hypernyms=("toy",)),
    _thing(_apple, "apple", size=0.45, hypernyms=("fruit", "food"), colours=("red", "green", "yellow")),
    _thing(_cake, "cake", size=0.6, hypernyms=("dessert", "food"), colours=("pink", "brown", "white")),
    _thing(_umbrella, "umbrella", size=0.8),
    _thing(_cup, "cup", "mug", size=0.5),
    _thing(_bottle, "bottle", size=0.6),
    _thing(_book, "book", size=0.5),
    _thing(_hat, "hat", size=0.5),
    _thing(_gift, "gift", "present", "gift box", size=0.55),
    _thing(_snowman, "snowman", size=1.0, colours=()),
    _thing(_backpack, "backpack", "rucksack", size=0.65),
    _thing(_clock, "clock", "alarm clock", size=0.55),
    _thing(_guitar, "guitar", size=0.8, hypernyms=("instrument",), colours=("brown", "red", "blue")),
    _thing(
        _star,
        "star",
        size=0.6,
        colours=("yellow", "red", "blue", "green", "orange", "purple", "pink", "white"),
        zone="sky",
    ),
)
