"""The Mixtral decoder (arXiv 2401.04088): one pass of a batch of rows through all layers.

T = rows of this step, H = hidden.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain

import torch

from rotary_batch.engine.attention.base import Attention, QuerySegment
from rotary_batch.engine.kernels.matrices import Matrix, num_rows
from rotary_batch.engine.kernels.numerics import Numerics
from rotary_batch.engine.kvcache.arena import KvArena
from rotary_batch.engine.moe import Dispatch, moe_forward, route
from rotary_batch.engine.offload.prediction import ExpertPredictor
from rotary_batch.engine.offload.source import ExpertSource
from rotary_batch.engine.rope import Rope, rotate
from rotary_batch.engine.runtime.trace import Trace
from rotary_batch.engine.sampling import HEAD_ROWS
from rotary_batch.model.geometry import Geometry


class Mixtral:
    """The dense weights, which stay in device memory, and a source of experts, which may not."""

    def __init__(
        self,
        geometry: Geometry,
        dense: Mapping[str, Matrix],
        experts: ExpertSource,
        attention: Attention,
        numerics: Numerics,
        context_tokens: int,
        trace: Trace,
    ) -> None:
        self._geometry = geometry
        self._dense = dense
        self._experts = experts
        self.numerics = numerics
        self._trace = trace
        device = _plain(dense["norm"]).device
        self._rope = Rope(geometry.head_dim, geometry.rope_theta, context_tokens, numerics.dtype, device)
        self._attention = attention
        self._predictor = ExpertPredictor(self._router_scores, geometry.num_layers, geometry.top_k, trace)

    def forward(self, token_ids: torch.Tensor, segments: Sequence[QuerySegment], kv: KvArena) -> torch.Tensor:
        """Token ids [T] of all segments -> final hidden states [T, H]; writes their KV to the arena."""
        device = token_ids.device
        x = self.numerics.embed(self._dense["embed"], token_ids)
        positions = torch.tensor(list(chain.from_iterable(segment.positions() for segment in segments))).to(device)
        cos_sin = self._rope.cos_sin(positions)
        slots = list(chain.from_iterable(segment.slot_mapping() for segment in segments))
        slot_mapping = torch.tensor(slots).to(device)
        kv.begin_step(slots)
        self._attention.plan(segments)
        self._experts.begin_step(len(x))
        for layer in range(self._geometry.num_layers):
            with self._trace.time_on_device("attention", str(layer)):
                x = x + self._attend(layer, x, cos_sin, slot_mapping, kv)
            x = x + self._moe(layer, x)
        return self._norm(x, "norm")

    def _attend(
        self,
        layer: int,
        x: torch.Tensor,
        cos_sin: tuple[torch.Tensor, torch.Tensor],
        slot_mapping: torch.Tensor,
        kv: KvArena,
    ) -> torch.Tensor:
        head_dim = self._geometry.head_dim
        normed = self._norm(x, f"layers.{layer}.attention_norm")
        q, k, v = (self._linear(normed, f"layers.{layer}.{name}").view(len(x), -1, head_dim) for name in "qkv")
        kv.write(layer, slot_mapping, rotate(k, cos_sin), v)
        out = self._attention.attend(layer, rotate(q, cos_sin), kv)
        return self._linear(out.flatten(1), f"layers.{layer}.o")

    def _moe(self, layer: int, x: torch.Tensor) -> torch.Tensor:
        normed = self._norm(x, f"layers.{layer}.moe_norm")
        weights, chosen = route(self._linear(normed, f"layers.{layer}.router"), self._geometry.top_k)
        predicts = self._experts.wants_predictions or self._trace.records_routing
        predicted = self._predictor.predict(layer, x) if predicts else {}
        dispatch, predicted_ids = Dispatch.sort(weights, chosen, self._geometry.num_experts, predicted)
        if predicts:
            self._predictor.observe(dispatch.keys(layer), *self._experts.take_prefetch_feedback())
            self._trace.record_routing(layer, chosen, predicted_ids)
        self._predictor.record_prediction(layer, predicted_ids)
        self._experts.expect(dispatch.keys(layer), self._predictor.keys_to_prefetch(layer, predicted_ids))
        return moe_forward(normed, dispatch, layer, self._experts, self.numerics, self._trace)

    def _router_scores(self, layer: int, x: torch.Tensor) -> torch.Tensor:
        return self._linear(self._norm(x, f"layers.{layer}.moe_norm"), f"layers.{layer}.router")

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Final hidden states [T, H] -> float32 logits [T, vocabulary]."""
        head = self._dense["embed" if self._geometry.tie_word_embeddings else "head"]
        parts = [self.numerics.linear(part, head).float() for part in torch.split(hidden, HEAD_ROWS)]
        return torch.cat(parts) if parts else hidden.new_zeros((0, num_rows(head)), dtype=torch.float32)

    def _linear(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return self.numerics.linear(x, self._dense[name])

    def _norm(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return self.numerics.rms_norm(x, _plain(self._dense[name]), self._geometry.rms_norm_eps)


def _plain(matrix: Matrix) -> torch.Tensor:
    assert isinstance(matrix, torch.Tensor), "norms are never quantised"
    return matrix
