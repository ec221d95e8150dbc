"""Where and when a scene is set: paints the backgrounds, and the weather over them.

Coordinates are fractions of the picture's side, (0, 0) at the top left. Every place shows what it is at its
top and its sides, since figures cover the lower middle. Knows nothing of figures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random

import numpy as np
from PIL import Image, ImageDraw

from .canvas import COLOURS, RGB, Point, Style, jitter, shade, tint

PLACES: dict[str, tuple[str, ...]] = {
    "beach": ("on the beach", "at the beach", "on a beach", "at the seaside", "on the sand", "by the sea"),
    "park": ("in the park", "in a park", "on the grass", "in a meadow", "on the lawn", "in a green field"),
    "snow": ("in the snow", "on the snow", "in a snowy landscape", "on snowy ground", "in a snowy field"),
    "city": (
        "in the city",
        "on a city street",
        "downtown",
        "in a city",
        "in front of skyscrapers",
        "in town",
    ),
    "room": ("in a room", "in the living room", "indoors", "in a living room", "inside a house", "at home"),
    "kitchen": ("in the kitchen", "in a kitchen", "inside a kitchen"),
    "forest": ("in the forest", "in the woods", "in a forest", "among the trees"),
    "mountain": ("in the mountains", "in front of mountains", "near the mountains", "below snowy peaks"),
    "desert": ("in the desert", "in a desert", "among the sand dunes", "on the dunes"),
    "sea": ("on the sea", "in the water", "on the ocean", "at sea", "on the water", "on the waves"),
    "road": ("on the road", "on a road", "on a country road", "on the highway"),
    "farm": ("on a farm", "on the farm", "at the farm", "in front of a barn", "by a red barn"),
    "sky": ("in the sky", "in the air", "among the clouds", "high in the sky", "up in the sky"),
    "underwater": ("under water", "underwater", "under the sea", "at the bottom of the sea"),
    "garden": ("in the garden", "in a garden", "in a flower garden", "among the flowers"),
    "space": ("in space", "in outer space", "among the stars and planets", "among the planets"),
    "playground": ("at the playground", "on a playground", "in the playground", "near a slide and a swing"),
    "stage": ("on a stage", "on the stage", "on stage", "in a theater", "in front of red curtains"),
}
"""What people say of each place, right after a noun phrase; the commonest first."""
TIMES: dict[str, tuple[str, ...]] = {
    "day": ("during the day", "on a sunny day", "in daylight", "in the daytime", "by day"),
    "night": ("at night", "in the dark", "at nighttime", "in the night", "by night"),
    "sunset": ("at sunset", "at dusk", "in the evening", "at sundown"),
}
WEATHER: dict[str, tuple[str, ...]] = {
    "rain": ("in the rain", "on a rainy day", "while it is raining", "in rainy weather"),
    "snow": ("while it is snowing", "in falling snow", "during a snowfall", "in a snowstorm"),
}
INDOORS = frozenset({"room", "kitchen", "stage"})
OUTDOORS = (
    "beach",
    "park",
    "snow",
    "city",
    "forest",
    "mountain",
    "desert",
    "road",
    "farm",
    "garden",
    "playground",
)
"""Places with ground to stand on under the open sky."""

_SKIES: dict[str, tuple[RGB, RGB]] = {
    "day": ((95, 170, 240), (205, 232, 250)),
    "night": ((10, 14, 48), (44, 54, 108)),
    "sunset": ((98, 62, 138), (253, 165, 84)),
}
_LIGHT: dict[str, tuple[float, float, float]] = {
    "day": (1.0, 1.0, 1.0),
    "night": (0.44, 0.49, 0.68),
    "sunset": (0.96, 0.8, 0.72),
}
"""Factors of red, green and blue by the time of day."""
_LAMPLIGHT: dict[str, tuple[float, float, float]] = {
    "day": (1.0, 1.0, 1.0),
    "night": (0.52, 0.52, 0.64),
    "sunset": (0.95, 0.82, 0.74),
}
"""`_LIGHT` for indoors."""
_CLOUDS: dict[str, RGB] = {"day": (251, 252, 254), "night": (92, 98, 140), "sunset": (252, 196, 164)}
_PETALS: tuple[RGB, ...] = (
    (236, 60, 90),
    (252, 212, 62),
    (205, 110, 224),
    (252, 250, 250),
    (250, 140, 60),
    (250, 140, 190),
)
_WOOD: RGB = (150, 104, 62)
_LEAVES: RGB = (62, 142, 62)
_GRASS: RGB = (106, 182, 76)
_METAL: RGB = (146, 152, 162)


@dataclass
class _Scene:
    """A background in the making."""

    time: str
    side: int
    rng: Random
    style: Style
    horizon: float
    light: tuple[float, float, float]
    sky: tuple[RGB, RGB]
    image: Image.Image = field(init=False)
    draw: ImageDraw.ImageDraw = field(init=False)

    def __post_init__(self) -> None:
        self.gradient(*self.sky)

    def gradient(self, top: RGB, bottom: RGB) -> None:
        """Start afresh, with a sheet that goes from `top` to `bottom`."""
        rows = np.linspace(top, bottom, self.side).astype(np.uint8)[:, None, :]
        self.image = Image.fromarray(rows).resize((self.side, self.side), Image.Resampling.NEAREST)
        self.draw = ImageDraw.Draw(self.image)

    def lit(self, colour: RGB, amount: float = 8) -> RGB:
        """`colour` in this scene's light, jittered by up to `amount`."""
        red, green, blue = jitter(colour, self.rng, amount)
        return int(red * self.light[0]), int(green * self.light[1]), int(blue * self.light[2])

    def edge(self, fill: RGB) -> tuple[RGB | None, int]:
        """Colour and width of a large shape's outline."""
        if not self.style.outline:
            return None, 0
        return shade(fill, 0.5 + self.style.ink / 2), max(1, round(self.side * self.style.outline * 0.5))

    def rect(self, x0: float, y0: float, x1: float, y1: float, fill: RGB, *, outline: bool = False) -> None:
        """A filled rectangle between two corners."""
        s = self.side
        ink, width = self.edge(fill) if outline else (None, 0)
        self.draw.rectangle((x0 * s, y0 * s, x1 * s, y1 * s), fill=fill, outline=ink, width=width)

    def ellipse(self, x: float, y: float, rx: float, ry: float, fill: RGB, *, outline: bool = False) -> None:
        """A filled ellipse round (x, y)."""
        s = self.side
        box = ((x - rx) * s, (y - ry) * s, (x + rx) * s, (y + ry) * s)
        ink, width = self.edge(fill) if outline else (None, 0)
        self.draw.ellipse(box, fill=fill, outline=ink, width=width)

    def poly(self, points: Sequence[Point], fill: RGB, *, outline: bool = False) -> None:
        """A filled polygon."""
        pixels = [(x * self.side, y * self.side) for x, y in points]
        self.draw.polygon(pixels, fill=fill)
        ink, width = self.edge(fill) if outline else (None, 0)
        if ink:
            self.draw.line([*pixels, pixels[0]], fill=ink, width=width)

    def line(self, points: Sequence[Point], fill: RGB, width: float) -> None:
        """A stroke `width` thick."""
        pixels = [(x * self.side, y * self.side) for x, y in points]
        self.draw.line(pixels, fill=fill, width=max(1, round(width * self.side)))

    def ground(self, colour: RGB, top: float | None = None) -> None:
        """Everything below `top` (the horizon)."""
        self.rect(0, self.horizon if top is None else top, 1, 1, self.lit(colour))

    def edges(self) -> tuple[float, float]:
        """Pick x in the left and in the right margin, in either order: for the big cue, for the small."""
        left, right = self.rng.uniform(0.1, 0.2), self.rng.uniform(0.8, 0.9)
        return (left, right) if self.rng.random() < 0.5 else (right, left)


