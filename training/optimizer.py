"""Muon for the matrices inside the layers, AdamW for the rest.

Muon (Keller Jordan, 2024) steps along the momentum with its singular values made one, by five Newton-Schulz
iterations; steps are scaled to the size of AdamW's (arXiv 2502.16982), so that one rate serves both.  Matrices of
one shape, all experts of all layers among them, are iterated in one batch.  Knows parameters and rates.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Executor
from typing import Any

import torch
from torch import Tensor, nn

from training.operators import product_dtype

MOMENTUM = 0.95
WEIGHT_DECAY = 0.1
STEP_RMS = 0.2  # of AdamW's updates
_ITERATIONS = 5
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_MATRICES_AT_A_TIME = 8  # they stay in the cache


class Optimizer:
    """`step(rate)` moves every parameter and clears its gradient."""

    def __init__(self, model: nn.Module) -> None:
        named = dict(model.named_parameters())
        inside = {n: p for n, p in named.items() if p.dim() > 1 and "gate" not in n and "embed" not in n}
        self._matrices = inside
        self._momentum = {name: torch.zeros_like(parameter) for name, parameter in inside.items()}
        self._others = torch.optim.AdamW(
            [parameter for name, parameter in named.items() if name not in inside], betas=(0.9, 0.95), weight_decay=0.0
        )
        self._clipped = list(named.values())

    @torch.no_grad()
    def step(self, rate: float, workers: Executor) -> None:
        nn.utils.clip_grad_norm_(self._clipped, 1.0)
        for group in self._others.param_groups:
            group["lr"] = rate
        self._others.step()
        shapes: dict[tuple[int, int], list[str]] = {}
        for name, parameter in self._matrices.items():
            rows, columns = parameter.shape[-2:]
            shapes.setdefault((min(rows, columns), max(rows, columns)), []).append(name)
        for names in shapes.values():
            self._step_matrices(names, rate, workers)
        for parameter in self._clipped:
            parameter.grad = None

    def _step_matrices(self, names: list[str], rate: float, workers: Executor) -> None:
        pieces = [_wide(self._direction(name)) for name in names]
        some = torch.cat(pieces).split(_MATRICES_AT_A_TIME)
        moved = torch.cat(list(workers.map(orthogonal, some))).split([len(piece) for piece in pieces])
        for name, direction in zip(names, moved, strict=True):
            parameter = self._matrices[name]
            rows, columns = parameter.shape[-2:]
            turned = (direction if rows <= columns else direction.mT).reshape(parameter.shape)
            parameter.mul_(1 - rate * WEIGHT_DECAY)
            parameter.add_(turned, alpha=-rate * STEP_RMS * max(rows, columns) ** 0.5)

    def _direction(self, name: str) -> Tensor:
        gradient, momentum = self._matrices[name].grad, self._momentum[name]
        assert gradient is not None, name
        momentum.lerp_(gradient, 1 - MOMENTUM)
        return gradient.lerp(momentum, MOMENTUM)

    def state_dict(self) -> dict[str, Any]:
        return {"momentum": self._momentum, "others": self._others.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, value in state["momentum"].items():
            self._momentum[name].copy_(value)
        self._others.load_state_dict(state["others"])


def _wide(matrices: Tensor) -> Tensor:
    """[.., R, C] -> [n, min, max]."""
    flat = matrices.reshape(-1, *matrices.shape[-2:])
    return flat if flat.shape[1] <= flat.shape[2] else flat.mT


@torch.no_grad()
def orthogonal(matrices: Tensor) -> Tensor:
    """[n, R, C] with R <= C -> about the nearest matrices with orthonormal rows."""
    a, b, c = _COEFFICIENTS
    matrices = matrices.to(product_dtype(matrices.device))
    x = matrices / (matrices.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(_ITERATIONS):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x
