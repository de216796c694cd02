"""Predict which experts the next layers will choose: apply their routers to the hidden state of this layer.

A prediction decides when bytes move, never what is computed.  (Next-layer routing on the current hidden state:
arXiv 2312.17238.)
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import torch

from rotary_batch.core import ExpertKey
from rotary_batch.engine.runtime.trace import Trace

Scores = Callable[[int, torch.Tensor], torch.Tensor]  # layer, residual stream [T, H] -> router scores [T, E]
DISTANCES = (1, 2)
MIN_USEFUL = 0.5  # of prefetched slabs; below it predictions evict more than they bring
FAR_RECALL = 0.6  # predictions two layers ahead are acted on from this recall on
WIDE_RECALL = 0.8  # below it one expert more than the router takes is predicted
SMOOTHING = 0.02  # weight of one observation in the running averages: about the last 50 count
PAUSE_LAYERS = 4096  # how long prediction pauses after it fell short


class ExpertPredictor:
    """Predicts experts, and decides from its record how far ahead, how many, and whether at all."""

    def __init__(self, scores: Scores, layers: Collection[int], top_k: int, trace: Trace) -> None:
        self._scores = scores
        self._layers = frozenset(layers)  # that have a router
        self._top_k = top_k
        self._trace = trace
        self._pending: dict[tuple[int, int], frozenset[ExpertKey]] = {}  # (distance, layer) -> predicted
        self._pause_layers = 0
        self.recall = dict.fromkeys(DISTANCES, 1.0)
        self.useful_share = 1.0

    @property
    def is_paused(self) -> bool:
        """Whether nothing is predicted for a while."""
        return self._pause_layers > 0

    @property
    def width(self) -> int:
        """How many experts are predicted for each row: as many as its router takes, or one more."""
        return self._top_k + (self.recall[1] < WIDE_RECALL)

    def predict(self, layer: int, x: torch.Tensor) -> dict[int, torch.Tensor]:
        """Distance -> experts [n] of the layer that far ahead; x [T, H] is the residual stream at `layer`."""
        if self._pause_layers and not self._trace.records_routing:
            return {}
        width = self.width
        ahead = [distance for distance in DISTANCES if layer + distance in self._layers]
        return {d: most_likely_experts(self._scores(layer + d, x), width) for d in ahead}

    def keys_to_prefetch(self, layer: int, predicted: Mapping[int, Sequence[int]]) -> list[ExpertKey]:
        """The predicted keys that are worth loading, nearest layer first; none during a pause."""
        if self._pause_layers:
            return []
        near = [distance for distance in predicted if distance == 1 or self.recall[distance] >= FAR_RECALL]
        return [key for distance in near for key in _keys(layer + distance, predicted[distance])]

    def record_prediction(self, layer: int, predicted: Mapping[int, Sequence[int]]) -> None:
        """Remember what was predicted at `layer`, to compare it with what routers choose."""
        for distance, experts in predicted.items():
            self._pending[distance, layer + distance] = frozenset(_keys(layer + distance, experts))

    def observe(self, chosen: Collection[ExpertKey], num_unused: int, num_used: int) -> None:
        """Learn which experts a layer really chose, and how many prefetched slabs were evicted unused, and used."""
        self._pause_layers = max(0, self._pause_layers - 1)
        layer = next(iter(chosen)).layer
        for distance in DISTANCES:
            predicted = self._pending.pop((distance, layer), None)
            if predicted is None:
                continue
            num_right = len(predicted & frozenset(chosen))
            self.recall[distance] += SMOOTHING * (num_right / len(chosen) - self.recall[distance])
            if distance == 1:
                self._trace.add("guessed", len(predicted))
                self._trace.add("guessed_right", num_right)
                self._trace.add("asked_after_guess", len(chosen))
        if self._pause_layers:
            return  # the slabs were loaded before the pause
        self.useful_share *= (1 - SMOOTHING) ** num_unused
        self.useful_share = 1 - (1 - self.useful_share) * (1 - SMOOTHING) ** num_used
        if self.useful_share < MIN_USEFUL:
            self._pause_layers, self.useful_share = PAUSE_LAYERS, 1.0
            self._pending.clear()


def _keys(layer: int, experts: Sequence[int]) -> list[ExpertKey]:
    return [ExpertKey(layer, expert) for expert in dict.fromkeys(experts)]


def most_likely_experts(scores: torch.Tensor, width: int) -> torch.Tensor:
    """Router scores [T, E] -> experts [T * width], the first choice of every row before any second."""
    return scores.topk(min(width, scores.shape[-1])).indices.T.flatten()
