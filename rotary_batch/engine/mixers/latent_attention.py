"""Multi-head latent attention (arXiv 2405.04434), as attention of many query heads to one key.

A token has one latent for all heads, and a few dimensions that rotate.  A head's key and value are its matrices times
the latent: the first is moved to the query, the second to the output, so that the latent itself is key and value.
The cache has 576 numbers for a token of DeepSeek-V3, whose 128 heads have keys and values of 40,960.

T = rows, H = hidden, C = numbers of a latent, N = dimensions of a head that do not rotate, R = those that do,
V = dimensions of a head's value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch

from rotary_batch.engine.attention.base import Attention
from rotary_batch.engine.kernels.matrices import num_columns, num_rows, parts_of
from rotary_batch.engine.kernels.quant import dequantise
from rotary_batch.engine.mixers.base import StepRows
from rotary_batch.engine.rope import rotate
from rotary_batch.engine.weights import Weights

NORM_EPS = 1e-6  # of latents, whatever a config says of the other norms


class Absorbed(NamedTuple):
    """The two halves of a layer's kv_b, each as a matrix for every head."""

    to_latent: torch.Tensor  # [heads, C, N]
    from_latent: torch.Tensor  # [heads, V, C]


class LatentAttention:
    """The attention of all layers; there is no window."""

    def __init__(self, weights: Weights, attentions: Mapping[int | None, Attention]) -> None:
        geometry = weights.geometry
        self._weights = weights
        self._geometry = geometry
        self._head_parts = [geometry.nope_head_dim, geometry.num_rotary]
        self._attention = attentions[None]
        self._absorbed = [_absorbed(weights, f"layers.{layer}.kv_b") for layer in range(geometry.num_layers)]
        self._query_scale = geometry.score_scale * geometry.head_dim**0.5  # implementations scale by head_dim ** -0.5

    def mix(self, layer: int, x: torch.Tensor, step: StepRows) -> torch.Tensor:
        """Normed rows [T, H] -> [T, H]; writes their latents to the arena."""
        stem, absorbed, numerics = f"layers.{layer}", self._absorbed[layer], self._weights.numerics
        step.kv.write(layer, step.slot_mapping, self._keys(x, stem, step))
        plain, rotating = torch.split(self._queries(x, stem), self._head_parts, -1)
        latent = numerics.linear_of_heads(plain, absorbed.to_latent)
        queries = torch.cat([latent, rotate(rotating, step.cos_sin)], -1) * self._query_scale
        out = self._attention.attend(layer, queries, step.kv)  # [T, heads, C]
        return self._weights.linear(numerics.linear_of_heads(out, absorbed.from_latent).flatten(1), f"{stem}.o")

    def _queries(self, x: torch.Tensor, stem: str) -> torch.Tensor:
        """Rows [T, H] -> [T, heads, N + R]."""
        if self._geometry.q_lora_rank:
            compressed = self._weights.norm(self._weights.linear(x, f"{stem}.q_a"), f"{stem}.q_a_norm", NORM_EPS)
            queries = self._weights.linear(compressed, f"{stem}.q_b")
        else:
            queries = self._weights.linear(x, f"{stem}.q")
        return queries.view(len(x), self._geometry.num_heads, -1)

    def _keys(self, x: torch.Tensor, stem: str, step: StepRows) -> torch.Tensor:
        """Rows [T, H] -> latents, and what rotates behind them: [T, 1, C + R]."""
        geometry = self._geometry
        both = self._weights.linear(x, f"{stem}.kv_a")[:, None]
        latent, rotating = torch.split(both, [geometry.kv_lora_rank, geometry.num_rotary], -1)
        latent = self._weights.norm(latent.contiguous(), f"{stem}.kv_a_norm", NORM_EPS)
        return torch.cat([latent, rotate(rotating, step.cos_sin)], -1)


def _absorbed(weights: Weights, name: str) -> Absorbed:
    """The halves of a stored kv_b [heads * (N + V), C], as plain numbers: its columns would be cut apart."""
    geometry, matrix = weights.geometry, weights.take(name)
    device = next(iter(parts_of(matrix).values())).device
    plain = dequantise(matrix, torch.empty(num_rows(matrix), num_columns(matrix), device=device))
    heads = plain.to(weights.numerics.storage_dtype).view(geometry.num_heads, -1, geometry.kv_lora_rank)
    to_latent, from_latent = torch.split(heads, [geometry.nope_head_dim, geometry.value_head_dim], 1)
    return Absorbed(to_latent.transpose(1, 2).contiguous(), from_latent.contiguous())
