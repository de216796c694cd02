"""The experts of one layer: run each on its rows, add the results.

The weights come from an `ExpertSource`, wherever they are stored.
T = rows, H = hidden, E = experts, K = experts of a row, A = assignments of rows to experts = T * K.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import reduce
from itertools import accumulate, pairwise
from typing import NamedTuple

import torch

from rotary_batch.core import ExpertKey
from rotary_batch.engine.kernels.experts import LayerProducts
from rotary_batch.engine.kernels.grouped import GroupedLayout, GroupedProducts, Rows
from rotary_batch.engine.kernels.numerics import Numerics
from rotary_batch.engine.offload.slab import Slab
from rotary_batch.engine.offload.source import ExpertSource
from rotary_batch.engine.runtime.trace import Trace, interval_label
from rotary_batch.model.geometry import Geometry


class Dispatch(NamedTuple):
    """Which rows go to which expert of one layer."""

    rows: torch.Tensor  # [A] batch row of each assignment, sorted by expert
    offsets: torch.Tensor  # [E + 1] the first assignment of each expert
    assignments: torch.Tensor  # [T, K] index in `rows` of each row's assignments, in the order of the router's choice
    weights: torch.Tensor  # [T, K] float32

    @classmethod
    def sort(cls, weights: torch.Tensor, chosen: torch.Tensor, num_experts: int) -> Dispatch:
        """Sort assignments by expert, from weights and chosen experts [T, K]; the host does not wait for the device."""
        by_expert, order = chosen.flatten().sort(stable=True)
        device = order.device
        assignments = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=device))
        offsets = torch.searchsorted(by_expert, torch.arange(num_experts + 1, device=device))
        return cls(order // chosen.shape[1], offsets, assignments.view(chosen.shape), weights)

    def on_host(
        self, layer: int, predicted: Mapping[int, torch.Tensor]
    ) -> tuple[dict[ExpertKey, int], dict[int, list[int]]]:
        """How many rows the experts have that have any, in ascending order, and a copy of `predicted`.

        One copy brings all that the host needs to know of a layer.
        """
        on_host = torch.cat([self.offsets, *predicted.values()]).tolist()
        begin, predicted_ids = len(self.offsets), {}
        for distance, ids in predicted.items():
            predicted_ids[distance] = on_host[begin : begin + len(ids)]
            begin += len(ids)
        counts = (end - start for start, end in pairwise(on_host[: len(self.offsets)]))
        return {ExpertKey(layer, expert): count for expert, count in enumerate(counts) if count}, predicted_ids


def moe_forward(
    x: torch.Tensor,
    dispatch: Dispatch,
    num_rows: Mapping[ExpertKey, int],
    geometry: Geometry,
    experts: ExpertSource,
    numerics: Numerics,
    trace: Trace,
) -> torch.Tensor:
    """x [T, H] -> [T, H]; `num_rows` has the experts of a layer that have rows.

    The results of a row are added in the order of its router's choice, so its bits do not depend on other rows.
    """
    expert_out = x.new_empty(len(dispatch.rows), x.shape[1])
    ends = accumulate(num_rows.values())
    places = {key: range(end - num_rows[key], end) for key, end in zip(num_rows, ends, strict=True)}
    products, dispatched = numerics.layer_products(x, dispatch.rows, geometry), None
    done = _run_residents(products, places, experts.residents, expert_out, trace) if products is not None else ()
    for key, span in places.items():
        if key in done:
            continue
        with experts.hold(key) as slab, trace.time_on_device("compute", interval_label([key])):
            if products is not None and slab.addresses is not None:
                products.run([(slab.addresses, span)], expert_out)
            else:
                dispatched, rows = x[dispatch.rows] if dispatched is None else dispatched, slice(span.start, span.stop)
                expert_out[rows] = feed_forward(dispatched[rows], slab, geometry, numerics)
    if products is not None:
        return products.combine(expert_out, dispatch.assignments, dispatch.weights)
    weighted = expert_out[dispatch.assignments].float().mul_(dispatch.weights[..., None])  # [T, K, H]
    return reduce(torch.add, weighted.unbind(1)).to(x.dtype)


def _run_residents(
    products: LayerProducts,
    places: Mapping[ExpertKey, range],
    residents: Mapping[ExpertKey, Slab],
    out: torch.Tensor,
    trace: Trace,
) -> set[ExpertKey]:
    """Those that the kernels can read, in one call; returns which."""
    addresses = {key: residents[key].addresses for key in places if key in residents}
    calls = {key: (own, places[key]) for key, own in addresses.items() if own is not None}
    if calls:
        with trace.time_on_device("compute", interval_label(list(calls))):
            products.run(list(calls.values()), out)
    return set(calls)


def grouped_forward(
    x: torch.Tensor,
    dispatch: Dispatch,
    keys: Sequence[ExpertKey],
    layer: int,
    layout: GroupedLayout,
    experts: ExpertSource,
    trace: Trace,
) -> torch.Tensor:
    """x [T, H] -> [T, H] in a few launches for many experts.

    `keys` are those that have rows; where every expert is resident, nobody needs to know them.
    """
    products = GroupedProducts(Rows(x, *dispatch), layout)
    with closing(experts.lend_groups(layer, keys)) as groups:
        for held in groups:
            with trace.time_on_device("compute", held.label):
                products.add(held)
    return products.combine()


def all_active(
    x: torch.Tensor, layer: int, geometry: Geometry, experts: ExpertSource, numerics: Numerics, trace: Trace
) -> torch.Tensor:
    """x [T, H] -> [T, H]: the sum of all slices of a dense feed-forward, added in float32 in their order."""
    total = x.new_zeros(x.shape, dtype=torch.float32)
    products, out = numerics.layer_products(x, torch.arange(len(x)), geometry), torch.empty_like(x)
    for expert in range(geometry.num_experts):
        with experts.hold(ExpertKey(layer, expert)) as slab, trace.time_on_device("compute", f"{layer}.{expert}"):
            if products is not None and slab.addresses is not None:
                products.run([(slab.addresses, range(len(x)))], out)
                total += out
            else:
                total += feed_forward(x, slab, geometry, numerics)
    return total.to(x.dtype)


def feed_forward(x: torch.Tensor, slab: Slab, geometry: Geometry, numerics: Numerics) -> torch.Tensor:
    """SwiGLU (arXiv 2002.05202) of an expert: x [T, H] -> [T, H]."""
    products = [numerics.linear(x, matrix) for matrix in slab.gate_up]
    both = products[0] if len(products) == 1 else torch.cat(products, -1)
    if slab.gate_up_bias is not None:
        both = both + slab.gate_up_bias.to(both.dtype)
    out = numerics.linear(swiglu(both, geometry, numerics), slab.down)
    return out if slab.down_bias is None else out + slab.down_bias.to(out.dtype)


def swiglu(both: torch.Tensor, geometry: Geometry, numerics: Numerics) -> torch.Tensor:
    """Gate and up [T, 2 * I] -> silu(gate) * up [T, I], or gpt-oss's clamped variant."""
    gate, up = both.chunk(2, -1)
    if not geometry.swiglu_limit:
        return numerics.silu(gate).mul_(up)
    limit = geometry.swiglu_limit
    gate, up = gate.clamp(max=limit), up.clamp(-limit, limit)
    return (up + 1) * gate / (1 + torch.exp(-geometry.swiglu_alpha * gate))
