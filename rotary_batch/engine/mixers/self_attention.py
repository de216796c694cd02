"""Self-attention with grouped queries (arXiv 2305.13245), with the switches of the families.

T = rows, H = hidden, D = head dimension.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from rotary_batch.engine.attention.base import Attention
from rotary_batch.engine.mixers.base import StepRows
from rotary_batch.engine.rope import rotate
from rotary_batch.engine.weights import Weights


class SelfAttention:
    """The attention of all layers that have a KV cache; layers with the same window share an implementation."""

    def __init__(self, weights: Weights, attentions: Mapping[int | None, Attention]) -> None:
        self._weights = weights
        self._attentions = attentions
        geometry = weights.geometry
        self._geometry = geometry
        # implementations scale scores by D ** -0.5
        scale = geometry.attention_scale
        self._query_scale = None if scale is None else scale * geometry.head_dim**0.5

    def mix(self, layer: int, x: torch.Tensor, step: StepRows) -> torch.Tensor:
        """Normed rows [T, H] -> [T, H]; writes their keys and values to the arena."""
        geometry, stem = self._geometry, f"layers.{layer}"
        q, k, v = (self._weights.linear(x, f"{stem}.{name}") for name in "qkv")
        gate = None
        if geometry.output_gate:  # each head has its queries, then its gates
            q, gate = (part.flatten(1) for part in q.view(len(x), -1, 2 * geometry.head_dim).chunk(2, -1))
        q, k = self._normed(q, k, stem)
        if layer not in geometry.no_rope_layers:
            q, k = rotate(q, step.cos_sin), rotate(k, step.cos_sin)
        if geometry.qk_norm == "head_after_rope":
            q, k = self._weights.norm(q, f"{stem}.q_norm"), self._weights.norm(k, f"{stem}.k_norm")
        if self._query_scale is not None:
            q = q * self._query_scale
        step.kv.write(layer, step.slot_mapping, k, v.view(k.shape))
        sinks = self._weights.vector(f"{stem}.sinks") if geometry.attention_sinks else None
        out = self._attentions[geometry.window(layer)].attend(layer, q, step.kv, sinks).flatten(1)
        if gate is not None:
            out = out * self._weights.numerics.sigmoid(gate)
        return self._weights.linear(out, f"{stem}.o")

    def _normed(self, q: torch.Tensor, k: torch.Tensor, stem: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Queries and keys [T, heads, D], normed as the family does it before the rotation."""
        kind, head_dim = self._geometry.qk_norm, self._geometry.head_dim
        if kind == "full":
            q, k = self._weights.norm(q, f"{stem}.q_norm"), self._weights.norm(k, f"{stem}.k_norm")
        q, k = (part.view(len(part), -1, head_dim) for part in (q, k))
        if kind == "head":
            q, k = self._weights.norm(q, f"{stem}.q_norm"), self._weights.norm(k, f"{stem}.k_norm")
        return q, k
