"""The Mixtral architecture as a trainable module; parameter names are those of a Hugging Face checkpoint.

Knows shapes and the load-balancing loss; knows nothing of data or schedules.
B = sequences, T = tokens of one, N = B * T, H = hidden, E = experts, K = experts of a token.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Shape:
    """The size of the model."""

    vocab_size: int = 4096
    hidden_size: int = 256
    intermediate_size: int = 224
    num_layers: int = 4
    num_heads: int = 8
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


class Expert(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.w1 = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.w2 = nn.Linear(shape.intermediate_size, shape.hidden_size, bias=False)
        self.w3 = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class SparseMoe(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.top_k = shape.top_k
        self.gate = nn.Linear(shape.hidden_size, shape.num_experts, bias=False)
        self.experts = nn.ModuleList(Expert(shape) for _ in range(shape.num_experts))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[N, H] -> [N, H], the load-balancing loss (Switch Transformer, arXiv 2101.03961), loads [E]."""
        scores = self.gate(x).float().softmax(-1)  # [N, E]
        weights, chosen = scores.topk(self.top_k)  # [N, K]
        weights = weights / weights.sum(-1, keepdim=True)
        out = torch.zeros_like(x)
        for index, expert in enumerate(self.experts):
            rows, place = (chosen == index).nonzero(as_tuple=True)
            out = out.index_add(0, rows, (expert(x[rows]) * weights[rows, place, None].to(x.dtype)).to(x.dtype))
        loads = F.one_hot(chosen, len(self.experts)).float().sum(1).mean(0) / self.top_k
        return out, len(self.experts) * (loads * scores.mean(0)).sum(), loads


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
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.02)

    def forward(self, token_ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.embed_tokens(token_ids)
        cos, sin = rope_table(self.shape, token_ids.shape[1])
        balance, loads = [], []
        for layer in self.layers:
            x = x + layer.self_attn(layer.input_layernorm(x), cos, sin)
            routed, loss, load = layer.block_sparse_moe(layer.post_attention_layernorm(x).flatten(0, 1))
            x = x + routed.view_as(x)
            balance.append(loss)
            loads.append(load)
        return self.norm(x), torch.stack(balance).mean(), torch.stack(loads)

    def logits(self, hidden: Tensor) -> Tensor:
        return F.linear(hidden, self.embed_tokens.weight.to(hidden.dtype))


def rope_table(shape: Shape, length: int) -> tuple[Tensor, Tensor]:
    """cos and sin of the rotary position embedding, each [T, head_dim] (halves repeated, as in Llama)."""
    inverse = shape.rope_theta ** (-torch.arange(0, shape.head_dim, 2).float() / shape.head_dim)
    angles = torch.outer(torch.arange(length).float(), inverse)
    return torch.cat([angles, angles], -1).cos(), torch.cat([angles, angles], -1).sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn queries or keys [.., T, head_dim] by their positions."""
    first, second = x.chunk(2, -1)
    return (x * cos + torch.cat([-second, first], -1) * sin).to(x.dtype)
