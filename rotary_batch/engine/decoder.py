"""The decoder: one pass of a batch of rows through all layers.  `Geometry` has its switches.

T = rows of this step, H = hidden, E = experts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain

import torch

from rotary_batch.engine.attention.base import Attention, QuerySegment
from rotary_batch.engine.delta.base import StateSegment
from rotary_batch.engine.delta.states import StateArena
from rotary_batch.engine.kernels.matrices import num_rows
from rotary_batch.engine.kvcache.arena import KvArena
from rotary_batch.engine.mixers.base import Mixer, StepRows
from rotary_batch.engine.mixers.gated_delta import GatedDelta
from rotary_batch.engine.mixers.latent_attention import LatentAttention
from rotary_batch.engine.mixers.self_attention import SelfAttention
from rotary_batch.engine.moe import Dispatch, all_active, moe_forward
from rotary_batch.engine.offload.prediction import ExpertPredictor
from rotary_batch.engine.offload.source import ExpertSource
from rotary_batch.engine.rope import Rope
from rotary_batch.engine.routing import preferences, route
from rotary_batch.engine.runtime.trace import Trace
from rotary_batch.engine.sampling import HEAD_ROWS
from rotary_batch.engine.weights import Weights
from rotary_batch.model.geometry import DELTA


class Decoder:
    """The dense weights, which stay in device memory, and a source of experts, which may not."""

    def __init__(
        self,
        weights: Weights,
        experts: ExpertSource,
        attentions: Mapping[int | None, Attention],
        context_tokens: int,
        trace: Trace,
        states: StateArena | None = None,
    ) -> None:
        geometry = weights.geometry
        self._geometry = geometry
        self._weights = weights
        self._experts = experts
        self.numerics = weights.numerics
        self._trace = trace
        self._rope = Rope(geometry, context_tokens, self.numerics.dtype, weights.vector("norm").device)
        self._attentions = attentions
        self._delta = GatedDelta(weights, states) if states is not None else None
        attention: Mixer = (LatentAttention if geometry.kv_lora_rank else SelfAttention)(weights, attentions)
        self._mixers: list[Mixer] = [
            self._delta if self._delta and geometry.attention_kind(layer) == DELTA else attention
            for layer in range(geometry.num_layers)
        ]
        self._predictor = ExpertPredictor(self._router_preferences, geometry.moe_layers, geometry.top_k, trace)

    def forward(
        self,
        token_ids: torch.Tensor,
        segments: Sequence[QuerySegment],
        kv: KvArena,
        state_segments: Sequence[StateSegment] = (),
    ) -> torch.Tensor:
        """Token ids [T] of all segments -> final hidden states [T, H]; writes their KV to the arena.

        Where layers have states, `state_segments` says whose states all the rows advance.
        """
        if self._delta is not None:
            self._delta.plan(state_segments)
        x = self._scaled(self.numerics.embed(self._weights.matrix("embed"), token_ids), "embedding_multiplier")
        step = self._begin_step(segments, kv, token_ids.device)
        self._experts.begin_step(len(x))
        for layer in range(self._geometry.num_layers):
            with self._trace.time_on_device("attention", str(layer)):
                normed = self._weights.norm(x, f"layers.{layer}.attention_norm")
                x = x + self._scaled(self._mixers[layer].mix(layer, normed, step), "residual_multiplier")
            x = x + self._scaled(self._feed_forward(layer, x), "residual_multiplier")
        return self._weights.norm(x, "norm")

    def _begin_step(self, segments: Sequence[QuerySegment], kv: KvArena, device: torch.device) -> StepRows:
        positions = torch.tensor(list(chain.from_iterable(segment.positions() for segment in segments))).to(device)
        slots = list(chain.from_iterable(segment.slot_mapping() for segment in segments))
        kv.begin_step(slots)
        for attention in self._attentions.values():
            attention.plan(segments)
        return StepRows(segments, self._rope.cos_sin(positions), torch.tensor(slots).to(device), kv)

    def _scaled(self, x: torch.Tensor, multiplier: str) -> torch.Tensor:
        factor = getattr(self._geometry, multiplier)
        return x if factor == 1 else x * factor

    def _feed_forward(self, layer: int, x: torch.Tensor) -> torch.Tensor:
        """The residual stream [T, H] -> what the layer's feed-forward adds."""
        geometry, stem = self._geometry, f"layers.{layer}"
        normed = self._weights.norm(x, f"{stem}.moe_norm")
        if layer in geometry.dense_layers:
            return self._weights.feed_forward(normed, f"{stem}.ffn")
        if not geometry.has_router:
            return all_active(normed, layer, geometry, self._experts, self.numerics, self._trace)
        out = self._moe(layer, x, normed)
        return out + self._shared(layer, normed) if geometry.shared_intermediate_size else out

    def _moe(self, layer: int, x: torch.Tensor, normed: torch.Tensor) -> torch.Tensor:
        geometry = self._geometry
        weights, chosen = route(self._router_scores(layer, normed), geometry, self._choice_bias(layer))
        predicts = self._experts.wants_predictions or self._trace.records_routing
        predicted = self._predictor.predict(layer, x) if predicts else {}
        dispatch, predicted_ids = Dispatch.sort(weights, chosen, geometry.num_experts, predicted)
        if predicts:
            self._predictor.observe(dispatch.keys(layer), *self._experts.take_prefetch_feedback())
            self._trace.record_routing(layer, chosen, predicted_ids)
        self._predictor.record_prediction(layer, predicted_ids)
        self._experts.expect(dispatch.keys(layer), self._predictor.keys_to_prefetch(layer, predicted_ids))
        return moe_forward(normed, dispatch, layer, geometry, self._experts, self.numerics, self._trace)

    def _shared(self, layer: int, normed: torch.Tensor) -> torch.Tensor:
        """The expert that every row has."""
        out = self._weights.feed_forward(normed, f"layers.{layer}.shared")
        if not self._geometry.shared_gate:
            return out
        return out * self.numerics.sigmoid(self._weights.linear(normed, f"layers.{layer}.shared.router"))

    def _router_scores(self, layer: int, normed: torch.Tensor) -> torch.Tensor:
        return self._weights.linear(normed, f"layers.{layer}.router")

    def _choice_bias(self, layer: int) -> torch.Tensor | None:
        return self._weights.vector(f"layers.{layer}.router.choice_bias") if self._geometry.choice_bias else None

    def _router_preferences(self, layer: int, x: torch.Tensor) -> torch.Tensor:
        """What the router of a layer would prefer for the residual stream [T, H]: [T, E]."""
        scores = self._router_scores(layer, self._weights.norm(x, f"layers.{layer}.moe_norm"))
        return preferences(scores, self._geometry, self._choice_bias(layer))

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Final hidden states [T, H] -> float32 logits [T, vocabulary]."""
        geometry = self._geometry
        head = self._weights.matrix("embed" if geometry.tie_word_embeddings else "head")
        parts = [self.numerics.linear(part, head).float() for part in torch.split(hidden, HEAD_ROWS)]
        logits = torch.cat(parts) if parts else hidden.new_zeros((0, num_rows(head)), dtype=torch.float32)
        if geometry.head_bias:
            logits = logits + self._weights.vector("head.bias").float()
        return logits if geometry.logits_divisor == 1 else logits / geometry.logits_divisor