# Things in the sky.


def _stars(scene: _Scene, count: int, bottom: float) -> None:
    for _ in range(count):
        size = scene.rng.uniform(0.004, 0.008)
        scene.ellipse(scene.rng.random(), scene.rng.random() * bottom, size, size, (250, 248, 226))


def _moon(scene: _Scene) -> None:
    x, y = scene.rng.uniform(0.12, 0.88), scene.rng.uniform(0.09, 0.2)
    scene.ellipse(x, y, 0.068, 0.068, (250, 245, 205))
    if scene.rng.random() < 0.5:
        dark = scene.image.getpixel((0, round(y * scene.side)))
        scene.ellipse(x + 0.034, y - 0.016, 0.058, 0.058, dark)
    else:
        scene.ellipse(x - 0.02, y - 0.015, 0.016, 0.014, (226, 220, 180))
        scene.ellipse(x + 0.022, y + 0.02, 0.012, 0.012, (226, 220, 180))


def _cloud(scene: _Scene, x: float, y: float, size: float) -> None:
    colour = jitter(_CLOUDS[scene.time], scene.rng, 4)
    for right, down, radius in ((-0.075, 0.012, 0.045), (0, -0.014, 0.062), (0.075, 0.012, 0.045)):
        scene.ellipse(x + right * size, y + down * size, radius * size * 1.25, radius * size, colour)


def _clouds(scene: _Scene, count: int, bottom: float) -> None:
    for _ in range(count):
        x, y = scene.rng.random(), scene.rng.uniform(0.05, bottom)
        _cloud(scene, x, y, scene.rng.uniform(0.75, 1.3))


def _sun(scene: _Scene) -> None:
    x, y = scene.rng.uniform(0.1, 0.9), scene.rng.uniform(0.09, 0.17)
    colour = (255, 224, 72)
    if scene.rng.random() < 0.4:
        for turn in range(10):
            c, s = math.cos(math.tau * turn / 10), math.sin(math.tau * turn / 10)
            scene.line([(x + 0.085 * c, y + 0.085 * s), (x + 0.115 * c, y + 0.115 * s)], colour, 0.013)
    scene.ellipse(x, y, 0.068, 0.068, colour)


def _low_sun(scene: _Scene) -> None:
    x, y = scene.rng.uniform(0.2, 0.8), scene.horizon - scene.rng.uniform(0.02, 0.1)
    scene.ellipse(x, y, 0.135, 0.135, (254, 176, 92))
    scene.ellipse(x, y, 0.1, 0.1, (255, 208, 92))


def _heavens(scene: _Scene) -> None:
    """Sun or moon, stars, clouds."""
    if scene.time == "night":
        _stars(scene, 26, scene.horizon)
        _moon(scene)
    elif scene.time == "sunset":
        _low_sun(scene)
        _clouds(scene, scene.rng.randint(0, 2), 0.25)
    else:
        if scene.rng.random() < 0.65:
            _sun(scene)
        _clouds(scene, scene.rng.randint(0, 3), 0.32)


# Things that several places share.


def _hills(scene: _Scene, colour: RGB, count: int = 2, height: float = 0.09) -> None:
    for _ in range(count):
        x, wide = scene.rng.random(), scene.rng.uniform(0.3, 0.55)
        high = height * scene.rng.uniform(0.7, 1.3)
        scene.ellipse(x, scene.horizon + 0.02, wide, high, scene.lit(colour, 12))


def _tufts(scene: _Scene, colour: RGB, count: int = 14) -> None:
    for _ in range(count):
        x, y = scene.rng.random(), scene.rng.uniform(scene.horizon + 0.05, 0.98)
        scene.line([(x - 0.012, y - 0.026), (x, y), (x + 0.012, y - 0.03)], scene.lit(colour), 0.008)


def _round_tree(scene: _Scene, x: float, foot: float, size: float) -> None:
    scene.rect(x - 0.02 * size, foot - 0.2 * size, x + 0.02 * size, foot, scene.lit((112, 76, 46)))
    leaves = scene.lit(_LEAVES, 18)
    for right, up, radius in ((-0.07, 0.22, 0.085), (0.07, 0.22, 0.085), (0, 0.3, 0.105)):
        scene.ellipse(x + right * size, foot - up * size, radius * size, radius * size, leaves)


def _pine(scene: _Scene, x: float, foot: float, size: float, leaves: RGB, snow: RGB | None = None) -> None:
    scene.rect(x - 0.016 * size, foot - 0.08 * size, x + 0.016 * size, foot, scene.lit((96, 66, 42)))
    for row in range(3):
        base, half = foot - (0.05 + 0.09 * row) * size, (0.105 - 0.022 * row) * size
        tip = base - 0.15 * size
        scene.poly([(x - half, base), (x + half, base), (x, tip)], leaves)
        if snow:
            scene.poly(
                [(x - half * 0.45, base - 0.082 * size), (x + half * 0.45, base - 0.082 * size), (x, tip)],
                snow,
            )


def _fence(scene: _Scene, top: float, height: float, colour: RGB, *, pointed: bool, count: int = 12) -> None:
    paint = scene.lit(colour)
    for rail in (0.3, 0.7):
        scene.rect(0, top + height * rail - 0.008, 1, top + height * rail + 0.008, paint)
    half = 0.28 / count
    for board in range(count):
        x = (board + 0.5) / count
        if pointed:
            corners = [
                (x - half, top + height),
                (x - half, top + 0.02),
                (x, top - 0.015),
                (x + half, top + 0.02),
            ]
            scene.poly([*corners, (x + half, top + height)], paint)
        else:
            scene.rect(x - half / 2, top, x + half / 2, top + height, paint)


def _bloom(scene: _Scene, x: float, y: float, size: float) -> None:
    petals = scene.lit(scene.rng.choice(_PETALS))
    for turn in range(5):
        angle = math.tau * turn / 5
        scene.ellipse(x + size * math.cos(angle), y + size * math.sin(angle), size * 0.8, size * 0.8, petals)
    scene.ellipse(x, y, size * 0.65, size * 0.65, scene.lit((250, 205, 70)))


