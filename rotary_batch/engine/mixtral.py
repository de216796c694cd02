"""The Mixtral decoder (arXiv 2401.04088), wired together: one pass of all layers over ragged rows.

Knows the order of operations; knows nothing of sequences beyond their rows, or of sampling.
T = rows of this revolution, H = hidden.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from rotary_batch.engine.attention import Rows, Units, attend
from rotary_batch.engine.experts import ExpertSource
from rotary_batch.engine.kv import KvArena
from rotary_batch.engine.moe import mix
from rotary_batch.engine.numerics import Numerics
from rotary_batch.engine.rope import Rope
from rotary_batch.engine.trace import Trace
from rotary_batch.model.geometry import Geometry

HEAD_ROWS = 64  # rows of logits computed at once; bounds the workspace


class Mixtral:
    """Weights that stay in device memory, and the experts that may not."""

    def __init__(
        self,
        geometry: Geometry,
        dense: Mapping[str, torch.Tensor],
        experts: ExpertSource,
        numerics: Numerics,
        context_tokens: int,
        trace: Trace,
    ) -> None:
        self._geometry = geometry
        self._dense = dense
        self._experts = experts
        self._numerics = numerics
        self._trace = trace
        device = dense["embed"].device
        self._rope = Rope(geometry.head_dim, geometry.rope_theta, context_tokens, device)

    def revolve(self, token_ids: torch.Tensor, rows: Sequence[Rows], kv: KvArena) -> torch.Tensor:
        """One revolution: token ids [T] of all rows -> final hidden states [T, H]; keys and values are kept."""
        device = token_ids.device
        x = self._dense["embed"][token_ids].to(self._numerics.dtype)
        positions = torch.cat([torch.arange(r.first_position, r.first_position + r.num_rows) for r in rows]).to(device)
        homes = torch.cat([torch.arange(r.num_rows) + r.kv_start + r.first_position for r in rows]).to(device)
        units = Units.cut(rows, self._geometry, device)
        for layer in range(self._geometry.num_layers):
            with self._trace.span("attention", str(layer)):
                x = x + self._attention(layer, x, positions, homes, units, kv)
            x = x + self._mixture(layer, x)
        return self._norm(x, "norm")

    def _attention(
        self, layer: int, x: torch.Tensor, positions: torch.Tensor, homes: torch.Tensor, units: Units, kv: KvArena
    ) -> torch.Tensor:
        head_dim = self._geometry.head_dim
        normed = self._norm(x, f"layers.{layer}.attention_norm")
        q, k, v = (self._linear(normed, f"layers.{layer}.{name}").view(len(x), -1, head_dim) for name in "qkv")
        keys, values = kv.keys[layer], kv.values[layer]
        keys[homes] = self._rope.rotate(k, positions).to(keys.dtype)
        values[homes] = v.to(values.dtype)
        out = attend(self._rope.rotate(q, positions), keys, values, units, self._geometry.sliding_window)
        return self._linear(out.flatten(1), f"layers.{layer}.o")

    def _mixture(self, layer: int, x: torch.Tensor) -> torch.Tensor:
        normed = self._norm(x, f"layers.{layer}.moe_norm")
        scores = self._linear(normed, f"layers.{layer}.router")
        return mix(normed, scores, layer, self._geometry.top_k, self._experts, self._numerics, self._trace)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Final hidden states [T, H] -> float32 logits [T, vocabulary]."""
        head = self._dense["embed" if self._geometry.tie_word_embeddings else "head"]
        parts = [self._numerics.linear(part, head).float() for part in torch.split(hidden, HEAD_ROWS)]
        return torch.cat(parts) if parts else hidden.new_zeros((0, head.shape[0]), dtype=torch.float32)

    def _linear(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return self._numerics.linear(x, self._dense[name])

    def _norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return self._numerics.rms_norm(x, self._dense[name], self._geometry.rms_norm_eps)
