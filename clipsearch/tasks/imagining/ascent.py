"""Gradient ascent: changes a canvas step by step so that an image tower finds it closer to a text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from PIL import Image

from clipsearch.errors import InputError
from clipsearch.tasks.imagining.pixels import PixelCanvas
from clipsearch.tasks.imagining.strokes import StrokeCanvas
from clipsearch.tasks.imagining.views import views

if TYPE_CHECKING:
    from clipsearch.models.in_torch.image_encoder import ImageEncoder
    from clipsearch.unit import Vectors

PIXELS, STROKES = "pixels", "strokes"
"""The styles: free pixels, or strokes of a brush."""
_VIEWS = 8
"""Looks at the picture in each step."""
_NOISE = 0.4
"""Standard deviation of the noise in the first step; it falls to zero."""
_AGAINST = 0.5
"""Weight of the cosines with what is unwanted."""
_LAST_RATE = 0.05
"""Share of the learning rates that is left in the last step."""
_WIDE = 512
"""Width of an image tower from which on several threads gain something. Below, operations are so short that threads
mostly wait for one another: beside other work on two cores, two threads took five times as long as one."""
_FINER = 2
"""Pixels of a canvas for each pixel of the model's input, both ways: the model sees nothing finer."""
_STROKES_FINER = 1
"""The same for strokes, which have no pixels of their own."""


class Step(NamedTuple):
    """One step of an ascent."""

    number: int
    """Number of steps done."""
    score: float
    """Mean cosine of the looks at the picture with the text."""


class Ascent:
    """A picture that is being made."""

    def __init__(
        self,
        encoder: ImageEncoder,
        wanted: Vectors,
        unwanted: Sequence[Vectors] = (),
        *,
        style: str,
        seed: int = 0,
        start: Image.Image | None = None,
    ) -> None:
        """Begin a picture.

        Args:
            encoder: the image tower.
            wanted: (D,) unit vector of the text.
            unwanted: (D,) unit vectors of texts that the picture should not fit.
            style: `PIXELS` or `STROKES`.
            seed: of everything that is random.
            start: an RGB picture to begin with, whose middle square is taken.

        Raises:
            InputError: there is no such style, or the model takes pictures of any proportions.
        """
        if style not in (PIXELS, STROKES):
            raise InputError(f"There is no style {style!r}; choose {PIXELS} or {STROKES}.")
        seen = encoder.preprocessing.seen
        if seen is None or seen[0] != seen[1]:
            raise InputError("This model takes images of any proportions; choose one with square inputs.")
        self._encoder, self._side, self.style = encoder, seen[0], style
        self._wanted = torch.from_numpy(wanted).to(encoder.device)
        self._unwanted = torch.from_numpy(np.stack(unwanted)).to(encoder.device) if unwanted else None
        self._random = torch.Generator().manual_seed(seed)
        side = self._side * (_FINER if style == PIXELS else _STROKES_FINER)
        first = None if start is None else _colours(start, side)
        kind = PixelCanvas if style == PIXELS else StrokeCanvas
        self._canvas: PixelCanvas | StrokeCanvas = kind(side, encoder.device, self._random, first)

    def climb(self, steps: int) -> Iterator[Step]:
        """Make the picture better `steps` times, and yield after each."""
        if self._encoder.width < _WIDE:
            torch.set_num_threads(1)
        groups = self._canvas.parameters()
        rates = [group["lr"] for group in groups]
        optimizer = torch.optim.Adam(groups)
        for number in range(steps):
            left = 1 - number / steps
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * max(left, _LAST_RATE)
            picture = self._canvas.render()
            looks = views(picture, self._side, _VIEWS, noise=_NOISE * left, random=self._random)
            vectors = self._encoder.embed_colours(looks)
            score = (vectors @ self._wanted).mean()
            loss = self._canvas.penalty(picture) - score
            if self._unwanted is not None:
                loss = loss + _AGAINST * (vectors @ self._unwanted.T).mean()
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            yield Step(number + 1, score.item())

    def picture(self, side: int) -> Image.Image:
        """Return the picture as it is now, with sides of `side` pixels."""
        colours = self._canvas.drawn(side)[0].permute(1, 2, 0)
        return Image.fromarray((colours * 255).round().byte().cpu().numpy())

    def svg(self, side: int) -> str | None:
        """Return the picture as the text of an SVG file; None if it does not consist of strokes."""
        return self._canvas.svg(side) if isinstance(self._canvas, StrokeCanvas) else None


def _colours(picture: Image.Image, side: int) -> torch.Tensor:
    """Return the (1, 3, side, side) colours, from 0 to 1, of the middle square of an RGB picture."""
    short = min(picture.size)
    left, top = (picture.width - short) // 2, (picture.height - short) // 2
    square = picture.resize((side, side), Image.Resampling.BICUBIC, (left, top, left + short, top + short))
    levels = np.asarray(square, np.float32) / np.float32(255)
    return torch.from_numpy(levels).permute(2, 0, 1)[None]
