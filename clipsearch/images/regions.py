"""The layout of regions: which parts of a large image get vectors of their own. Knows nothing of models and pixels."""

from __future__ import annotations

from clipsearch.images.box import Box

_LEAST = 1.5
"""Images whose shorter side is less than this times the input of the model have no regions."""
_OVERLAP = 0.25
"""Share of a region that it has in common with the next."""


def layout(width: int, height: int, side: int) -> list[Box]:
    """Divide an upright image into overlapping square regions; none if it is hardly larger than the model's input.

    Args:
        width: of the image, in pixels.
        height: of the image, in pixels.
        side: the length of the sides of the model's input, in pixels.

    Returns:
        Boxes in whole pixels, row by row from the top.
    """
    if min(width, height) < _LEAST * side:
        return []
    length = round(min(width, height) / (2 - _OVERLAP))
    return [Box(left, top, left + length, top + length) for top in (0, height - length) for left in (0, width - length)]
