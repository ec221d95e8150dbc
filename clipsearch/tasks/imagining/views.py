"""Random looks at a picture: crops, turned and in perspective, with noise.

A model is easily deceived by a single picture of exactly one position: patterns that no person sees raise the cosine.
What raises it over many looks at a time has to be larger than a pixel and bear being moved.
"""

from __future__ import annotations

import torch
from torch.nn import functional

_LEAST = 0.75
"""Smallest share of the picture's side that a look covers."""
_TURN = 0.12
"""Largest angle in radians."""
_TILT = 0.12
"""Largest perspective: by how much the far side is smaller."""


def views(picture: torch.Tensor, side: int, count: int, *, noise: float, random: torch.Generator) -> torch.Tensor:
    """Look at a picture `count` times.

    Args:
        picture: (1, 3, R, R) colours from 0 to 1, where R is at most about twice `side`, so that nothing is skipped.
        side: length of the sides of a look in pixels.
        count: number of looks.
        noise: standard deviation of the noise that is added.
        random: generator on the CPU.

    Returns:
        (count, 3, side, side) colours, with noise also below 0 and above 1.
    """

    def uniform() -> torch.Tensor:
        return torch.rand(count, 1, 1, generator=random)

    # 1. Where each pixel of a look is in the picture, whose corners are (-1, -1) and (1, 1).
    scale = _LEAST + (1 - _LEAST) * uniform()
    angle, across, down, tilt_x, tilt_y = (2 * uniform() - 1 for _ in range(5))
    steps = (torch.arange(side) + 0.5) / side * 2 - 1
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    depth = 1 + _TILT * (tilt_x * x + tilt_y * y)
    cos, sin = torch.cos(_TURN * angle), torch.sin(_TURN * angle)
    places = [
        scale * (cos * x - sin * y) / depth + (1 - scale) * across,
        scale * (sin * x + cos * y) / depth + (1 - scale) * down,
    ]
    grid = torch.stack(places, dim=-1).to(picture.device)
    # 2. The colours there; beyond its edges a picture is mirrored.
    looks = functional.grid_sample(
        picture.expand(count, -1, -1, -1), grid, padding_mode="reflection", align_corners=False
    )
    return looks + noise * torch.randn(looks.shape, generator=random).to(looks.device)
