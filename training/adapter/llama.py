"""SmolLM2's decoder with low-rank changes to all its linear layers, for training with trees of continuations.

The changes are added to the weights once a step (W + scale * B A) on CUDA: one product for each linear layer, and what
is trained is what a merged pack computes.  On a CPU they are products of their own, which need no gradient of W.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.adapter.base import KINDS, SMOLLM2, Shape

Weight = Callable[[Tensor], Tensor]
MAX_TOKENS = 4096
Linears = list[dict[str, Weight]]  # of each layer, by kind


@dataclass(slots=True)
class Cache:
    """Keys and values [batch, kv heads, tokens, head dim] of each layer."""

    keys: list[Tensor]
    values: list[Tensor]


class Llama(nn.Module):
    """The base's weights, frozen, and A [layers, rank, in] and B [layers, out, rank] of each kind of linear layer."""

    def __init__(
        self,
        base: dict[str, Tensor],
        rank: int,
        scale: float,
        *,
        device: torch.device,
        dtype: torch.dtype,
        shape: Shape = SMOLLM2,
    ) -> None:
        super().__init__()
        self.shape, self.num_layers = shape, len(base["q"])
        self.rank, self.scale, self.device, self.dtype = rank, scale, device, dtype
        held = torch.float32 if device.type == "cuda" else dtype  # what is added to in float32 there
        self.base = {name: tensor.to(device, held) for name, tensor in base.items()}
        self.embed = self.base["embed"].to(self.dtype)
        self.a, self.b = nn.ParameterDict(), nn.ParameterDict()
        for kind in KINDS:
            layers, out, inner = base[kind].shape
            self.a[kind] = nn.Parameter(torch.empty(layers, rank, inner, device=device))
            self.b[kind] = nn.Parameter(torch.empty(layers, out, rank, device=device))
        self.begin(1)
        self.rope = _rotations(shape, MAX_TOKENS).to(device)
        self.gated: Callable[[Tensor, Tensor], Tensor] = _gated
        self.rotated: Callable[[Tensor, Tensor, Tensor], Tensor] = _rotated

    @torch.no_grad()
    def begin(self, seed: int) -> None:
        """Set the changes to those before the first step: A is random, B is 0."""
        generator = torch.Generator().manual_seed(seed)
        for kind in KINDS:
            drawn = torch.empty(self.a[kind].shape).uniform_(-1, 1, generator=generator)
            self.a[kind].copy_(drawn / math.sqrt(drawn.shape[-1]))
            self.b[kind].zero_()

    def changed(self, kind: str) -> Tensor:
        """W + scale * B A of all layers, float32."""
        return torch.baddbmm(self.base[kind].float(), self.b[kind], self.a[kind], alpha=self.scale)

    def linears(self, *, is_tuned: bool = True) -> Linears:
        """Of each layer, by kind, what its linear layer does: made once a step."""
        if is_tuned and self.device.type != "cuda":
            return [{kind: self._apart(kind, layer) for kind in KINDS} for layer in range(self.num_layers)]
        stacks = {kind: (self.changed(kind) if is_tuned else self.base[kind]).to(self.dtype) for kind in KINDS}
        weights = {kind: stack.unbind(0) for kind, stack in stacks.items()}
        return [{kind: _product(weights[kind][layer]) for kind in KINDS} for layer in range(self.num_layers)]

    def _apart(self, kind: str, layer: int) -> Weight:
        base, a, b = self.base[kind][layer], self.a[kind][layer].to(self.dtype), self.b[kind][layer].to(self.dtype)
        return lambda x: F.linear(x, base) + F.linear(F.linear(x, a), b) * self.scale

    def forward(
        self, ids: Tensor, positions: Tensor, mask: Tensor, linears: Linears, cache: Cache | None = None
    ) -> Tensor:
        """Hidden states [batch, tokens, hidden] behind the last norm; `mask` is added to the scores.

        With a cache, its keys and values come before those of `ids`, which are appended to it.
        """
        x = F.embedding(ids, self.embed)
        cos, sin = self.rope[:, positions].to(self.dtype).unsqueeze(2)  # [batch, 1, tokens, head dim]
        for layer, linear in enumerate(linears):
            h = self._norm(x, "attn_norm", layer)
            x = x + linear["o"](self._attention(h, linear, cos, sin, mask, cache, layer))
            h = self._norm(x, "ffn_norm", layer)
            x = x + linear["down"](self.gated(linear["gate"](h), linear["up"](h)))
        return F.rms_norm(x, x.shape[-1:], self.base["norm"].to(self.dtype), self.shape.rms_eps)

    def _norm(self, x: Tensor, name: str, layer: int) -> Tensor:
        return F.rms_norm(x, x.shape[-1:], self.base[name][layer].to(self.dtype), self.shape.rms_eps)

    def _attention(
        self,
        h: Tensor,
        linear: dict[str, Weight],
        cos: Tensor,
        sin: Tensor,
        mask: Tensor,
        cache: Cache | None,
        layer: int,
    ) -> Tensor:
        q, k, v = (linear[kind](h).unflatten(-1, (-1, self.shape.head_dim)).transpose(1, 2) for kind in "qkv")
        q, k = self.rotated(q, cos, sin), self.rotated(k, cos, sin)
        if cache is not None:
            if len(cache.keys) > layer:
                k, v = torch.cat([cache.keys[layer], k], 2), torch.cat([cache.values[layer], v], 2)
                cache.keys[layer], cache.values[layer] = k, v
            else:
                cache.keys.append(k)
                cache.values.append(v)
        k, v = (one.repeat_interleave(self.shape.num_heads // self.shape.num_kv_heads, 1) for one in (k, v))
        found = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return found.transpose(1, 2).flatten(2)

    def logits(self, hidden: Tensor) -> Tensor:
        """Of every word, float32."""
        return F.linear(hidden, self.embed).float()


def _product(weight: Tensor) -> Weight:
    return lambda x: F.linear(x, weight)


def _gated(gate: Tensor, up: Tensor) -> Tensor:
    return F.silu(gate) * up


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


def _rotations(shape: Shape, num_positions: int) -> Tensor:
    """Cosines and sines [2, positions, head dim], float32."""
    frequencies = shape.rope_base ** (-torch.arange(0, shape.head_dim, 2, dtype=torch.float64) / shape.head_dim)
    angles = torch.arange(num_positions, dtype=torch.float64)[:, None] * frequencies
    angles = torch.cat([angles, angles], dim=1)
    return torch.stack([angles.cos(), angles.sin()]).float()
