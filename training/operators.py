"""Operators whose gradient is written by hand, because autograd's own copies more or is slow on a CPU.

Every one is compared with autograd's own in `tests/training/test_operators.py`.  Knows shapes and dtypes; knows
nothing of modules.  N = rows, K = experts of a row, E = experts, P = places, H = hidden, I = intermediate,
B = sequences, T = tokens of one, G = query heads of a key head, D = width of a head.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_HEAD_ROWS = 512  # of logits at a time: 8 MB, which stay in the cache
_ROW_MULTIPLE = 32
_LEAST_CHANCE = 1e-37  # its logarithm is finite in float32


def product_dtype(device: torch.device) -> torch.dtype:
    """What products are computed in: bf16 on CUDA and on processors with AMX (5 times as fast there), else float32."""
    is_fast = device.type == "cuda" or torch.cpu._is_amx_tile_supported()  # no public question
    return torch.bfloat16 if is_fast else torch.float32


def places(chosen: Tensor, num_experts: int) -> tuple[Tensor, Tensor, list[int]]:
    """Where the experts `chosen` [N, K] find their rows: row of a place [P], place of a row [N, K], places an expert.

    Every expert has a multiple of 32 places: oneDNN compiles a kernel for every number of rows that it meets, which on
    AMX takes longer than the product.  A place that is left over holds row N, which is none.
    """
    flat = chosen.flatten()
    counts = torch.bincount(flat, minlength=num_experts)
    padded = (counts + _ROW_MULTIPLE - 1) // _ROW_MULTIPLE * _ROW_MULTIPLE
    order = flat.argsort(stable=True)
    shift = (padded - counts).cumsum(0) - (padded - counts)
    places = torch.arange(len(flat), device=flat.device) + shift[flat[order]]
    row_of = flat.new_full((int(padded.sum()),), len(chosen)).index_copy_(0, places, order // chosen.shape[1])
    return row_of, torch.empty_like(order).index_copy_(0, order, places).view_as(chosen), padded.tolist()


class ToExperts(torch.autograd.Function):
    """Rows of x [N, H] to their places.  Its gradient sums the K places of a row; autograd's would add one by one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, row_of: Tensor, place_of: Tensor) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(place_of)
        return _rows(x, row_of)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        (place_of,) = ctx.saved_tensors
        return grad.index_select(0, place_of.flatten()).view(*place_of.shape, -1).sum(1), None, None