def _windows(scene: _Scene, x0: float, y0: float, x1: float, y1: float, wall: RGB) -> None:
    """Rows of small windows over a wall."""
    bright = (198, 222, 240) if scene.time == "day" else (255, 226, 122)
    dark = shade(wall, 0.6)
    y = y0
    while y < y1:
        x = x0
        while x + 0.022 < x1:
            scene.rect(x, y, x + 0.022, y + 0.028, bright if scene.rng.random() < 0.72 else dark)
            x += 0.042
        y += 0.058


def _view(scene: _Scene, x0: float, y0: float, x1: float, y1: float) -> None:
    """A window, and the hour behind it."""
    frame = scene.lit((250, 250, 250), 2)
    scene.rect(x0 - 0.022, y0 - 0.022, x1 + 0.022, y1 + 0.022, frame, outline=True)
    scene.rect(x0, y0, x1, y1, {"day": (150, 206, 250), "night": (16, 22, 66), "sunset": (250, 142, 84)}[scene.time])
    x = x0 + (x1 - x0) * scene.rng.choice((0.25, 0.75))
    if scene.time == "night":
        for _ in range(6):
            scene.ellipse(scene.rng.uniform(x0, x1), scene.rng.uniform(y0, y1), 0.005, 0.005, (250, 250, 230))
        scene.ellipse(x, y0 + 0.06, 0.032, 0.032, (250, 245, 200))
    elif scene.time == "sunset":
        scene.ellipse(x, y1 - 0.05, 0.04, 0.04, (255, 214, 96))
    else:
        scene.ellipse(x, y0 + 0.07, 0.05, 0.025, (252, 252, 254))
        scene.rect(x0, y1 - 0.04, x1, y1, (120, 190, 96))
    middle = (x0 + x1) / 2
    scene.line([(middle, y0), (middle, y1)], frame, 0.014)
    scene.line([(x0, (y0 + y1) / 2), (x1, (y0 + y1) / 2)], frame, 0.014)


# The places.


def _beach(scene: _Scene) -> None:
    """Sea with foam, sand with shells, and palm leaves at one top corner."""
    _heavens(scene)
    scene.ground((56, 142, 208))
    _swell(scene, scene.horizon + 0.02, scene.horizon + 0.09, 5)
    shore = scene.horizon + 0.12
    wash = [(x / 8, shore + 0.018 * math.sin(x * 1.7 + scene.rng.uniform(-0.6, 0.6))) for x in range(9)]
    scene.poly([*wash, (1, 1), (0, 1)], scene.lit((243, 218, 152)))
    scene.line(wash, scene.lit((252, 252, 252)), 0.022)
    for _ in range(12):
        x, y = scene.rng.random(), scene.rng.uniform(shore + 0.06, 0.99)
        scene.ellipse(x, y, 0.006, 0.005, scene.lit((206, 176, 112)))
    for x in scene.edges():
        shell = scene.lit(scene.rng.choice(((240, 140, 130), (250, 240, 230), (240, 120, 70))))
        scene.ellipse(x, scene.rng.uniform(0.9, 0.97), 0.024, 0.017, shell)
    _palm(scene)


def _palm(scene: _Scene) -> None:
    """A palm that leans in from one side."""
    left = scene.rng.random() < 0.5
    sign, base = (1, 0) if left else (-1, 1)
    foot, top = scene.horizon + 0.24, scene.rng.uniform(0.14, 0.22)
    crown = base + sign * 0.14
    trunk = [(base + sign * 0.02, foot), (base + sign * 0.05, (foot + top) / 2), (crown, top)]
    scene.line(trunk, scene.lit((142, 100, 62)), 0.034)
    leaves = scene.lit((52, 148, 70), 12)
    for right, down in (
        (-0.18, 0.03),
        (-0.12, 0.12),
        (0.18, 0.01),
        (0.14, 0.12),
        (0.06, -0.09),
        (-0.09, -0.08),
    ):
        tip, bend = (crown + right, top + down + 0.03), (crown + right * 0.55, top + down * 0.3 - 0.05)
        scene.poly([(crown, top), bend, tip, (bend[0], bend[1] + 0.045)], leaves)


def _park(scene: _Scene) -> None:
    """Lawn, round trees at both sides, a winding path."""
    _heavens(scene)
    _hills(scene, (122, 192, 92))
    scene.ground(_GRASS)
    bend, foot = scene.rng.uniform(0.3, 0.7), scene.rng.uniform(0.2, 0.8)
    path = [(bend - 0.02, scene.horizon), (bend + 0.02, scene.horizon), (foot + 0.2, 0.8), (foot + 0.28, 1)]
    scene.poly([*path, (foot - 0.1, 1), (foot + 0.02, 0.8)], scene.lit((224, 204, 158)))
    _tufts(scene, (62, 136, 52), 10)
    big, small = scene.edges()
    _round_tree(scene, big, scene.horizon + 0.07, scene.rng.uniform(1.0, 1.25))
    _round_tree(scene, small, scene.horizon + 0.03, scene.rng.uniform(0.6, 0.9))


def _snow(scene: _Scene) -> None:
    """White hills, and pines under snow at both sides."""
    _heavens(scene)
    _hills(scene, (222, 232, 246), 3, 0.12)
    scene.ground((243, 247, 253))
    for _ in range(3):
        x, y = scene.rng.random(), scene.rng.uniform(scene.horizon + 0.12, 0.95)
        scene.ellipse(x, y, 0.16, 0.016, scene.lit((219, 230, 245), 3))
    white = scene.lit((252, 253, 255), 2)
    for x in scene.edges():
        size = scene.rng.uniform(0.9, 1.4)
        _pine(scene, x, scene.horizon + 0.06, size, scene.lit((58, 112, 92)), white)


def _city(scene: _Scene) -> None:
    """Skyscrapers, pavement, street."""
    _heavens(scene)
    x = -scene.rng.uniform(0, 0.06)
    walls = ((122, 132, 156), (156, 134, 128), (104, 114, 132), (176, 170, 164), (176, 112, 92))
    while x < 1:
        wide, high = scene.rng.uniform(0.12, 0.2), scene.rng.uniform(0.22, 0.5)
        wall = scene.lit(scene.rng.choice(walls))
        scene.rect(x, scene.horizon - high, x + wide - 0.008, scene.horizon + 0.06, wall, outline=True)
        _windows(scene, x + 0.02, scene.horizon - high + 0.03, x + wide - 0.018, scene.horizon, wall)
        x += wide
    scene.ground((188, 188, 190), scene.horizon + 0.05)
    scene.ground((98, 98, 104), scene.horizon + 0.13)
    for stripe in range(4):
        scene.rect(stripe * 0.28, 0.86, stripe * 0.28 + 0.14, 0.875, scene.lit((240, 240, 236)))


