"""The mixture of experts of one layer: route rows, run each expert on its rows, add up.

Knows routing and SwiGLU; gets weights from an ExpertSource and knows nothing of where they were.
T = rows, H = hidden, E = experts, K = experts of a row, A = all assignments = T * K.
"""

from __future__ import annotations

import torch

from rotary_batch.core import ExpertKey
from rotary_batch.engine.experts import ExpertSource, Slab
from rotary_batch.engine.numerics import Numerics
from rotary_batch.engine.trace import Trace


def route(scores: torch.Tensor, top_k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Router scores [T, E] -> weights [T, K] in float32 that sum to 1, chosen experts [T, K]."""
    weights, chosen = scores.float().softmax(-1).topk(top_k)
    return weights / weights.sum(-1, keepdim=True), chosen


def mix(
    x: torch.Tensor,
    scores: torch.Tensor,
    layer: int,
    top_k: int,
    experts: ExpertSource,
    numerics: Numerics,
    trace: Trace,
) -> torch.Tensor:
    """x [T, H], router scores [T, E] -> [T, H].  Experts are added in ascending order, always."""
    weights, chosen = route(scores, top_k)
    order = chosen.flatten().argsort(stable=True)  # [A], assignments of expert 0 first
    rows = order // top_k
    shares = weights.flatten()[order, None]
    counts = torch.bincount(chosen.flatten(), minlength=scores.shape[1]).tolist()  # the one copy to the host
    out = torch.zeros(x.shape, dtype=torch.float32, device=x.device)
    begin = 0
    for expert, count in enumerate(counts):
        if count:
            mine = slice(begin, begin + count)
            with experts.hold(ExpertKey(layer, expert)) as slab, trace.span("compute", f"{layer}.{expert}"):
                out.index_add_(0, rows[mine], feed_forward(x[rows[mine]], slab, numerics).float() * shares[mine])
        begin += count
    return out.to(x.dtype)


def feed_forward(x: torch.Tensor, slab: Slab, numerics: Numerics) -> torch.Tensor:
    """SwiGLU (arXiv 2002.05202): w2(silu(w1 x) * w3 x)."""
    gate = numerics.linear(x, numerics.weight(slab.w1, 0))
    up = numerics.linear(x, numerics.weight(slab.w3, 0))
    return numerics.linear(numerics.silu(gate) * up, numerics.weight(slab.w2, 0))
