"""Decode steps as CUDA graphs: the host launches a graph instead of a thousand kernels.

A step is one graph where every expert is resident, since then nothing of it waits for the host.  Elsewhere it is
interrupted once in each layer: there the host waits for the router and launches what depends on it, and the next graph
goes on behind that.  A step is recorded when its number of rows has come twice in a row, if each sequence has one row
and its KV cache is in device memory.  It reads its inputs from a tensor that is written before each replay.
T = rows, H = hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from functools import cache
from typing import NamedTuple, Protocol

import torch

from rotary_batch.engine.attention.base import QuerySegment
from rotary_batch.engine.attention.triton import TritonAttention
from rotary_batch.engine.decoder import Decoder
from rotary_batch.engine.kvcache.arena import KvArena
from rotary_batch.engine.sampling import Choice, best_tokens, choices_of

MAX_GRAPHS = 4  # those that were used last; each keeps its activations
MAX_ROWS = 256  # above them kernels take longer than their launches
RowsFunction = Callable[[torch.Tensor], torch.Tensor]  # [T, H] -> [T, H]
Replay = Callable[[], None]


class Recording(Protocol):
    """A function that is being recorded."""

    def on_host(self, function: RowsFunction, rows: torch.Tensor) -> torch.Tensor:
        """Let the host run `function` between two parts of the recording, now and in each replay."""
        ...

    def record(self, function: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, Replay]:
        """Run a function and record it: the tensor with its result, and what computes that anew."""
        ...


class _Graph(NamedTuple):
    inputs: torch.Tensor  # int64 [T, 9]: token id, position, index in the arena, and the segment of each row
    output: torch.Tensor  # of `best_tokens`
    replay: Replay


class DecodeGraphs:
    """The graphs of one engine."""

    def __init__(self, decoder: Decoder, kv: KvArena, attentions: Collection[TritonAttention]) -> None:
        self._decoder = decoder
        self._kv = kv
        self._attentions = attentions
        self._graphs: dict[tuple[int, bool, int], _Graph] = {}  # the last used last
        self._last_key = (0, False, 0)
        self.num_replays = 0
        self.left_out = ""  # why no more graphs are recorded

    def choices(self, token_ids: Sequence[int], segments: Sequence[QuerySegment]) -> list[Choice] | None:
        """The next token after each row of a step; None = compute this step without a graph."""
        count = len(token_ids)
        if count > MAX_ROWS or len(segments) != count:
            return None
        key = (count, *self._decoder.predicts)  # as in the step before: a step of other rows is never recorded at once
        is_repeated, self._last_key = key == self._last_key, key
        graph = self._graphs.pop(key, None)
        if graph is None and (self.left_out or not is_repeated):
            return None
        inputs = torch.tensor(
            [
                (token_id, segment.first_position, segment.slot_mapping()[0], *segment)
                for token_id, segment in zip(token_ids, segments, strict=True)
            ]
        )
        if graph is None:
            graph = self._recorded(inputs)
        else:
            self._decoder.begin_experts(count)
            graph.inputs.copy_(inputs, non_blocking=True)
            graph.replay()
            self.num_replays += 1
        if graph is None:
            return None
        self._graphs[key] = graph
        return choices_of(graph.output)

    def close(self) -> None:
        """Free what graphs keep; idempotent."""
        self._graphs.clear()

    def _recorded(self, inputs: torch.Tensor) -> _Graph | None:
        """A graph that has been run once."""
        if len(self._graphs) >= MAX_GRAPHS:
            del self._graphs[next(iter(self._graphs))]
        static = inputs.to(self._kv.device)
        recording = new_recording()
        self._decoder.begin_experts(len(inputs))
        alone, self._decoder.on_host = self._decoder.on_host, recording.on_host
        try:
            output, replay = recording.record(lambda: self._forward(static))
        except RuntimeError as error:  # memory that ran out, or an operator that cannot be recorded
            self.left_out = str(error)
            return None
        finally:
            self._decoder.on_host = alone
        return _Graph(static, output, replay)

    def _forward(self, inputs: torch.Tensor) -> torch.Tensor:
        token_ids, positions, slots = inputs[:, :3].unbind(1)
        segments = inputs[:, 3:].int()
        for attention in self._attentions:
            attention.plan_for_kernel(segments)
        hidden = self._decoder.forward_rows(token_ids, self._decoder.step_rows((), positions, slots, self._kv))
        return best_tokens(hidden, self._decoder.logits)


def new_recording() -> Recording:
    """A recording on the current CUDA device."""
    return CudaRecording()


@cache
def _stream() -> torch.cuda.Stream:
    """One for all recordings: libraries keep a workspace for each."""
    return torch.cuda.Stream()  # type: ignore[no-untyped-call]


class CudaRecording:
    """Records a function as CUDA graphs, with what the host does between them."""

    def __init__(self) -> None:
        self._parts: list[Replay] = []
        self._graph: torch.cuda.CUDAGraph | None = None  # that is being recorded
        self._pool = torch.cuda.graph_pool_handle()
        self._on_host: tuple[torch.Tensor, torch.Tensor] | None = None  # what the host reads and writes in all layers

    def on_host(self, function: RowsFunction, rows: torch.Tensor) -> torch.Tensor:
        """Run `function` on `rows` [T, H] between two graphs."""
        if self._on_host is None:
            self._on_host = torch.empty_like(rows), torch.empty_like(rows)
        source, target = self._on_host
        if self._graph is None:  # nothing is recorded yet
            return function(rows)
        source.copy_(rows)
        self._end()

        def part() -> None:
            target.copy_(function(source))

        part()
        self._parts.append(part)
        self._begin()
        return target

    def record(self, function: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, Replay]:
        """Run a function, which allocates what stays and compiles kernels, then again to record it."""
        _stream().wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(_stream()):
            function()
            self._begin()
            try:
                output = function()
                self._end()
            except BaseException:
                if self._graph is not None:
                    with suppress(RuntimeError):
                        self._graph.capture_end()
                raise
        torch.cuda.current_stream().wait_stream(_stream())
        return output, self._replay

    def _replay(self) -> None:
        for part in self._parts:
            part()

    def _begin(self) -> None:
        self._graph = torch.cuda.CUDAGraph()
        self._graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")

    def _end(self) -> None:
        """End a graph and run it: recording alone computes nothing."""
        assert self._graph is not None
        graph, self._graph = self._graph, None
        graph.capture_end()
        graph.replay()
        self._parts.append(graph.replay)
