"""The Mixtral decoder (arXiv 2401.04088), wired together: one pass of all layers over ragged rows.

Knows the order of operations; knows nothing of sequences beyond their rows, or of sampling.
T = rows of this revolution, H = hidden.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain

import torch

from rotary_batch.engine.attention.base import Attention, Rows
from rotary_batch.engine.kernels.numerics import Numerics
from rotary_batch.engine.kernels.quant import Matrix, num_rows
from rotary_batch.engine.kvcache.arena import KvArena
from rotary_batch.engine.moe import Dispatch, mix, route
from rotary_batch.engine.offload.prediction import ExpertPredictor
from rotary_batch.engine.offload.source import ExpertSource
from rotary_batch.engine.rope import Rope, rotate
from rotary_batch.engine.runtime.trace import Trace
from rotary_batch.engine.sampling import HEAD_ROWS
from rotary_batch.model.geometry import Geometry


class Mixtral:
    """Weights that stay in device memory, and the experts that may not."""

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
        self._guesser = ExpertPredictor(self._router_scores, geometry.num_layers, geometry.top_k, trace)

    def revolve(self, token_ids: torch.Tensor, rows: Sequence[Rows], kv: KvArena) -> torch.Tensor:
        """One revolution: token ids [T] of all rows -> final hidden states [T, H]; keys and values are kept."""
        device = token_ids.device
        x = self.numerics.rows_of(self._dense["embed"], token_ids)
        positions = torch.tensor(list(chain.from_iterable(run.positions() for run in rows))).to(device)
        turns = self._rope.turns(positions)
        places = list(chain.from_iterable(run.homes() for run in rows))
        homes = torch.tensor(places).to(device)
        kv.start(places)
        self._attention.plan(rows)
        self._experts.begin_step(len(x))
        for layer in range(self._geometry.num_layers):
            with self._trace.work("attention", str(layer)):
                x = x + self._attend(layer, x, turns, homes, kv)
            x = x + self._mixture(layer, x)
        return self._norm(x, "norm")

    def _attend(
        self, layer: int, x: torch.Tensor, turns: tuple[torch.Tensor, torch.Tensor], homes: torch.Tensor, kv: KvArena
    ) -> torch.Tensor:
        head_dim = self._geometry.head_dim
        normed = self._norm(x, f"layers.{layer}.attention_norm")
        q, k, v = (self._linear(normed, f"layers.{layer}.{name}").view(len(x), -1, head_dim) for name in "qkv")
        kv.write(layer, homes, rotate(k, turns), v)
        out = self._attention.attend(layer, rotate(q, turns), kv)
        return self._linear(out.flatten(1), f"layers.{layer}.o")

    def _mixture(self, layer: int, x: torch.Tensor) -> torch.Tensor:
        normed = self._norm(x, f"layers.{layer}.moe_norm")
        weights, chosen = route(self._linear(normed, f"layers.{layer}.router"), self._geometry.top_k)
        guesses = self._experts.wants_predictions or self._trace.keeps_routing
        likely = self._guesser.predict(layer, x) if guesses else {}
        routed, likely_ids = Dispatch.sort(weights, chosen, self._geometry.num_experts, likely)
        if guesses:
            self._guesser.observe(routed.keys(layer), *self._experts.take_prefetch_feedback())
            self._trace.note_routing(layer, chosen, likely_ids)
        self._guesser.record_prediction(layer, likely_ids)
        self._experts.expect(routed.keys(layer), self._guesser.keys_to_prefetch(layer, likely_ids))
        return mix(normed, routed, layer, self._experts, self.numerics, self._trace)

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