class FromExperts(torch.autograd.Function):
    """Places [P, H] to the rows they belong to, weighted: [N, H]."""

    @staticmethod
    def forward(ctx: Any, places: Tensor, weights: Tensor, row_of: Tensor, place_of: Tensor) -> Tensor:  # noqa: ANN401
        apart = places.index_select(0, place_of.flatten()).view(*place_of.shape, -1)
        ctx.save_for_backward(apart, weights, row_of, place_of)
        return (apart * weights.unsqueeze(-1).to(apart.dtype)).sum(1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:  # noqa: ANN401
        apart, weights, row_of, place_of = ctx.saved_tensors
        d_weights = (apart * grad.unsqueeze(1)).sum(-1).to(weights.dtype)
        of_places = weights.new_zeros(len(row_of)).index_copy_(0, place_of.flatten(), weights.flatten())
        return _rows(grad, row_of) * of_places.unsqueeze(1).to(grad.dtype), d_weights, None, None


class Experts(torch.autograd.Function):
    """Places [P, H], those of one expert together, through their experts.

    Autograd would copy the rows apart and the gradients together again, and keep twice the activations.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, w1: Tensor, w2: Tensor, w3: Tensor, counts: tuple[int, ...]) -> Tensor:  # noqa: ANN401
        gates, ups = x.new_empty(len(x), w1.shape[1]), x.new_empty(len(x), w1.shape[1])
        out = torch.empty_like(x)
        parts = zip(
            *(t.split(counts) for t in (x, gates, ups, out)), w1.unbind(), w2.unbind(), w3.unbind(), strict=True
        )
        for rows, gate, up, y, first, second, third in parts:
            torch.mm(rows, first.t(), out=gate)
            torch.mm(rows, third.t(), out=up)
            torch.mm(F.silu(gate).mul_(up), second.t(), out=y)
        ctx.save_for_backward(x, w1, w2, w3, gates, ups)
        ctx.counts = counts
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, None]:  # noqa: ANN401
        x, *weights, gates, ups = ctx.saved_tensors
        dx, slopes = torch.empty_like(x), [torch.empty_like(weight) for weight in weights]
        rows = zip(*(t.split(ctx.counts) for t in (x, gates, ups, grad, dx)), strict=True)
        matrices = zip(*(t.unbind() for t in (*weights, *slopes)), strict=True)
        for (x_, gate, up, dy, out), (w1, w2, w3, d1, d2, d3) in zip(rows, matrices, strict=True):
            act = F.silu(gate)
            inner = dy @ w2
            torch.mm(dy.t(), act * up, out=d2)
            d_up = act.mul_(inner)
            d_gate = torch.ops.aten.silu_backward(inner.mul_(up), gate)
            torch.mm(d_gate.t(), x_, out=d1)
            torch.mm(d_up.t(), x_, out=d3)
            torch.addmm(torch.mm(d_gate, w1, out=out), d_up, w3, out=out)
        return dx, *slopes, None


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention of queries [B, heads, T, D] to keys and values [B, kv heads, T, D].

    On a CPU as products over all of the square: the backward pass of torch's fused operator takes 31 ms there for
    2,048 tokens, this one 6.
    """
    if q.is_cuda:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    size, heads, length, width = q.shape
    folded = (q * width**-0.5).reshape(size * k.shape[1], -1, width)  # the queries of a group one below the other
    out = _Attend.apply(folded, k.reshape(-1, length, width), v.reshape(-1, length, width))
    return out.view(size, heads, length, width)


class _Attend(torch.autograd.Function):
    """Queries [B, G * T, D] to keys and values [B, T, D]; it keeps the probabilities."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:  # noqa: ANN401
        length = k.shape[1]
        mask = torch.full((length, length), float("-inf"), dtype=q.dtype).triu_(1).repeat(q.shape[1] // length, 1)
        chances = torch.bmm(q, k.mT).add_(mask).softmax(-1)
        out = torch.bmm(chances, v)
        ctx.save_for_backward(q, k, v, chances, out)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:  # noqa: ANN401
        q, k, v, chances, out = ctx.saved_tensors
        mean = (grad * out).sum(-1, keepdim=True)
        slope = torch.bmm(grad, v.mT).sub_(mean).mul_(chances)
        return torch.bmm(slope, k), torch.bmm(slope.mT, q), torch.bmm(chances.mT, grad)


class HeadLoss(torch.autograd.Function):
    """Cross-entropy of the tied head.  Its gradient is formed at once, while the logits lie in the cache."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ANN401
        each = torch.empty_like(scale)
        d_hidden, d_weight = torch.empty_like(hidden), torch.zeros_like(weight, dtype=torch.float32)
        factors = scale.unsqueeze(1).to(hidden.dtype)
        for at in range(0, len(hidden), _HEAD_ROWS):
            rows = slice(at, at + _HEAD_ROWS)
            logits, wanted = F.linear(hidden[rows], weight), targets[rows].unsqueeze(1)
            chances = logits.softmax(1, dtype=torch.float32)
            each[rows] = -chances.gather(1, wanted).clamp_min(_LEAST_CHANCE).log().squeeze(1)
            if hidden.requires_grad:
                slope = chances.to(hidden.dtype)
                slope.scatter_add_(1, wanted, slope.new_full((len(slope), 1), -1.0))
                torch.mul(slope @ weight, factors[rows], out=d_hidden[rows])
                d_weight += slope.t() @ (hidden[rows] * factors[rows])
        ctx.save_for_backward(d_hidden, d_weight.to(weight.dtype))
        ctx.mark_non_differentiable(each)
        return (each * scale).sum(), each

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, Tensor, None, None]:  # noqa: ANN401
        hidden, weight = ctx.saved_tensors
        return grad * hidden, grad * weight, None, None


def _rows(x: Tensor, numbers: Tensor) -> Tensor:
    """Rows of x; the number past the last is a row of zeros."""
    return F.pad(x, (0, 0, 0, 1)).index_select(0, numbers)
