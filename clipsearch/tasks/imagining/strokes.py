"""A picture as some hundred brush strokes, which are also an SVG file; the idea is CLIPDraw's (arXiv 2106.14843).

Each stroke is a cubic Bézier curve with round ends, of one width, colour and opacity, on an even ground. The rasteriser
is soft, so that gradients flow: a pixel is covered as far as it lies within half a width of the curve.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
from torch.nn import functional

_COUNT = 96
"""Number of strokes."""
_SAMPLES, _SAMPLES_DRAWN = 13, 49
"""Points along a curve while strokes move, and in pictures; between them it is straight. Where a curve bends back, a
pixel's nearest point may belong to the other branch, which shows as dots unless points are close together."""
_BROAD, _NARROW = 0.3, 0.03
"""Width of the lowest and of the uppermost stroke at the start, as shares of the side of the picture."""
_NARROWEST = 0.006
_MOST_OPAQUE = 0.95
"""An opacity of 1 would hide all below from the gradient."""
_EDGE = 1.5
"""Width of a stroke's soft edge in pixels while it moves; pictures are drawn with an edge of one pixel."""
_RATES = {"points": 0.012, "widths": 0.03, "colours": 0.05, "opacities": 0.03, "ground": 0.05}
"""Learning rates for Adam."""
_BLOCKS_TOGETHER = 1 << 11
"""Blocks of pixels that are drawn at a time."""
_LEAST_SIDE = 96
"""Side from which on pixels are taken in blocks of four; in smaller pictures the nearest points would be too rough."""