def _road(scene: _Scene) -> None:
    """Fields, a wide road that runs across or away, telegraph poles with wires along the top."""
    _heavens(scene)
    _hills(scene, (140, 190, 96))
    scene.ground((132, 184, 88))
    top = scene.rng.uniform(0.13, 0.2)
    _poles(scene, top)
    tar, paint = scene.lit((92, 92, 98)), scene.lit((250, 236, 150), 4)
    if scene.rng.random() < 0.5:
        kerb = scene.horizon + 0.07
        scene.rect(0, kerb, 1, 1, tar)
        scene.rect(0, kerb + 0.02, 1, kerb + 0.034, scene.lit((245, 245, 245), 3))
        start = scene.rng.uniform(-0.2, 0)
        for dash in range(6):
            scene.rect(start + dash * 0.24, 0.82, start + dash * 0.24 + 0.14, 0.85, paint)
        return
    far = scene.rng.uniform(0.35, 0.65)
    scene.poly([(far - 0.025, scene.horizon), (far + 0.025, scene.horizon), (1.15, 1), (-0.15, 1)], tar)
    for near, wide in ((0.08, 0.01), (0.25, 0.016), (0.5, 0.025), (0.8, 0.04)):
        y0, y1 = (
            scene.horizon + (1 - scene.horizon) * near,
            scene.horizon + (1 - scene.horizon) * (near + 0.12),
        )
        x = far + (0.5 - far) * near
        scene.poly([(x - wide / 2, y0), (x + wide / 2, y0), (x + wide * 0.7, y1), (x - wide * 0.7, y1)], paint)


def _poles(scene: _Scene, top: float) -> None:
    wood, wire = scene.lit((112, 84, 62)), scene.lit((60, 60, 66))
    first = scene.rng.uniform(0.04, 0.16)
    posts = [first, first + 0.38, first + 0.76]
    for drop in (0.02, 0.05):
        scene.line([(0, top + drop + 0.03), *((x, top + drop) for x in posts), (1, top + drop + 0.03)], wire, 0.007)
    for x in posts:
        scene.rect(x - 0.011, top - 0.03, x + 0.011, scene.horizon + 0.06, wood)
        scene.rect(x - 0.06, top + 0.012, x + 0.06, top + 0.03, wood)


def _farm(scene: _Scene) -> None:
    """A red barn and its silo at one side, fence, furrowed field."""
    _heavens(scene)
    _hills(scene, (150, 190, 84))
    scene.ground((124, 186, 78))
    big, small = scene.edges()
    _furrows(scene, small)
    _barn(scene, 0.22 if big < 0.5 else 0.78, scene.horizon + 0.05)
    _fence(scene, scene.horizon - 0.01, 0.1, (206, 172, 122), pointed=False, count=9)


def _furrows(scene: _Scene, far: float) -> None:
    dark = scene.lit((176, 146, 70))
    for row in range(7):
        near = row / 6 * 1.6 - 0.3
        x = far + (near - 0.5) * 0.3
        scene.poly([(x, scene.horizon + 0.06), (near - 0.035, 1), (near + 0.035, 1)], dark)


def _barn(scene: _Scene, x: float, foot: float) -> None:
    wall, roof, trim = scene.lit((186, 46, 40)), scene.lit((112, 46, 42)), scene.lit((248, 240, 230), 3)
    silo = x + (0.22 if x < 0.5 else -0.22)
    scene.ellipse(silo, foot - 0.34, 0.06, 0.06, scene.lit((120, 128, 140)))
    scene.rect(silo - 0.06, foot - 0.34, silo + 0.06, foot, scene.lit((186, 190, 196)), outline=True)
    scene.rect(x - 0.17, foot - 0.22, x + 0.17, foot, wall, outline=True)
    gable = [(x - 0.2, foot - 0.21), (x - 0.13, foot - 0.33), (x, foot - 0.4), (x + 0.13, foot - 0.33)]
    scene.poly([*gable, (x + 0.2, foot - 0.21)], roof, outline=True)
    scene.rect(x - 0.03, foot - 0.31, x + 0.03, foot - 0.25, trim)
    scene.rect(x - 0.07, foot - 0.15, x + 0.07, foot, trim)
    scene.rect(x - 0.055, foot - 0.135, x + 0.055, foot, wall)
    scene.line([(x - 0.055, foot - 0.135), (x + 0.055, foot)], trim, 0.014)
    scene.line([(x + 0.055, foot - 0.135), (x - 0.055, foot)], trim, 0.014)


def _garden(scene: _Scene) -> None:
    """Picket fence before a hedge, flower beds along it and at both sides, a blossoming branch at the top."""
    _heavens(scene)
    hedge = scene.lit((66, 138, 66), 12)
    for bush in range(8):
        scene.ellipse((bush + 0.5) / 8, scene.horizon - 0.1, 0.09, scene.rng.uniform(0.06, 0.1), hedge)
    scene.rect(0, scene.horizon - 0.1, 1, scene.horizon, hedge)
    scene.ground((100, 170, 72))
    _fence(scene, scene.horizon - 0.13, 0.15, (250, 247, 240), pointed=True)
    stalk = scene.lit((44, 124, 46))
    beds = [(x / 7 + scene.rng.uniform(-0.03, 0.03), scene.horizon + 0.03) for x in range(8)]
    beds += [(side, y) for side in (0.03, 0.11, 0.89, 0.97) for y in (0.72, 0.86)]
    for x, y in beds:
        height = y + scene.rng.uniform(-0.02, 0.03)
        scene.line([(x, height), (x, height + 0.09)], stalk, 0.01)
        _bloom(scene, x, height, 0.021)
    _branch(scene)


def _branch(scene: _Scene) -> None:
    """Roses hanging in from a top corner."""
    base, sign = (0, 1) if scene.rng.random() < 0.5 else (1, -1)
    leaves = scene.lit((70, 150, 66), 12)
    for step in range(6):
        x, y = base + sign * step * 0.075, 0.02 + 0.014 * step * scene.rng.random()
        scene.ellipse(x, y, 0.06, 0.05, leaves)
        scene.ellipse(base + sign * 0.02, step * 0.06, 0.05, 0.05, leaves)
    for step in range(1, 5):
        _bloom(scene, base + sign * step * 0.08, scene.rng.uniform(0.02, 0.06), 0.018)
        _bloom(scene, base + sign * 0.03, step * 0.07, 0.018)


def _mountain(scene: _Scene) -> None:
    """Snow-capped peaks across the whole width, meadow, rocks."""
    _heavens(scene)
    for x in (scene.rng.uniform(0.4, 0.6), scene.rng.uniform(0.02, 0.25), scene.rng.uniform(0.75, 0.98)):
        _peak(scene, x, scene.rng.uniform(0.3, 0.45), scene.rng.uniform(0.28, 0.4))
    _hills(scene, (98, 156, 88), 2, 0.05)
    scene.ground((116, 172, 88))
    for x in (0.05, 0.13, 0.87, 0.95):
        _pine(scene, x, scene.horizon + 0.05, scene.rng.uniform(0.35, 0.5), scene.lit((44, 104, 66)))
    for x in scene.edges():
        scene.ellipse(x, scene.rng.uniform(0.85, 0.95), 0.06, 0.035, scene.lit((146, 148, 152)))


