"""Counters of one engine, and on request a timeline of reads and matmuls.

Knows names and numbers; written by the rotor and the compute thread, so every change takes the lock.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple


class Span(NamedTuple):
    """One thing that took time; seconds on the clock of `time.perf_counter`."""

    kind: str  # read, compute or stall
    start_s: float
    end_s: float
    label: str


class Trace:
    """Running totals.  `bytes_to_host` exists to stay 0: weights are immutable, evicting forgets."""

    def __init__(self, *, timeline: bool = False) -> None:
        self._lock = threading.Lock()
        self._totals: dict[str, float] = {
            "bytes_read": 0, "bytes_to_host": 0, "ring_hits": 0, "fetches": 0, "prefetches": 0,
            "wasted_prefetches": 0, "stall_s": 0.0,
        }  # fmt: skip
        self._timeline: list[Span] | None = [] if timeline else None

    def add(self, name: str, amount: float = 1) -> None:
        """Raise a counter."""
        with self._lock:
            self._totals[name] += amount

    def totals(self) -> dict[str, float]:
        """A copy of all counters."""
        with self._lock:
            return dict(self._totals)

    @contextmanager
    def span(self, kind: str, label: str) -> Iterator[None]:
        """Note how long the block took, when a timeline is kept."""
        if self._timeline is None:
            yield
            return
        start_s = time.perf_counter()
        try:
            yield
        finally:
            with self._lock:
                self._timeline.append(Span(kind, start_s, time.perf_counter(), label))

    @property
    def timeline(self) -> list[Span]:
        """The spans so far; empty when none are kept."""
        with self._lock:
            return list(self._timeline or [])
