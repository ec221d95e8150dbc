"""Rectangular parts of images. Needs no image library, since queries parse them."""

from __future__ import annotations

import math
import re
from typing import NamedTuple

from clipsearch.errors import InputError

_NUMBER = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+))(%?)\s*", re.ASCII)


class Box(NamedTuple):
    """A rectangle within an upright image."""

    left: float
    top: float
    right: float
    bottom: float
    percent: bool = False
    """Whether the four are percent of the image's width and height, instead of pixels."""

    def __str__(self) -> str:
        """Return the text from which `parse_box` reads the box."""
        return ",".join(f"{edge:g}{'%' if self.percent else ''}" for edge in self[:4])

    def in_pixels(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Return left, upper, right and lower edge in an image of `width` x `height` pixels: at least one whole pixel.

        Raises:
            InputError: the box is not within the image.
        """
        x, y = (width / 100, height / 100) if self.percent else (1, 1)
        if min(self[:4]) < 0 or self.right * x > width or self.bottom * y > height:
            raise InputError(f"The box {self} is not within the image, which has {width} x {height} pixels.")
        left, top = min(round(self.left * x), width - 1), min(round(self.top * y), height - 1)
        return left, top, max(round(self.right * x), left + 1), max(round(self.bottom * y), top + 1)

    def scaled(self, width: int, height: int, content: tuple[float, float, float, float]) -> tuple[int, int, int, int]:
        """The same edges in a decoded image, whose `content` shows all of the image, perhaps with fewer pixels.

        A RAW file with a small preview is decoded so. At least one pixel is left.

        Raises:
            InputError: the box is not within the image.
        """
        left, top, right, bottom = self.in_pixels(width, height)
        x, y = (content[2] - content[0]) / width, (content[3] - content[1]) / height
        start = (
            min(round(content[0] + left * x), int(content[2]) - 1),
            min(round(content[1] + top * y), int(content[3]) - 1),
        )
        end = round(content[0] + right * x), round(content[1] + bottom * y)
        return *start, max(end[0], start[0] + 1), max(end[1], start[1] + 1)


def parse_box(given: str) -> Box:
    """Read `L,T,R,B`, in pixels or each in percent.

    Raises:
        InputError: `given` is something else, or the box is empty.
    """
    found = [_NUMBER.fullmatch(part) for part in given.split(",")]
    numbers = [one for one in found if one]
    units = {one[2] for one in numbers}
    if len(numbers) != len(found) or len(numbers) != len(Box._fields) - 1 or len(units) != 1:
        raise InputError(
            "A box is LEFT,TOP,RIGHT,BOTTOM in pixels or in percent, as in 10,20,300,400 or 0%,0%,50%,50%; "
            f"not {given!r}."
        )
    left, top, right, bottom = (float(one[1]) for one in numbers)
    return check_box(Box(left, top, right, bottom, percent=units == {"%"}))


def check_box(box: Box) -> Box:
    """Return `box` unless it is empty.

    Raises:
        InputError: opposite edges are equal, in the wrong order, or not finite.
    """
    if not all(map(math.isfinite, box[:4])) or not (box.left < box.right and box.top < box.bottom):
        raise InputError(f"There is nothing in the box {box}. The order is LEFT,TOP,RIGHT,BOTTOM.")
    return box