def _peak(scene: _Scene, x: float, high: float, wide: float) -> None:
    rock, snow = scene.lit((118, 124, 146)), scene.lit((250, 250, 254), 3)
    top, base = scene.horizon - high, scene.horizon + 0.01
    scene.poly([(x - wide, base), (x, top), (x + wide, base)], rock, outline=True)
    scene.poly([(x, top), (x + wide, base), (x + wide * 0.3, base)], shade(rock, 0.82))
    line, w = top + high * 0.34, wide * 0.34
    teeth = [
        (x - w, line),
        (x - w * 0.45, line - 0.03),
        (x - w * 0.1, line + 0.02),
        (x + w * 0.4, line - 0.03),
    ]
    scene.poly([(x, top), *teeth, (x + w, line)], snow)


def _forest(scene: _Scene) -> None:
    """Pines behind pines, and trunks that frame the picture."""
    _heavens(scene)
    far = scene.lit((70, 128, 84))
    for tree in range(7):
        _pine(scene, (tree + scene.rng.random()) / 7, scene.horizon + 0.02, scene.rng.uniform(0.8, 1.2), far)
    scene.ground((86, 136, 64))
    for tree in range(6):
        x = (tree + scene.rng.random()) / 6
        size = scene.rng.uniform(1.1, 1.6)
        _pine(scene, x, scene.horizon + 0.06, size, scene.lit((36, 108, 54), 16))
    bark = scene.lit((98, 68, 44))
    for x in (scene.rng.uniform(-0.01, 0.03), scene.rng.uniform(0.97, 1.01)):
        scene.poly(
            [
                (x - 0.045, 0),
                (x + 0.045, 0),
                (x + 0.05, 0.7),
                (x + 0.08, 0.8),
                (x - 0.08, 0.8),
                (x - 0.05, 0.7),
            ],
            bark,
        )
        for _ in range(3):
            right = x + scene.rng.uniform(-0.1, 0.1)
            scene.ellipse(right, 0.02, 0.1, scene.rng.uniform(0.05, 0.1), scene.lit((44, 116, 56), 12))
    _tufts(scene, (52, 104, 44), 8)


def _desert(scene: _Scene) -> None:
    """Dunes, table mountains, saguaros."""
    _heavens(scene)
    mesa = scene.lit((196, 112, 72))
    for x in (scene.rng.uniform(0.25, 0.45), scene.rng.uniform(0.55, 0.75)):
        high, wide = scene.rng.uniform(0.12, 0.2), scene.rng.uniform(0.12, 0.19)
        top, base = scene.horizon - high, scene.horizon + 0.03
        scene.poly([(x - wide, base), (x - wide * 0.7, top), (x + wide * 0.7, top), (x + wide, base)], mesa)
        scene.rect(x - wide * 0.72, top + 0.025, x + wide * 0.72, top + 0.04, shade(mesa, 0.85))
    for colour in ((236, 190, 116), (226, 176, 100)):
        _hills(scene, colour, 2, 0.08)
    scene.ground((232, 186, 110), scene.horizon + 0.02)
    for y in (0.72, 0.84, 0.95):
        x = scene.rng.uniform(-0.1, 0.6)
        swell = [(x + step * 0.1, y + 0.012 * math.sin(step * 1.3)) for step in range(5)]
        scene.line(swell, scene.lit((206, 154, 84)), 0.012)
    big, small = scene.edges()
    _saguaro(scene, big, scene.horizon + 0.1, 1.0)
    _saguaro(scene, small, scene.horizon + 0.04, 0.6)


def _saguaro(scene: _Scene, x: float, foot: float, size: float) -> None:
    green = scene.lit((70, 138, 74))
    scene.line([(x, foot), (x, foot - 0.28 * size)], green, 0.045 * size)
    scene.ellipse(x, foot - 0.28 * size, 0.022 * size, 0.022 * size, green)
    for sign, up in ((-1, 0.1), (1, 0.14)):
        elbow, low = x + sign * 0.075 * size, foot - up * size
        scene.line([(x, low), (elbow, low), (elbow, low - 0.09 * size)], green, 0.032 * size)


def _swell(scene: _Scene, top: float, bottom: float, count: int) -> None:
    s = scene.side
    for _ in range(count):
        x, y = scene.rng.random(), scene.rng.uniform(top, bottom)
        wide = 0.03 + 0.06 * (y - scene.horizon)
        for crest in (-1, 1):
            box = (
                (x + (crest - 1) * wide) * s,
                (y - 0.018) * s,
                (x + (crest + 1) * wide) * s,
                (y + 0.018) * s,
            )
            scene.draw.arc(box, 0, 180, fill=scene.lit((196, 226, 248)), width=max(1, round(s * 0.01)))


def _sea(scene: _Scene) -> None:
    """Open water to the horizon, in bands, with crests."""
    _heavens(scene)
    for band in range(4):
        top = scene.horizon + (1 - scene.horizon) * band / 4
        scene.ground((62 - 8 * band, 146 - 12 * band, 212 - 10 * band), top)
    if scene.time != "day":
        glow = scene.lit((250, 226, 170) if scene.time == "sunset" else (200, 210, 240))
        x = scene.rng.uniform(0.3, 0.7)
        for row in range(6):
            y = scene.horizon + 0.02 + row * 0.03
            scene.rect(x - 0.09 + row * 0.012, y, x + 0.09 - row * 0.012, y + 0.009, glow)
    _swell(scene, scene.horizon + 0.04, 0.97, 18)


def _sky(scene: _Scene) -> None:
    """Nothing but clouds, all the way down."""
    if scene.time == "sunset":
        scene.ellipse(scene.rng.uniform(0.15, 0.85), scene.rng.uniform(0.2, 0.4), 0.1, 0.1, (255, 208, 92))
    elif scene.time == "night":
        _stars(scene, 30, 1.0)
        _moon(scene)
    else:
        _sun(scene)
    for y in (0.15, 0.4, 0.62):
        _cloud(scene, scene.rng.random(), y + scene.rng.uniform(-0.08, 0.08), scene.rng.uniform(0.8, 1.4))
    for step in range(5):
        _cloud(scene, step / 4 + scene.rng.uniform(-0.05, 0.05), scene.rng.uniform(0.94, 1.0), 1.7)


def _underwater(scene: _Scene) -> None:
    """Shafts of light, bubbles, weeds and corals at both sides, sand at the bottom."""
    top, bottom = ((86, 196, 226), (12, 66, 142)) if scene.time != "night" else ((24, 66, 122), (5, 18, 58))
    if scene.time == "sunset":
        top = (150, 168, 190)
    scene.gradient(jitter(top, scene.rng), jitter(bottom, scene.rng))
    light = scene.image.copy()
    shafts = ImageDraw.Draw(light)
    for _ in range(3):
        x, lean = scene.rng.random(), scene.rng.uniform(-0.3, 0.1)
        corners = [(x, 0), (x + 0.09, 0), (x + lean + 0.2, 0.8), (x + lean, 0.8)]
        shafts.polygon([(x * scene.side, y * scene.side) for x, y in corners], fill=tint(top, 0.4))
    scene.image = Image.blend(scene.image, light, 0.3)
    scene.draw = ImageDraw.Draw(scene.image)
    scene.poly([(0, 0.86), (0.3, 0.89), (0.7, 0.87), (1, 0.9), (1, 1), (0, 1)], scene.lit((222, 202, 152)))
    for x in (0.03, 0.1, 0.17, 0.84, 0.91, 0.97):
        _weed(scene, x + scene.rng.uniform(-0.02, 0.02), scene.rng.uniform(0.2, 0.5))
    _coral(scene, scene.edges()[0], 0.93)
    for _ in range(12):
        x, y, size = scene.rng.random(), scene.rng.uniform(0.04, 0.8), scene.rng.uniform(0.01, 0.022)
        scene.ellipse(x, y, size, size, tint(top, 0.5))
        scene.ellipse(x, y, size * 0.6, size * 0.6, tint(top, 0.1))


