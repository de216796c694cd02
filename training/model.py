"""The Mixtral architecture as a trainable module, and its state under the names of a Hugging Face checkpoint.

Knows shapes, the load-balancing loss and the loss of the head; knows nothing of data or schedules.  The experts of
a layer are stacked while they are trained, so that an optimiser sees one tensor instead of eight.
B = sequences, T = tokens of one, N = B * T, H = hidden, I = intermediate, E = experts, K = experts of a token.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_HEAD_ROWS = 512  # of logits at a time: 8 MB, which stay in the cache


@dataclass(frozen=True)
class Shape:
    """The size of the model."""

    vocab_size: int = 4096
    hidden_size: int = 256
    intermediate_size: int = 224
    num_layers: int = 4
    num_heads: int = 4
    num_kv_heads: int = 2
    num_experts: int = 8
    top_k: int = 2
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-5
    max_position: int = 1024

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_heads


class RMSNorm(nn.Module):
    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), self.weight, self.eps)


class _Experts(torch.autograd.Function):
    """Rows [N * K, H], those of one expert together, through their experts; the gradient by hand.

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


class _Permute(torch.autograd.Function):
    """`x[order]` whose gradient is another gather; autograd's own would add row by row."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, inverse: Tensor) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(inverse)
        return x[order]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        return grad[ctx.saved_tensors[0]], None, None


class SparseMoe(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        hidden, inner, experts = shape.hidden_size, shape.intermediate_size, shape.num_experts
        self.top_k = shape.top_k
        self.gate = nn.Linear(hidden, experts, bias=False)
        self.w1 = nn.Parameter(torch.empty(experts, inner, hidden))
        self.w2 = nn.Parameter(torch.empty(experts, hidden, inner))
        self.w3 = nn.Parameter(torch.empty(experts, inner, hidden))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[N, H] -> [N, H], the load-balancing loss (Switch Transformer, arXiv 2101.03961), loads [E]."""
        scores = self.gate(x).float().softmax(-1)  # [N, E]
        weights, chosen = scores.topk(self.top_k)  # [N, K]
        weights = weights / weights.sum(-1, keepdim=True)
        order = chosen.flatten().argsort(stable=True)  # [N * K], the rows of one expert together
        inverse = order.argsort()
        counts = torch.bincount(chosen.flatten(), minlength=scores.shape[1])
        dtype = torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(x.device.type) else x.dtype
        rows = _Permute.apply(x.to(dtype).repeat_interleave(self.top_k, 0), order, inverse)
        stacked = (self.w1.to(dtype), self.w2.to(dtype), self.w3.to(dtype))
        out = _Permute.apply(_Experts.apply(rows, *stacked, tuple(counts.tolist())), inverse, order)
        loads = counts / chosen.numel()
        balance = len(loads) * (loads * scores.mean(0)).sum()
        mixed = torch.bmm(weights.to(dtype).unsqueeze(1), out.view(*chosen.shape, -1)).squeeze(1)
        return mixed, balance, loads


