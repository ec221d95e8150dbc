"""A picture as a sum of layers of all resolutions, from 2 x 2 pixels up.

With pixels alone, ascent makes fine noise; the coarse layers carry shapes and areas, as in Direct Ascent Synthesis
(arXiv 2502.07753).
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

_COARSEST = 2
_RATE = 0.2
"""Learning rate of the coarsest layer, in logits; it falls with the square root of the resolution."""
_SMOOTH = 3.0
"""Weight of the total variation."""
_GREY = 0.02
"""Weight of the mean square of the logits: a picture becomes glaring where nothing pays for it."""
_LOGIT = 0.02
"""Least distance of a colour to black and white, so that its logit is finite."""


class PixelCanvas:
    """A square picture of free pixels."""

    def __init__(self, side: int, device: torch.device, random: torch.Generator, start: torch.Tensor | None) -> None:
        """Begin with almost even grey, or with a picture.

        Args:
            side: R, the length of its sides in pixels.
            device: where it is computed.
            random: generator on the CPU.
            start: (1, 3, R, R) colours from 0 to 1.
        """
        self.side = side
        sides = [side]
        while sides[-1] // 2 >= _COARSEST:
            sides.append(sides[-1] // 2)
        self._layers = [
            (0.02 * torch.randn(1, 3, one, one, generator=random)).to(device).requires_grad_() for one in sides
        ]
        self._start = 0.0 if start is None else torch.logit(start.to(device), eps=_LOGIT)

    def parameters(self) -> list[dict[str, Any]]:
        """Return groups of parameters with learning rates for Adam."""
        return [{"params": [layer], "lr": _RATE * (_COARSEST / layer.shape[-1]) ** 0.5} for layer in self._layers]

    def render(self) -> torch.Tensor:
        """Return (1, 3, R, R) colours from 0 to 1."""
        return torch.sigmoid(self._logits())

    def penalty(self, picture: torch.Tensor) -> torch.Tensor:
        """Return what is subtracted from the score of a picture that `render` returned: roughness and glare."""
        down = (picture[..., 1:, :] - picture[..., :-1, :]).abs().mean()
        across = (picture[..., 1:] - picture[..., :-1]).abs().mean()
        glare = (picture - 0.5).square().mean()
        return _SMOOTH * (down + across) + _GREY * glare

    def drawn(self, side: int) -> torch.Tensor:
        """Return the picture in another size: (1, 3, side, side) colours from 0 to 1."""
        with torch.no_grad():
            resized = functional.interpolate(
                self.render(), (side, side), mode="bicubic", align_corners=False, antialias=True
            )
            return resized.clamp(0, 1)

    def _logits(self) -> torch.Tensor:
        *finer, logits = self._layers
        for layer in reversed(finer):
            logits = layer + functional.interpolate(logits, layer.shape[2:], mode="bicubic", align_corners=False)
        return logits + self._start