def _weed(scene: _Scene, x: float, height: float) -> None:
    colour = scene.lit(scene.rng.choice(((44, 152, 84), (34, 126, 72), (110, 160, 60))))
    bends = [(x + 0.018 * math.sin(step * 1.6), 0.93 - height * step / 6) for step in range(7)]
    scene.line(bends, colour, 0.024)


def _coral(scene: _Scene, x: float, foot: float) -> None:
    colour = scene.lit(scene.rng.choice(((240, 110, 110), (250, 150, 80), (220, 110, 190))))
    for right, up in ((-0.07, 0.11), (-0.03, 0.17), (0.025, 0.14), (0.07, 0.1)):
        scene.line([(x, foot), (x + right * 0.6, foot - up * 0.5), (x + right, foot - up)], colour, 0.026)
        scene.ellipse(x + right, foot - up, 0.016, 0.016, colour)


def _space(scene: _Scene) -> None:
    """Stars, a ringed planet at one top corner, other planets elsewhere."""
    tones = (((8, 6, 26), (34, 16, 66)), ((4, 8, 28), (10, 34, 66)), ((16, 4, 30), (60, 14, 60)))
    scene.gradient(*scene.rng.choice(tones))
    _stars(scene, 70, 1.0)
    big, small = scene.edges()
    ball, y = jitter((226, 156, 84), scene.rng, 30), scene.rng.uniform(0.14, 0.22)
    ring = (222, 204, 156)
    scene.ellipse(big, y, 0.165, 0.04, ring)
    scene.ellipse(big, y, 0.125, 0.024, (26, 18, 50))
    scene.ellipse(big, y, 0.09, 0.09, ball, outline=True)
    scene.rect(big - 0.086, y - 0.03, big + 0.086, y - 0.012, shade(ball, 0.8))
    scene.draw.arc(
        (
            (big - 0.145) * scene.side,
            (y - 0.03) * scene.side,
            (big + 0.145) * scene.side,
            (y + 0.034) * scene.side,
        ),
        0,
        180,
        fill=ring,
        width=max(2, round(scene.side * 0.02)),
    )
    _cratered(scene, small, scene.rng.uniform(0.3, 0.5), scene.rng.uniform(0.05, 0.075))
    blue = jitter((70, 136, 220), scene.rng, 16)
    x, y = scene.rng.choice((0.0, 1.0)), scene.rng.uniform(0.85, 0.95)
    scene.ellipse(x, y, 0.17, 0.17, blue)
    scene.ellipse(abs(x - 0.06), y - 0.06, 0.06, 0.04, (90, 180, 90))
    scene.ellipse(abs(x - 0.05), y + 0.06, 0.05, 0.03, (90, 180, 90))


def _cratered(scene: _Scene, x: float, y: float, size: float) -> None:
    colour = jitter(scene.rng.choice(((180, 180, 186), (200, 110, 90), (150, 120, 190))), scene.rng)
    scene.ellipse(x, y, size, size, colour, outline=True)
    for right, down, radius in ((-0.4, -0.2, 0.25), (0.3, 0.3, 0.3), (0.3, -0.45, 0.18)):
        scene.ellipse(x + right * size, y + down * size, radius * size, radius * size, shade(colour, 0.78))


def _playground(scene: _Scene) -> None:
    """A slide at one side, swings at the other, coloured boards, soft ground."""
    _heavens(scene)
    boards = [COLOURS[name] for name in ("red", "yellow", "blue", "green")]
    for board in range(20):
        paint = scene.lit(boards[board % 4])
        scene.rect(board / 20 + 0.004, scene.horizon - 0.07, (board + 1) / 20 - 0.004, scene.horizon + 0.02, paint)
    scene.ground(scene.rng.choice(((214, 150, 104), (226, 196, 140), (130, 190, 96))))
    scene.ellipse(0.5, 0.98, 0.5, 0.14, scene.lit(scene.rng.choice(((92, 160, 210), (240, 190, 90), (210, 110, 90)))))
    if scene.rng.random() < 0.5:
        _slide(scene, 0.06, 1)
        _swing(scene, 0.62)
    else:
        _slide(scene, 0.94, -1)
        _swing(scene, 0.02)


def _slide(scene: _Scene, x: float, sign: int) -> None:
    """Ladder and deck at `x`, the chute going down towards `sign`."""
    top, foot = 0.24, scene.horizon + 0.14
    pole, chute = (
        scene.lit(_METAL),
        scene.lit(scene.rng.choice(((250, 205, 40), (220, 50, 50), (60, 120, 220)))),
    )
    deck = x + sign * 0.13
    for post in (x, deck):
        scene.rect(post - 0.012, top - 0.1, post + 0.012, foot, pole)
    for rung in range(6):
        y = top + 0.04 + (foot - top) * rung / 6
        scene.line([(x, y), (deck, y)], pole, 0.014)
    roof = scene.lit(COLOURS["green"])
    scene.poly([(x - sign * 0.05, top - 0.1), (deck + sign * 0.05, top - 0.1), ((x + deck) / 2, top - 0.2)], roof)
    end = deck + sign * 0.24
    upper = [(deck, top + 0.03), (end, foot - 0.03), (end + sign * 0.06, foot - 0.03)]
    scene.poly([*upper, (end + sign * 0.06, foot + 0.01), (end - sign * 0.02, foot + 0.01), (deck, top + 0.1)], chute)
    scene.line(upper, shade(chute, 0.75), 0.014)


def _swing(scene: _Scene, x: float) -> None:
    """An A-frame with one or two seats, 0.36 wide from `x`."""
    top, foot = 0.22, scene.horizon + 0.12
    frame, chain = (
        scene.lit(scene.rng.choice(((220, 50, 50), (60, 120, 220), (70, 160, 70)))),
        scene.lit((70, 70, 76)),
    )
    left, right = x + 0.05, x + 0.31
    for post in (left, right):
        scene.line([(post - 0.05, foot), (post, top), (post + 0.05, foot)], frame, 0.02)
    scene.line([(left, top), (right, top)], frame, 0.026)
    sway = scene.rng.uniform(-0.05, 0.05)
    for seat in (x + 0.12, x + 0.24):
        low = foot - 0.07
        for rope in (-0.028, 0.028):
            scene.line([(seat + rope, top), (seat + rope + sway, low)], chain, 0.008)
        scene.rect(seat + sway - 0.038, low, seat + sway + 0.038, low + 0.022, scene.lit((90, 60, 40)))


