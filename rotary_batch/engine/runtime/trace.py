"""Counters of one engine, and on request a timeline of reads, copies and matmuls.

Knows names, expert keys and numbers; written by the rotor and the compute thread, so every change takes the lock.
What a CUDA device does is timed by events on its streams: the host only sets it in motion.
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
    """One thing that took time; seconds on the clock of `time.perf_counter`."""

    kind: str  # read, copy, attention, compute or stall
    start_s: float
    end_s: float
    label: str


class Routing(NamedTuple):
    """What one layer's router chose in one revolution."""

    layer: int
    chosen: list[list[int]]  # experts of each row
    likely: dict[int, list[int]]  # distance -> what was guessed here for the layer so far ahead


class Trace:
    """Running totals.  `bytes_to_host` exists to stay 0: weights are immutable, evicting forgets."""

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
        self._under_way: list[tuple[str, str, torch.cuda.Event, torch.cuda.Event]] = []
        self._origin = _origin() if timeline and on_cuda else None
        self.keeps_routing = routing
        self.routing: list[Routing] = []

    def add(self, name: str, amount: float = 1) -> None:
        """Raise a counter."""
        with self._lock:
            self._totals[name] += amount

    def totals(self) -> dict[str, float]:
        """A copy of all counters."""
        with self._lock:
            return dict(self._totals)

    def note_routing(self, layer: int, chosen: torch.Tensor, likely: Mapping[int, Sequence[int]]) -> None:
        """Keep what a router chose, [T, K], and the guesses made there, when routing is kept."""
        if self.keeps_routing:
            self.routing.append(Routing(layer, chosen.tolist(), {d: list(ids) for d, ids in likely.items()}))

    @contextmanager
    def timed(self, kind: str, label: str) -> Iterator[None]:
        """Note how long the block took, when a timeline is kept."""
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
    def work(self, kind: str, label: str) -> Iterator[None]:
        """Note how long the device took over what the block sets in motion; on a CPU, how long the block took."""
        if self._origin is None:
            with self.timed(kind, label):
                yield
            return
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        begin.record()
        try:
            yield
        finally:
            end.record()
            with self._lock:
                self._under_way.append((kind, label, begin, end))

    @property
    def timeline(self) -> list[Interval]:
        """The intervals so far, when the device is done with them; empty when none are kept."""
        with self._lock:
            found = list(self._timeline or [])
            if self._origin is not None:
                torch.cuda.synchronize()
                first, first_s = self._origin
                for kind, label, begin, end in self._under_way:
                    start_s, end_s = (first_s + first.elapsed_time(event) / 1e3 for event in (begin, end))
                    found.append(Interval(kind, start_s, end_s, label))
            return found


def label(keys: Sequence[ExpertKey]) -> str:
    """What an interval that moves these experts is called, layer before the dot: 3.0, or 3.0 to 3.7."""
    first, last = (f"{key.layer}.{key.expert}" for key in (keys[0], keys[-1]))
    return first if first == last else f"{first} to {last}"


def _origin() -> tuple[torch.cuda.Event, float]:
    """One moment on both clocks."""
    event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record()
    event.synchronize()
    return event, time.perf_counter()
