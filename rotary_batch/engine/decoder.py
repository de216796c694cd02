"""The decoder: one pass of a batch of rows through all layers.  `Geometry` has its switches.

T = rows of this step, H = hidden, E = experts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import NamedTuple

import torch

from rotary_batch.engine.attention.base import Attention, QuerySegment
from rotary_batch.engine.delta.base import StateSegment
from rotary_batch.engine.delta.states import StateArena
from rotary_batch.engine.kernels.grouped import GroupedKernels, GroupedLayout
from rotary_batch.engine.kernels.matrices import num_rows as matrix_rows
from rotary_batch.engine.kvcache.arena import KvArena
from rotary_batch.engine.mixers.base import Mixer, StepRows
from rotary_batch.engine.mixers.gated_delta import GatedDelta
from rotary_batch.engine.mixers.latent_attention import LatentAttention
from rotary_batch.engine.mixers.self_attention import SelfAttention
from rotary_batch.engine.moe import Dispatch, all_active, grouped_forward, moe_forward
from rotary_batch.engine.offload.prediction import ExpertPredictor
from rotary_batch.engine.offload.source import ExpertSource
from rotary_batch.engine.rope import Rope
from rotary_batch.engine.routing import preferences, route
from rotary_batch.engine.runtime.trace import Trace
from rotary_batch.engine.sampling import HEAD_ROWS
from rotary_batch.engine.weights import Weights
from rotary_batch.model.geometry import DELTA

OnHost = Callable[[Callable[[torch.Tensor], torch.Tensor], torch.Tensor], torch.Tensor]


class _Routed(NamedTuple):
    """What the router of a layer chose."""

    layer: int
    dispatch: Dispatch
    chosen: torch.Tensor  # [T, K]
    predicted: Mapping[int, torch.Tensor]  # distance -> experts of the layer that far ahead
    layout: GroupedLayout | None  # None = experts one by one


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
        grouped: GroupedKernels | None = None,
    ) -> None:
        geometry = weights.geometry
        self._geometry = geometry
        self._weights = weights
        self._experts = experts
        self._grouped = grouped
        self.on_host: OnHost = lambda function, rows: function(rows)  # where a step waits for the host: graphs.py
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
        self.begin_experts(len(token_ids))
        return self.forward_rows(token_ids, self._begin_step(segments, kv, token_ids.device))

    def begin_experts(self, num_rows: int) -> None:
        """Tell the source of experts that a step of this many rows begins."""
        self._experts.begin_step(num_rows)

    @property
    def predicts(self) -> tuple[bool, int]:
        """Whether experts are predicted now, and how many for each row."""
        return self._experts.wants_predictions and not self._predictor.is_paused, self._predictor.width

    def _begin_step(self, segments: Sequence[QuerySegment], kv: KvArena, device: torch.device) -> StepRows:
        positions = torch.tensor(list(chain.from_iterable(segment.positions() for segment in segments))).to(device)
        slots = list(chain.from_iterable(segment.slot_mapping() for segment in segments))
        kv.begin_step(slots)
        for attention in self._attentions.values():
            attention.plan(segments)
        return self.step_rows(segments, positions, torch.tensor(slots).to(device), kv)

    def step_rows(
        self, segments: Sequence[QuerySegment], positions: torch.Tensor, slots: torch.Tensor, kv: KvArena
    ) -> StepRows:
        """Rows at these positions [T], whose keys and values go to these indices [T] of the arena."""
        return StepRows(segments, self._rope.cos_sin(positions), slots, kv)

    def forward_rows(self, token_ids: torch.Tensor, step: StepRows) -> torch.Tensor:
        """The same for a step that attention is planned for and experts are begun for."""
        x = self._scaled(self.numerics.embed(self._weights.matrix("embed"), token_ids), "embedding_multiplier")
        for layer in range(self._geometry.num_layers):
            with self._trace.time_on_device("attention", str(layer)):
                normed = self._weights.norm(x, f"layers.{layer}.attention_norm")
                x = x + self._scaled(self._mixers[layer].mix(layer, normed, step), "residual_multiplier")
            x = x + self._scaled(self._feed_forward(layer, x), "residual_multiplier")
        return self._weights.norm(x, "norm")

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
            slices = partial(
                all_active,
                layer=layer,
                geometry=geometry,
                experts=self._experts,
                numerics=self.numerics,
                trace=self._trace,
            )
            return slices(normed) if self._experts.is_resident else self.on_host(slices, normed)
        out = self._moe(layer, x, normed)
        return out + self._shared(layer, normed) if geometry.shared_intermediate_size else out

    def _all_slices(self, layer: int, normed: torch.Tensor) -> torch.Tensor:
        return all_active(normed, layer, self._geometry, self._experts, self.numerics, self._trace)

    def _moe(self, layer: int, x: torch.Tensor, normed: torch.Tensor) -> torch.Tensor:
        geometry = self._geometry
        weights, chosen = route(self._router_scores(layer, normed), geometry, self._choice_bias(layer))
        dispatch = Dispatch.sort(weights, chosen, geometry.num_experts)
        layout = self._grouped.for_rows(layer, chosen.numel()) if self._grouped else None
        if layout and self._experts.is_resident and not self._trace.records_routing:  # the host need not know
            return grouped_forward(normed, dispatch, (), layer, layout, self._experts, self._trace)
        predicts = self._experts.wants_predictions or self._trace.records_routing
        routed = _Routed(layer, dispatch, chosen, self._predictor.predict(layer, x) if predicts else {}, layout)
        return self.on_host(partial(self._routed_experts, routed), normed)

    def _routed_experts(self, routed: _Routed, normed: torch.Tensor) -> torch.Tensor:
        """What the host does when it knows which experts have rows."""
        layer, dispatch, chosen, predicted, layout = routed
        num_rows, predicted_ids = dispatch.on_host(layer, predicted)
        keys = list(num_rows)
        if self._experts.wants_predictions or self._trace.records_routing:
            self._predictor.observe(keys, *self._experts.take_prefetch_feedback())
            self._trace.record_routing(layer, chosen, predicted_ids)
        self._predictor.record_prediction(layer, predicted_ids)
        self._experts.expect(keys, self._predictor.keys_to_prefetch(layer, predicted_ids))
        if layout:
            return grouped_forward(normed, dispatch, keys, layer, layout, self._experts, self._trace)
        return moe_forward(normed, dispatch, num_rows, self._geometry, self._experts, self.numerics, self._trace)

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
        logits = torch.cat(parts) if parts else hidden.new_zeros((0, matrix_rows(head)), dtype=torch.float32)
        if geometry.head_bias:
            logits = logits + self._weights.vector("head.bias").float()
        return logits if geometry.logits_divisor == 1 else logits / geometry.logits_divisor
