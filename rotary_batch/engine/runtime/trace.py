"""Counters of one engine, and on request a timeline of reads, copies and matmuls.

The prefetchers and the compute thread write it, so every change takes the lock.  Work of a CUDA device is timed by
events on its streams, because the host only launches it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch

from rotary_batch.core import ExpertKey


class Interval(NamedTuple):
    """Some work and when it was done, in seconds on the clock of `time.perf_counter`."""

    kind: str  # read, copy, attention, compute or stall
    start_s: float
    end_s: float
    label: str


class Routing(NamedTuple):
    """What one layer's router chose in one step."""

    layer: int
    chosen: list[list[int]]  # experts of each row
    predicted: dict[int, list[int]]  # distance -> experts that were predicted here for the layer N ahead


class Trace:
    """Running totals.  `bytes_to_host` must stay 0: weights are immutable, and an evicted slab is not copied back."""

    def __init__(self, *, timeline: bool = False, routing: bool = False, on_cuda: bool = False) -> None:
        self._lock = threading.Lock()
        self._totals: dict[str, float] = {
            "bytes_read": 0,
            "bytes_moved": 0,
            "bytes_to_host": 0,
            "ring_hits": 0,
            "late_prefetches": 0,
            "fetches": 0,
            "wasted_prefetches": 0,
            "stall_s": 0.0,
            "sweeps": 0,
            "speculative_revolutions": 0,
            "guessed": 0,
            "guessed_right": 0,
            "asked_after_guess": 0,
            "drafted_tokens": 0,
            "accepted_tokens": 0,
        }
        self._timeline: list[Interval] | None = [] if timeline else None
        self._device_work: list[tuple[str, str, torch.cuda.Event, torch.cuda.Event]] = []
        self._clock_origin = _clock_origin() if timeline and on_cuda else None
        self.records_routing = routing
        self.routing: list[Routing] = []

    def add(self, name: str, amount: float = 1) -> None:
        """Increase a counter."""
        with self._lock:
            self._totals[name] += amount

    def totals(self) -> dict[str, float]:
        """A copy of all counters."""
        with self._lock:
            return dict(self._totals)

    def record_routing(self, layer: int, chosen: torch.Tensor, predicted: Mapping[int, Sequence[int]]) -> None:
        """If routing is recorded, store what a router chose, [T, K], and what was predicted at this layer."""
        if self.records_routing:
            self.routing.append(Routing(layer, chosen.tolist(), {d: list(ids) for d, ids in predicted.items()}))

    @contextmanager
    def time_on_host(self, kind: str, label: str) -> Iterator[None]:
        """If a timeline is recorded, add how long the block took."""
        if self._timeline is None:
            yield
            return
        start_s = time.perf_counter()
        try:
            yield
        finally:
            with self._lock:
                self._timeline.append(Interval(kind, start_s, time.perf_counter(), label))

    @contextmanager
    def time_on_device(self, kind: str, label: str) -> Iterator[None]:
        """The same for the work that the block launches on the device; on a CPU, for the block itself."""
        if self._clock_origin is None:
            with self.time_on_host(kind, label):
                yield
            return
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        begin.record()
        try:
            yield
        finally:
            end.record()
            with self._lock:
                self._device_work.append((kind, label, begin, end))

    @property
    def timeline(self) -> list[Interval]:
        """The intervals so far, after waiting for the device; empty when no timeline is recorded."""
        with self._lock:
            intervals = list(self._timeline or [])
            if self._clock_origin is not None:
                torch.cuda.synchronize()
                first, first_s = self._clock_origin
                for kind, label, begin, end in self._device_work:
                    start_s, end_s = (first_s + first.elapsed_time(event) / 1e3 for event in (begin, end))
                    intervals.append(Interval(kind, start_s, end_s, label))
            return intervals


def interval_label(keys: Sequence[ExpertKey]) -> str:
    """The label of an interval that moves these experts, as layer.expert: 3.0, or 3.0 to 3.7."""
    first, last = (f"{key.layer}.{key.expert}" for key in (keys[0], keys[-1]))
    return first if first == last else f"{first} to {last}"


def _clock_origin() -> tuple[torch.cuda.Event, float]:
    """The same moment on both clocks."""
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record()
    event.synchronize()
    return event, time.perf_counter()
