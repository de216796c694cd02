"""The Mixtral architecture as a trainable module, and its state under the names of a Hugging Face checkpoint.

Knows shapes and the load-balancing loss; knows nothing of data, schedules or gradients by hand.  The experts of
a layer are stacked while they are trained, so that an optimiser sees one tensor instead of eight.
B = sequences, T = tokens of one, N = B * T, H = hidden, I = intermediate, E = experts, K = experts of a token.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.operators import Experts, FromExperts, HeadLoss, ToExperts, attend, places


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
        """float32 [.., H] -> the same in the dtype of the weights."""
        return F.rms_norm(x, (x.shape[-1],), None, self.eps).to(self.weight.dtype) * self.weight


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
        row_of, place_of, counts = places(chosen, scores.shape[1])
        rows = ToExperts.apply(x, row_of, place_of)
        out = Experts.apply(rows, self.w1, self.w2, self.w3, tuple(counts))
        mixed = FromExperts.apply(out, weights, row_of, place_of)
        loads = torch.bincount(chosen.flatten(), minlength=scores.shape[1]) / chosen.numel()
        balance = len(loads) * (loads * scores.mean(0)).sum()
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
        heads, kv_heads = self.shape.num_heads, self.shape.num_kv_heads
        weight = torch.cat([self.q_proj.weight, self.k_proj.weight, self.v_proj.weight])
        qkv = F.linear(x, weight).view(size, length, heads + 2 * kv_heads, -1).transpose(1, 2)
        turned = rotate(qkv[:, : heads + kv_heads], cos, sin)
        out = attend(turned[:, :heads], turned[:, heads:], qkv[:, heads + kv_heads :])
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
        embedded = self.embed_tokens(token_ids)
        cos, sin = (table.to(embedded) for table in rope_table(self.shape, token_ids.shape[1]))
        x = embedded.float()
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
        total, each = HeadLoss.apply(hidden, self.embed_tokens.weight, targets, weights)
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


@functools.lru_cache(maxsize=256)
def rope_table(shape: Shape, length: int) -> tuple[Tensor, Tensor]:
    """cos and sin of the rotary position embedding, each [T, head_dim] (halves repeated, as in Llama)."""
    inverse = shape.rope_theta ** (-torch.arange(0, shape.head_dim, 2).float() / shape.head_dim)
    angles = torch.outer(torch.arange(length).float(), inverse)
    return torch.cat([angles, angles], -1).cos(), torch.cat([angles, angles], -1).sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn queries or keys [.., T, head_dim] by their positions."""
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat([-second, first], -1) * sin