class StrokeCanvas:
    """A square picture of strokes. Lengths are shares of its side."""

    def __init__(self, side: int, device: torch.device, random: torch.Generator, start: torch.Tensor | None) -> None:
        """Begin with short random strokes from broad to narrow; over a picture, with its colours.

        Args:
            side: R, the length of the sides in pixels while strokes move.
            device: where it is computed.
            random: generator on the CPU.
            start: (1, 3, R, R) colours from 0 to 1.
        """
        self.side, self._device = side, device
        # The first of the list lies on top.
        widths = torch.logspace(math.log10(_NARROW), math.log10(_BROAD), _COUNT)
        first = torch.rand(_COUNT, 1, 2, generator=random)
        steps = (torch.rand(_COUNT, 3, 2, generator=random) - 0.5) * (0.1 + widths).view(-1, 1, 1)
        points = torch.cat([first, first + steps.cumsum(dim=1)], dim=1)
        if start is None:
            colours = torch.rand(_COUNT, 3, generator=random)
            ground = torch.full((3,), 0.8)
        else:
            place = (points.mean(dim=1).clamp(0, 0.999) * start.shape[-1]).long()
            colours, ground = start[0, :, place[:, 1], place[:, 0]].T, start.mean(dim=(0, 2, 3))
        first_values = {
            "points": points,
            "widths": widths.log(),
            "colours": torch.logit(colours, eps=0.02),
            "opacities": torch.full((_COUNT,), 1.0),
            "ground": torch.logit(ground, eps=0.02),
        }
        self._values = {
            name: value.clone().contiguous().to(device).requires_grad_() for name, value in first_values.items()
        }

    def parameters(self) -> list[dict[str, Any]]:
        """Return groups of parameters with learning rates for Adam."""
        return [{"params": [value], "lr": _RATES[name]} for name, value in self._values.items()]

    def render(self) -> torch.Tensor:
        """Return (1, 3, R, R) colours from 0 to 1."""
        return _in_rows(self._paint(_pixels(self.side, self._device), _EDGE / self.side, _SAMPLES), self.side)

    def penalty(self, _: torch.Tensor) -> torch.Tensor:
        """Return what is subtracted from the score of a picture that `render` returned: how far strokes leave it."""
        points = self._values["points"]
        return (points - points.clamp(0, 1)).square().mean()

    def drawn(self, side: int) -> torch.Tensor:
        """Return the picture in another size: (1, 3, side, side) colours from 0 to 1, as SVG is drawn."""
        with torch.no_grad():
            blocks = torch.split(_pixels(side, self._device), _BLOCKS_TOGETHER)
            return _in_rows(torch.cat([self._paint(some, 1 / side, _SAMPLES_DRAWN) for some in blocks]), side)

    def svg(self, side: int) -> str:
        """Return the picture as the text of an SVG file of `side` pixels."""
        widths, colours, opacities, ground = (value.tolist() for value in self._shown())
        lines = [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{side}" height="{side}" viewBox="0 0 {side} {side}">',
            f'<rect width="{side}" height="{side}" fill="{_rgb(ground)}"/>',
            '<g fill="none" stroke-linecap="round" stroke-linejoin="round">',
        ]
        curves = (self._values["points"].detach() * side).tolist()
        # What comes first in SVG lies at the bottom.
        strokes = zip(curves, widths, colours, opacities, strict=True)
        for curve, width, colour, opacity in reversed(list(strokes)):
            start, one, two, end = (f"{x:.2f} {y:.2f}" for x, y in curve)
            lines.append(
                f'<path d="M{start} C{one} {two} {end}" stroke="{_rgb(colour)}" stroke-width="{width * side:.2f}" '
                f'stroke-opacity="{opacity:.3f}"/>'
            )
        return "\n".join([*lines, "</g>", "</svg>", ""])

    @torch.no_grad()
    def _shown(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        return self._appearance()

    def _appearance(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return widths (N), colours (N, 3), opacities (N) and the ground's colour (3)."""
        values = self._values
        return (
            values["widths"].exp().clamp(_NARROWEST, 1),
            torch.sigmoid(values["colours"]),
            _MOST_OPAQUE * torch.sigmoid(values["opacities"]),
            torch.sigmoid(values["ground"]),
        )

    def _paint(self, pixels: torch.Tensor, edge: float, points: int) -> torch.Tensor:
        """Return the (B, P, 3) colours of B blocks of P pixels.

        Args:
            pixels: (B, P, 2) places of the centres of pixels.
            edge: width of the soft edge of a stroke.
            points: number of points along a curve.
        """
        widths, colours, opacities, ground = self._appearance()
        samples = _samples(self._values["points"], points)
        # 1. How much each stroke covers of the pixels that it touches, a few percent of all pairs.
        block, stroke, nearest = _touching(pixels, samples.detach(), (widths.detach() + edge) / 2)
        around = [samples[stroke, nearest + step, None] for step in (-1, 0, 1)]
        distances = torch.minimum(*(_to_segment(pixels[block], one, other) for one, other in pairwise(around)))
        inside = ((widths[stroke, None] / 2 - distances) / edge + 0.5).clamp(0, 1)
        # 2. Those of each block together, K at most, the uppermost first.
        counts = torch.bincount(block, minlength=len(pixels))
        place = torch.arange(len(block), device=self._device) - (counts.cumsum(0) - counts)[block]
        cover = torch.zeros(len(pixels), max(1, int(counts.max())), pixels.shape[1], device=self._device)
        cover = cover.index_put((block, place), inside * opacities[stroke, None])
        paint = torch.zeros(*cover.shape[:2], 3, device=self._device).index_put((block, place), colours[stroke])
        # 3. How much of each is seen through those above it.
        through = torch.log1p(-cover).cumsum(1)
        above = functional.pad(through[:, :-1], (0, 0, 1, 0)).exp()
        seen = (cover * above).transpose(1, 2) @ paint
        return seen + through[:, -1, :, None].exp() * ground


@torch.no_grad()
def _touching(
    pixels: torch.Tensor, samples: torch.Tensor, reach: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Find which of B blocks of pixels N strokes may touch: those within `reach` (N) of their (N, S, 2) samples.

    Returns:
        The block, the stroke and the nearest inner sample of each pair.
    """
    centres, flat = pixels.mean(dim=1), samples.reshape(-1, 2)
    squares = torch.addmm(flat.square().sum(1), centres, flat.T, alpha=-2)
    closest, nearest = squares.reshape(len(pixels), *samples.shape[:2]).min(dim=2)
    # Between two samples, a pixel is closer to the curve than to either of them.
    gaps = (samples[:, 1:] - samples[:, :-1]).norm(dim=2).amax(dim=1)
    corner = (pixels[0, 0] - centres[0]).norm()
    near = closest + centres.square().sum(1, keepdim=True) < (reach + gaps / 2 + corner).square()
    block, stroke = near.nonzero(as_tuple=True)
    return block, stroke, nearest[block, stroke].clamp(1, samples.shape[1] - 2)


def _block(side: int) -> int:
    """Return the side of the blocks of pixels for which strokes are found together."""
    return 2 if side % 2 == 0 and side >= _LEAST_SIDE else 1


def _pixels(side: int, device: torch.device) -> torch.Tensor:
    """Return the (B, P, 2) places of the centres of a picture's pixels, in blocks row by row."""
    steps = (torch.arange(side, device=device) + 0.5) / side
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    size = _block(side)
    places = torch.stack([x, y], dim=-1).reshape(side // size, size, side // size, size, 2)
    return places.transpose(1, 2).reshape(-1, size * size, 2)


def _in_rows(blocks: torch.Tensor, side: int) -> torch.Tensor:
    """Put (B, P, 3) colours of blocks together to (1, 3, side, side)."""
    size = _block(side)
    rows = blocks.reshape(side // size, side // size, size, size, 3)
    return rows.permute(4, 0, 2, 1, 3).reshape(1, 3, side, side)


def _samples(curves: torch.Tensor, count: int) -> torch.Tensor:
    """Return (N, count, 2) points along (N, 4, 2) Bézier curves."""
    t = torch.linspace(0, 1, count, device=curves.device)
    weights = torch.stack([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3], dim=1)
    return weights @ curves


def _to_segment(places: torch.Tensor, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return the distances of places to the segments between points, all (..., 2)."""
    along, away = other - one, places - one
    share = ((away * along).sum(-1) / along.square().sum(-1).clamp(min=1e-12)).clamp(0, 1)
    # The root of zero has no gradient.
    return (away - share[..., None] * along).square().sum(-1).clamp(min=1e-12).sqrt()


def _rgb(colour: list[float]) -> str:
    return "#" + "".join(f"{round(255 * level):02x}" for level in colour)