class Attention(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        kv = shape.num_kv_heads * shape.head_dim
        self.q_proj = nn.Linear(shape.hidden_size, shape.hidden_size, bias=False)
        self.k_proj = nn.Linear(shape.hidden_size, kv, bias=False)
        self.v_proj = nn.Linear(shape.hidden_size, kv, bias=False)
        self.o_proj = nn.Linear(shape.hidden_size, shape.hidden_size, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        size, length, _ = x.shape
        q, k, v = (
            p(x).view(size, length, -1, self.shape.head_dim).transpose(1, 2)
            for p in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        groups = self.shape.num_heads // self.shape.num_kv_heads
        k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
        out = F.scaled_dot_product_attention(q, k, v.to(q.dtype), is_causal=True)
        return self.o_proj(out.transpose(1, 2).reshape(x.shape))


class Layer(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(shape.hidden_size, shape.rms_norm_eps)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = RMSNorm(shape.hidden_size, shape.rms_norm_eps)
        self.block_sparse_moe = SparseMoe(shape)


class Mixtral(nn.Module):
    """Tied embeddings; `forward` gives the final hidden states, the balancing loss and the expert loads."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.num_layers))
        self.norm = RMSNorm(shape.hidden_size, shape.rms_norm_eps)
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                is_output = name.endswith(("o_proj.weight", "w2"))
                nn.init.normal_(parameter, std=0.02 / (2 * shape.num_layers) ** 0.5 if is_output else 0.02)

    def forward(self, token_ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.embed_tokens(token_ids)
        cos, sin = (table.to(x.device) for table in rope_table(self.shape, token_ids.shape[1]))
        balance, loads = [], []
        for layer in self.layers:
            x = x + layer.self_attn(layer.input_layernorm(x), cos, sin)
            routed, loss, load = layer.block_sparse_moe(layer.post_attention_layernorm(x).flatten(0, 1))
            x = x + routed.view_as(x)
            balance.append(loss)
            loads.append(load)
        return self.norm(x), torch.stack(balance).mean(), torch.stack(loads)

    def head_loss(self, hidden: Tensor, targets: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Weighted sum of the losses of rows [N, H], and each row's own loss [N] without a gradient."""
        total, each = _HeadLoss.apply(hidden, self.embed_tokens.weight, targets, weights)
        return total, each

    def published(self) -> dict[str, Tensor]:
        """The weights under the names of a Mixtral checkpoint, experts apart."""
        found = {}
        for name, value in self.state_dict().items():
            stem, _, last = f"model.{name}".rpartition(".")
            if last in ("w1", "w2", "w3"):
                found |= {f"{stem}.experts.{e}.{last}.weight": expert.clone() for e, expert in enumerate(value)}
            else:
                found[f"{stem}.{last}"] = value
        return found


class _HeadLoss(torch.autograd.Function):
    """Cross-entropy of the tied head.  Its gradient is formed at once, in the logits' own memory."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:  # noqa: ANN401
        each = torch.empty_like(scale)
        d_hidden, d_weight = torch.empty_like(hidden), torch.zeros_like(weight)
        wants_slope, matrix = hidden.requires_grad, weight.to(hidden.dtype)
        for at in range(0, len(hidden), _HEAD_ROWS):
            rows = slice(at, at + _HEAD_ROWS)
            logits, wanted = F.linear(hidden[rows], matrix).float(), targets[rows].unsqueeze(1)
            normal = logits.logsumexp(1, keepdim=True)
            each[rows] = (normal - logits.gather(1, wanted)).squeeze(1)
            if wants_slope:
                slope = logits.sub_(normal).exp_()
                slope.scatter_add_(1, wanted, slope.new_full((len(slope), 1), -1.0))
                slope = slope.mul_(scale[rows].unsqueeze(1)).to(hidden.dtype)
                d_hidden[rows] = slope @ matrix
                d_weight += slope.t() @ hidden[rows]
        ctx.save_for_backward(d_hidden, d_weight)
        ctx.mark_non_differentiable(each)
        return (each * scale).sum(), each

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, Tensor, None, None]:  # noqa: ANN401
        hidden, weight = ctx.saved_tensors
        return grad * hidden, grad * weight, None, None


@functools.lru_cache(maxsize=256)
def rope_table(shape: Shape, length: int) -> tuple[Tensor, Tensor]:
    """cos and sin of the rotary position embedding, each [T, head_dim] (halves repeated, as in Llama)."""
    inverse = shape.rope_theta ** (-torch.arange(0, shape.head_dim, 2).float() / shape.head_dim)
    angles = torch.outer(torch.arange(length).float(), inverse)
    return torch.cat([angles, angles], -1).cos(), torch.cat([angles, angles], -1).sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn queries or keys [.., T, head_dim] by their positions."""
    first, second = x.chunk(2, -1)
    return (x * cos + torch.cat([-second, first], -1) * sin).to(x.dtype)
