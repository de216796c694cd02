"""Guess which experts the next layers will ask for: their routers on the hidden state of this layer.

Knows routers and how good its own guesses were; knows nothing of slots or of bytes.  A guess decides when bytes
move, never what is computed.  (Next-layer routing on the current hidden state: arXiv 2312.17238.)
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import torch

from rotary_batch.core import ExpertKey
from rotary_batch.engine.runtime.trace import Trace

Scores = Callable[[int, torch.Tensor], torch.Tensor]  # layer, residual stream [T, H] -> router scores [T, E]
DISTANCES = (1, 2)
MIN_USEFUL = 0.5  # of slabs that were loaded on a guess; below it guesses push out more than they bring
FAR_RECALL = 0.6  # two layers ahead is acted on only from this recall on
WIDE_RECALL = 0.8  # below it one expert more than the router takes is guessed
SMOOTHING = 0.02  # weight of one observation in the running averages: the last 50 or so
PAUSE_LAYERS = 4096  # how long guessing rests after it fell short


class ExpertPredictor:
    """Guesses, and decides from its record how far, how wide, and whether at all."""

    def __init__(self, scores: Scores, num_layers: int, top_k: int, trace: Trace) -> None:
        self._scores = scores
        self._num_layers = num_layers
        self._top_k = top_k
        self._trace = trace
        self._open: dict[tuple[int, int], frozenset[ExpertKey]] = {}  # (distance, layer) -> guess
        self._pause_layers = 0
        self.recall = dict.fromkeys(DISTANCES, 1.0)
        self.useful = 1.0

    def likely(self, layer: int, x: torch.Tensor) -> dict[int, torch.Tensor]:
        """Distance -> likely experts of the layer so far ahead, [n]; x [T, H] is the residual stream at `layer`."""
        self._pause_layers = max(0, self._pause_layers - 1)
        if self._pause_layers and not self._trace.records_routing:
            return {}
        width = self._top_k + (self.recall[1] < WIDE_RECALL)
        ahead = [distance for distance in DISTANCES if layer + distance < self._num_layers]
        return {d: most_likely_experts(self._scores(layer + d, x), width) for d in ahead}

    def guess(self, layer: int, likely: Mapping[int, Sequence[int]]) -> list[ExpertKey]:
        """The keys worth loading now, nearest layer first, none while resting; takes note of all that were likely."""
        found: list[ExpertKey] = []
        for distance, experts in likely.items():
            keys = [ExpertKey(layer + distance, expert) for expert in dict.fromkeys(experts)]
            self._open[distance, layer + distance] = frozenset(keys)
            if distance == 1 or self.recall[distance] >= FAR_RECALL:
                found += keys
        return [] if self._pause_layers else found

    def observe(self, asked: Collection[ExpertKey], num_unused: int, num_used: int) -> None:
        """What a layer really asked for, and what became of slabs that were loaded on a guess."""
        layer = next(iter(asked)).layer
        for distance in DISTANCES:
            guess = self._open.pop((distance, layer), None)
            if guess is None:
                continue
            right = len(guess & frozenset(asked))
            self.recall[distance] += SMOOTHING * (right / len(asked) - self.recall[distance])
            if distance == 1:
                self._trace.add("guessed", len(guess))
                self._trace.add("guessed_right", right)
                self._trace.add("asked_after_guess", len(asked))
        if self._pause_layers:
            return  # of what was loaded before
        self.useful *= (1 - SMOOTHING) ** num_unused
        self.useful = 1 - (1 - self.useful) * (1 - SMOOTHING) ** num_used
        if self.useful < MIN_USEFUL:
            self._pause_layers, self.useful = PAUSE_LAYERS, 1.0
            self._open.clear()


def most_likely_experts(scores: torch.Tensor, width: int) -> torch.Tensor:
    """Router scores [T, E] -> experts [T * width], every row's first choice before any second."""
    return scores.topk(min(width, scores.shape[-1])).indices.T.flatten()