def _room(scene: _Scene) -> None:
    """Wallpaper, a curtained window, pictures, a bookcase at one side, a rug."""
    papers = ((240, 224, 196), (206, 222, 236), (236, 210, 216), (208, 228, 204), (228, 216, 236))
    wall = scene.lit(scene.rng.choice(papers))
    scene.rect(0, 0, 1, scene.horizon, wall)
    if scene.rng.random() < 0.6:
        for stripe in range(10):
            scene.rect(stripe / 10, 0, stripe / 10 + 0.04, scene.horizon, shade(wall, 0.95))
    scene.ground((170, 118, 74))
    for row in range(1, 5):
        y = scene.horizon + (1 - scene.horizon) * row / 5
        scene.line([(0, y), (1, y)], scene.lit((142, 96, 58), 3), 0.006)
    scene.rect(0, scene.horizon - 0.025, 1, scene.horizon, scene.lit((248, 244, 238)))
    rug = scene.lit(scene.rng.choice(((184, 60, 70), (70, 100, 170), (90, 140, 110), (190, 150, 200))))
    scene.ellipse(0.5, 0.87, 0.42, 0.1, rug)
    scene.ellipse(0.5, 0.87, 0.35, 0.075, tint(rug, 0.3))
    left = scene.rng.random() < 0.5
    _bookcase(scene, 0.0 if left else 0.8)
    x = scene.rng.uniform(0.34, 0.4) if left else scene.rng.uniform(0.28, 0.34)
    _view(scene, x, 0.09, x + 0.28, 0.38)
    _drapes(scene, x, x + 0.28)
    _painting(scene, 0.87 if left else 0.1, 0.2)


def _drapes(scene: _Scene, x0: float, x1: float) -> None:
    cloth = scene.lit(scene.rng.choice(((200, 80, 80), (90, 130, 190), (230, 180, 90), (120, 160, 110))))
    for outer, inner in ((x0 - 0.06, x0 + 0.035), (x1 + 0.06, x1 - 0.035)):
        scene.poly(
            [(outer, 0.05), (inner, 0.05), ((outer + inner * 2) / 3, 0.25), (inner, 0.43), (outer, 0.43)],
            cloth,
        )
    scene.rect(x0 - 0.08, 0.035, x1 + 0.08, 0.055, scene.lit(_WOOD))


def _bookcase(scene: _Scene, x: float) -> None:
    wood = scene.lit(_WOOD)
    scene.rect(x, 0.12, x + 0.2, scene.horizon + 0.05, wood, outline=True)
    spines = [COLOURS[name] for name in ("red", "blue", "green", "yellow", "purple", "orange", "white")]
    shelf_height = (scene.horizon - 0.12) / 3.4
    for shelf in range(3):
        y = 0.14 + shelf * (shelf_height + 0.018)
        scene.rect(x + 0.016, y, x + 0.184, y + shelf_height, shade(wood, 0.55))
        for book in range(5):
            left = x + 0.02 + book * 0.033
            top = y + shelf_height * scene.rng.uniform(0.15, 0.45)
            scene.rect(left, top, left + 0.025, y + shelf_height, scene.lit(scene.rng.choice(spines)))


def _painting(scene: _Scene, x: float, y: float) -> None:
    scene.rect(x - 0.085, y - 0.07, x + 0.085, y + 0.07, scene.lit((176, 130, 60)), outline=True)
    scene.rect(x - 0.065, y - 0.05, x + 0.065, y + 0.05, scene.lit((150, 200, 226), 20))
    scene.poly([(x - 0.065, y + 0.05), (x, y - 0.02), (x + 0.065, y + 0.05)], scene.lit((90, 150, 90), 20))


def _kitchen(scene: _Scene) -> None:
    """Tiled wall, cupboards along the top, worktop with cooker, refrigerator at one side, chequered floor."""
    scene.rect(0, 0, 1, scene.horizon, scene.lit((236, 240, 238), 6))
    grout = scene.lit((198, 206, 208), 3)
    for row in range(1, 8):
        scene.line([(0, row * 0.08), (1, row * 0.08)], grout, 0.005)
    for column in range(1, 12):
        scene.line([(column / 12, 0), (column / 12, scene.horizon)], grout, 0.005)
    _chequers(scene)
    doors = scene.rng.choice(((200, 146, 96), (110, 160, 170), (236, 214, 170), (150, 180, 130), (200, 110, 100)))
    left = scene.rng.random() < 0.5
    start, end = (0.24, 1.0) if left else (0.0, 0.76)
    _cupboards(scene, start, end, scene.lit(doors))
    _refrigerator(scene, 0.0 if left else 0.78)
    window = start + 0.27 if left else start + 0.24
    _view(scene, window, 0.1, window + 0.22, 0.32)
    _cooker(scene, 0.82 if left else 0.02)


def _chequers(scene: _Scene) -> None:
    scene.ground((238, 236, 230))
    dark = scene.lit(scene.rng.choice(((92, 98, 110), (170, 90, 80), (100, 140, 150))))
    height = (1 - scene.horizon) / 4
    for row in range(4):
        y = scene.horizon + row * height
        for column in range(row % 2, 9, 2):
            scene.rect(column / 8, y, (column + 1) / 8, y + height, dark)


def _cupboards(scene: _Scene, start: float, end: float, paint: RGB) -> None:
    knob, count = scene.lit((80, 80, 84)), 4
    wide = (end - start) / count
    for door in range(count):
        x0, x1 = start + door * wide, start + (door + 1) * wide
        if door in {0, count - 1}:
            scene.rect(x0 + 0.006, 0, x1 - 0.006, 0.22, paint, outline=True)
            scene.ellipse(x1 - 0.03, 0.18, 0.01, 0.01, knob)
        scene.rect(x0, scene.horizon - 0.14, x1 - 0.006, scene.horizon + 0.05, paint, outline=True)
        scene.line([(x0 + wide * 0.35, scene.horizon - 0.1), (x0 + wide * 0.65, scene.horizon - 0.1)], knob, 0.012)
    scene.rect(start, scene.horizon - 0.17, end, scene.horizon - 0.135, scene.lit((112, 112, 120)))


def _refrigerator(scene: _Scene, x: float) -> None:
    white, grey = scene.lit((230, 233, 237)), scene.lit((110, 114, 122))
    scene.rect(x, 0.08, x + 0.22, scene.horizon + 0.06, white, outline=True)
    scene.line([(x, 0.27), (x + 0.22, 0.27)], grey, 0.01)
    for top, bottom in ((0.18, 0.25), (0.3, 0.42)):
        scene.line([(x + 0.19, top), (x + 0.19, bottom)], grey, 0.014)


