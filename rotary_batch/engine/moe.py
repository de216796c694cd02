"""The mixture of experts of one layer: route rows, run each expert on its rows, add the results.

The weights come from an `ExpertSource`, wherever they are stored.
T = rows, H = hidden, E = experts, K = experts of a row, A = assignments of rows to experts = T * K.
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

    rows: torch.Tensor  # [A] batch row of each assignment, sorted by expert
    assignments: torch.Tensor  # [T, K] index in `rows` of each row's assignments, in the order of the router's choice
    weights: torch.Tensor  # [T, K] float32
    num_rows: list[int]  # rows of each expert

    @classmethod
    def sort(
        cls, weights: torch.Tensor, chosen: torch.Tensor, num_experts: int, predicted: Mapping[int, torch.Tensor]
    ) -> tuple[Dispatch, dict[int, list[int]]]:
        """Sort assignments by expert, from weights and chosen experts [T, K]; also copy `predicted` to the host.

        One copy brings all that the host needs to know of a layer.
        """
        flat = chosen.flatten()
        order = flat.argsort(stable=True)
        assignments = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
        # compared with every expert: bincount would wait for the device
        counts = (flat[:, None] == torch.arange(num_experts, device=flat.device)).sum(0)
        on_host = torch.cat([counts, *predicted.values()]).tolist()
        begin, predicted_ids = num_experts, {}
        for distance, ids in predicted.items():
            predicted_ids[distance] = on_host[begin : begin + len(ids)]
            begin += len(ids)
        dispatch = cls(order // chosen.shape[1], assignments.view(chosen.shape), weights, on_host[:num_experts])
        return dispatch, predicted_ids

    def keys(self, layer: int) -> list[ExpertKey]:
        """The experts that have rows, in ascending order."""
        return [ExpertKey(layer, expert) for expert, num_rows in enumerate(self.num_rows) if num_rows]


def moe_forward(
    x: torch.Tensor, dispatch: Dispatch, layer: int, experts: ExpertSource, numerics: Numerics, trace: Trace
) -> torch.Tensor:
    """x [T, H] -> [T, H].

    The results of a row are added in the order of its router's choice, so its bits do not depend on other rows.
    """
    dispatched = x[dispatch.rows]  # [A, H]
    expert_out = torch.empty_like(dispatched)
    begin = 0
    for expert, num_rows in enumerate(dispatch.num_rows):
        if num_rows:
            rows = slice(begin, begin + num_rows)
            with experts.hold(ExpertKey(layer, expert)) as slab, trace.time_on_device("compute", f"{layer}.{expert}"):
                expert_out[rows] = feed_forward(dispatched[rows], slab, numerics)
        begin += num_rows
    weighted = expert_out[dispatch.assignments].float().mul_(dispatch.weights[..., None])  # [T, K, H]
    return reduce(torch.add, weighted.unbind(1)).to(x.dtype)


def feed_forward(x: torch.Tensor, slab: Slab, numerics: Numerics) -> torch.Tensor:
    """SwiGLU (arXiv 2002.05202): w2(silu(w1 x) * w3 x)."""
    gate, up = numerics.linear(x, slab.up).chunk(2, -1)
    return numerics.linear(numerics.silu(gate).mul_(up), slab.down)
