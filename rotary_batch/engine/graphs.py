"""Decode steps as CUDA graphs: the host launches one graph instead of a thousand kernels.

Only where nothing of a step depends on what the host learns in it: every expert is resident and computed in groups,
each sequence has one row, and its KV cache is in device memory.  A graph is recorded for a number of rows that has come
twice in a row, and reads its inputs from a tensor that is written before each replay.
T = rows.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import torch

from rotary_batch.engine.attention.base import QuerySegment
from rotary_batch.engine.attention.triton import TritonAttention
from rotary_batch.engine.decoder import Decoder
from rotary_batch.engine.kvcache.arena import KvArena
from rotary_batch.engine.sampling import Choice, best_tokens, choices_of

MAX_GRAPHS = 8  # of numbers of rows that came last: each keeps its activations
MAX_ROWS = 128  # above them kernels take longer than their launches
Recorded = tuple[torch.Tensor, Callable[[], None]]  # what a function returns, and what computes it anew
Record = Callable[[Callable[[], torch.Tensor]], Recorded]


class _Graph(NamedTuple):
    inputs: torch.Tensor  # int64 [T, 9]: token id, position, index in the arena, and the segment of each row
    output: torch.Tensor  # of `best_tokens`
    replay: Callable[[], None]


class DecodeGraphs:
    """The graphs of one engine."""

    def __init__(
        self, decoder: Decoder, kv: KvArena, attentions: Collection[TritonAttention], record: Record | None = None
    ) -> None:
        self._decoder = decoder
        self._kv = kv
        self._attentions = attentions
        self._record = record or CudaRecorder()
        self._graphs: dict[int, _Graph] = {}  # by number of rows, the last used last
        self._last_rows = 0
        self.num_replays = 0
        self.left_out = ""  # why no more graphs are recorded

    def choices(self, token_ids: Sequence[int], segments: Sequence[QuerySegment]) -> list[Choice] | None:
        """The next token after each row of a step; None = compute this step without a graph."""
        count, is_repeated = len(token_ids), len(token_ids) == self._last_rows
        self._last_rows = count
        if count > MAX_ROWS or len(segments) != count:
            return None
        rows = [
            (token_id, segment.first_position, segment.slot_mapping()[0], *segment)
            for token_id, segment in zip(token_ids, segments, strict=True)
        ]
        graph = self._graphs.pop(count, None)
        if graph is None and (not is_repeated or self.left_out or self._decoder.waits_for_host(count)):
            return None
        inputs = torch.tensor(rows)
        if graph is None:
            graph = self._recorded(inputs)
            if graph is None:
                return None
        self._graphs[count] = graph
        graph.inputs.copy_(inputs, non_blocking=True)
        graph.replay()
        self.num_replays += 1
        return choices_of(graph.output)

    def _recorded(self, inputs: torch.Tensor) -> _Graph | None:
        if len(self._graphs) >= MAX_GRAPHS:
            del self._graphs[next(iter(self._graphs))]
        static = inputs.to(self._kv.device)
        try:
            output, replay = self._record(lambda: self._forward(static))
        except RuntimeError as error:  # memory that ran out, or an operator that cannot be recorded
            self.left_out = str(error)
            return None
        return _Graph(static, output, replay)

    def _forward(self, inputs: torch.Tensor) -> torch.Tensor:
        token_ids, positions, slots = inputs[:, :3].unbind(1)
        segments = inputs[:, 3:].int()
        for attention in self._attentions:
            attention.plan_for_kernel(segments)
        hidden = self._decoder.forward_rows(token_ids, self._decoder.step_rows((), positions, slots, self._kv))
        return best_tokens(hidden, self._decoder.logits)


class CudaRecorder:
    """Records functions as CUDA graphs that share their memory: one is replayed at a time."""

    def __init__(self) -> None:
        self._pool: object = None

    def __call__(self, function: Callable[[], torch.Tensor]) -> Recorded:
        """Run it twice, which compiles kernels and chooses algorithms, and record it."""
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):
                function()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):  # type: ignore[arg-type]
            output = function()
        self._pool = graph.pool()
        return output, graph.replay
