"""The mixture of experts of one layer: route rows, run each expert on its rows, add up.

Knows routing and SwiGLU; gets weights from an ExpertSource and knows nothing of where they were.
T = rows, H = hidden, E = experts, K = experts of a row, A = all assignments = T * K.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from typing import NamedTuple

import torch

from rotary_batch.core import ExpertKey
from rotary_batch.engine.kernels.numerics import Numerics
from rotary_batch.engine.offload.source import ExpertSource, Slab
from rotary_batch.engine.runtime.trace import Trace


def route(scores: torch.Tensor, top_k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Router scores [T, E] -> weights [T, K] in float32 that sum to 1, chosen experts [T, K]."""
    weights, chosen = scores.float().softmax(-1).topk(top_k)
    return weights / weights.sum(-1, keepdim=True), chosen


class Dispatch(NamedTuple):
    """Which rows go to which expert of one layer."""

    rows: torch.Tensor  # [A] batch row of each assignment, those of expert 0 first
    places: torch.Tensor  # [T, K] where each row's assignments are among them, in the order of the router's choice
    weights: torch.Tensor  # [T, K] float32
    counts: list[int]  # how many assignments each expert has

    @classmethod
    def sort(
        cls, weights: torch.Tensor, chosen: torch.Tensor, num_experts: int, likely: Mapping[int, torch.Tensor]
    ) -> tuple[Dispatch, dict[int, list[int]]]:
        """Weights and chosen experts [T, K] -> assignments by expert, and `likely` on the host.

        All that the host has to know comes in the layer's one copy.
        """
        flat = chosen.flatten()  # counted by comparing: bincount waits for the device
        order = flat.argsort(stable=True)
        places = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
        counts = (flat[:, None] == torch.arange(num_experts, device=flat.device)).sum(0)
        host = torch.cat([counts, *likely.values()]).tolist()
        begin, likely_ids = num_experts, {}
        for distance, ids in likely.items():
            likely_ids[distance] = host[begin : begin + len(ids)]
            begin += len(ids)
        return cls(order // chosen.shape[1], places.view(chosen.shape), weights, host[:num_experts]), likely_ids

    def keys(self, layer: int) -> list[ExpertKey]:
        """The experts that have rows, ascending."""
        return [ExpertKey(layer, expert) for expert, count in enumerate(self.counts) if count]


def mix(
    x: torch.Tensor, routed: Dispatch, layer: int, experts: ExpertSource, numerics: Numerics, trace: Trace
) -> torch.Tensor:
    """x [T, H] -> [T, H].  What a row's experts found is added in the order of its router's choice, always."""
    spread = x[routed.rows]  # [A, H]
    found = torch.empty_like(spread)
    begin = 0
    for expert, count in enumerate(routed.counts):
        if count:
            with experts.hold(ExpertKey(layer, expert)) as slab, trace.work("compute", f"{layer}.{expert}"):
                found[begin : begin + count] = feed_forward(spread[begin : begin + count], slab, numerics)
        begin += count
    parts = found[routed.places].float().mul_(routed.weights[..., None]).unbind(1)
    return reduce(torch.add, parts).to(x.dtype)


def feed_forward(x: torch.Tensor, slab: Slab, numerics: Numerics) -> torch.Tensor:
    """SwiGLU (arXiv 2002.05202): w2(silu(w1 x) * w3 x)."""
    gate, up = numerics.linear(x, slab.up).chunk(2, -1)
    return numerics.linear(numerics.silu(gate).mul_(up), slab.down)