def _cooker(scene: _Scene, x: float) -> None:
    top = scene.horizon - 0.17
    scene.rect(x, top, x + 0.16, scene.horizon + 0.05, scene.lit((196, 200, 206)), outline=True)
    scene.rect(x + 0.02, top + 0.07, x + 0.14, scene.horizon + 0.01, scene.lit((50, 50, 58)))
    for knob in range(3):
        scene.ellipse(x + 0.04 + knob * 0.04, top + 0.035, 0.011, 0.011, scene.lit((60, 60, 66)))
    pot = scene.lit(scene.rng.choice(((210, 60, 50), (70, 110, 180), (240, 180, 60))))
    scene.rect(x + 0.03, top - 0.085, x + 0.13, top, pot, outline=True)
    scene.rect(x + 0.015, top - 0.095, x + 0.145, top - 0.075, shade(pot, 0.7))


def _stage(scene: _Scene) -> None:
    """Red curtains at both sides and above, boards, spotlights; the hour shows on the painted backdrop."""
    _backdrop(scene)
    boards = scene.lit((176, 124, 76))
    scene.rect(0, scene.horizon, 1, 1, boards)
    for plank in range(9):
        far, near = 0.2 + plank * 0.075, plank * 0.25 - 0.5
        scene.line([(far, scene.horizon), (near, 1)], shade(boards, 0.78), 0.007)
    _spots(scene)
    _curtains(scene)
    scene.rect(0, 0.955, 1, 1, scene.lit((92, 58, 40)))
    for bulb in range(8):
        scene.ellipse((bulb + 0.5) / 8, 0.965, 0.018, 0.014, (255, 238, 160))


def _backdrop(scene: _Scene) -> None:
    x = scene.rng.uniform(0.35, 0.65)
    if scene.time == "night":
        _stars(scene, 30, scene.horizon)
        scene.ellipse(x, 0.32, 0.06, 0.06, (250, 245, 205))
    elif scene.time == "sunset":
        scene.ellipse(x, scene.horizon - 0.04, 0.12, 0.12, (255, 208, 92))
    else:
        scene.ellipse(x, 0.32, 0.06, 0.06, (255, 224, 72))
    scene.ellipse(scene.rng.uniform(0.3, 0.7), scene.horizon + 0.03, 0.4, 0.1, scene.lit((110, 170, 110)))


def _spots(scene: _Scene) -> None:
    """Two beams from above, and their pools on the boards."""
    lit = scene.image.copy()
    beams = ImageDraw.Draw(lit)
    for lamp, pool in ((0.28, scene.rng.uniform(0.55, 0.7)), (0.72, scene.rng.uniform(0.3, 0.45))):
        s = scene.side
        beams.polygon(
            [(lamp * s, 0.1 * s), ((pool + 0.2) * s, 0.84 * s), ((pool - 0.2) * s, 0.84 * s)], (255, 246, 196)
        )
        beams.ellipse(((pool - 0.2) * s, 0.78 * s, (pool + 0.2) * s, 0.9 * s), (255, 246, 196))
    scene.image = Image.blend(scene.image, lit, 0.38)
    scene.draw = ImageDraw.Draw(scene.image)


def _curtains(scene: _Scene) -> None:
    cloth = scene.lit((190, 28, 38))
    fold = shade(cloth, 0.72)
    for base, sign in ((0, 1), (1, -1)):
        drape = [(base, 0), (base + sign * 0.24, 0), (base + sign * 0.2, 0.3), (base + sign * 0.11, 0.62)]
        scene.poly([*drape, (base + sign * 0.15, 0.9), (base, 0.9)], cloth, outline=True)
        for pleat in (0.04, 0.1, 0.16):
            end = base + sign * pleat * 0.65
            scene.line([(base + sign * pleat, 0), (base + sign * pleat * 0.9, 0.35), (end, 0.88)], fold, 0.014)
        scene.line([(base, 0.63), (base + sign * 0.115, 0.61)], scene.lit((240, 200, 80)), 0.024)
    for swag in range(5):
        scene.ellipse((swag + 0.5) / 5, 0.0, 0.108, 0.14, scene.lit((172, 22, 34), 4), outline=True)
    scene.rect(0, 0, 1, 0.045, scene.lit((240, 200, 80)))


_PAINTERS: dict[str, Callable[[_Scene], None]] = {
    "beach": _beach,
    "park": _park,
    "snow": _snow,
    "city": _city,
    "room": _room,
    "kitchen": _kitchen,
    "forest": _forest,
    "mountain": _mountain,
    "desert": _desert,
    "sea": _sea,
    "road": _road,
    "farm": _farm,
    "sky": _sky,
    "underwater": _underwater,
    "garden": _garden,
    "space": _space,
    "playground": _playground,
    "stage": _stage,
}


def paint(place: str, time: str, side: int, rng: Random, style: Style) -> tuple[Image.Image, float]:
    """The background: an RGB picture, and how far down its horizon is, as a fraction of `side`."""
    horizon = rng.uniform(0.58, 0.63) if place in INDOORS else rng.uniform(0.51, 0.6)
    light = (_LAMPLIGHT if place in INDOORS else _LIGHT)[time]
    top, bottom = _SKIES[time]
    sky = jitter(top, rng), jitter(bottom, rng)
    scene = _Scene(time=time, side=side, rng=rng, style=style, horizon=horizon, light=light, sky=sky)
    _PAINTERS[place](scene)
    return scene.image, horizon


def weather(picture: Image.Image, kind: str, rng: Random) -> None:
    """Let it rain or snow ("rain", "snow") over the whole of `picture`, in place."""
    {"rain": _rain, "snow": _snowfall}[kind](picture, rng)


def _veil(picture: Image.Image, colour: RGB, amount: float) -> None:
    picture.paste(colour, (0, 0), Image.new("L", picture.size, round(255 * amount)))


def _rain(picture: Image.Image, rng: Random) -> None:
    _veil(picture, (84, 98, 122), 0.3)
    draw, side = ImageDraw.Draw(picture), picture.width
    for x in (rng.uniform(0.05, 0.3), rng.uniform(0.65, 0.95)):
        y, wide = rng.uniform(0.93, 0.97), rng.uniform(0.09, 0.15)
        box = [(x - wide) * side, (y - 0.025) * side, (x + wide) * side, (y + 0.025) * side]
        draw.ellipse(box, fill=(124, 158, 198), outline=(206, 224, 244), width=max(1, side // 100))
    lean = rng.choice((-1, 1)) * rng.uniform(0.015, 0.035)
    for _ in range(70):
        x, y, fall = rng.random(), rng.uniform(-0.05, 1), rng.uniform(0.05, 0.09)
        streak = (x * side, y * side, (x + lean) * side, (y + fall) * side)
        draw.line(streak, fill=(200, 220, 246), width=max(1, round(side / 110)))


def _snowfall(picture: Image.Image, rng: Random) -> None:
    _veil(picture, (196, 206, 222), 0.22)
    draw, side = ImageDraw.Draw(picture), picture.width
    for _ in range(75):
        x, y, size = rng.random() * side, rng.random() * side, rng.uniform(0.008, 0.018) * side
        box = (x - size, y - size, x + size, y + size)
        draw.ellipse(box, fill=(255, 255, 255), outline=(190, 204, 226), width=max(1, side // 200))
