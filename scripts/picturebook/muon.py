"""Muon for the transformer matrices, batched by shape and in float32.

Keller Jordan, "Muon: an optimizer for hidden layers in neural networks" (2024): momentum, then an approximate
orthogonalisation of the update by a quintic Newton-Schulz iteration. `torch.optim.Muon` does one matrix at a time and
iterates in bfloat16, which CPUs without bf16 units emulate; equal shapes stacked in float32 are several times faster.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov momentum, decoupled weight decay and updates scaled to the size of AdamW's."""

    def __init__(
        self, params: Iterable[torch.Tensor], lr: float, weight_decay: float = 0.05, momentum: float = 0.95
    ) -> None:
        super().__init__(list(params), {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One update of every matrix that has a gradient."""
        del closure
        for group in self.param_groups:
            stacks: dict[tuple[int, int], list[tuple[torch.Tensor, torch.Tensor]]] = defaultdict(list)
            for matrix in group["params"]:
                if matrix.grad is None:
                    continue
                state = self.state[matrix]
                momentum = state.setdefault("momentum", torch.zeros_like(matrix))
                momentum.lerp_(matrix.grad, 1 - group["momentum"])
                update = matrix.grad.lerp(momentum, group["momentum"])
                wide = update if update.shape[0] <= update.shape[1] else update.T
                stacks[tuple(wide.shape)].append((matrix, wide))
            for shape, pairs in stacks.items():
                scale = group["lr"] * 0.2 * max(shape) ** 0.5
                for (matrix, _), update in zip(pairs, _orthogonal(torch.stack([u for _, u in pairs])), strict=True):
                    matrix.mul_(1 - group["lr"] * group["weight_decay"])
                    matrix.sub_(scale * (update if matrix.shape == shape else update.T))


def _orthogonal(matrices: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """(N, R, C) matrices with all singular values brought near 1."""
    x = matrices / (matrices.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.transpose(1, 2)
        x = 3.4445 * x + (-4.775 * gram + 2.0315 * (gram @ gram)) @ x
    return x
