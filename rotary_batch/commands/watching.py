"""Tells whoever watches a run how far it is: a terminal, the log, and `status` by way of the database."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rotary_batch.commands.meter import Meter, Reading
from rotary_batch.commands.sampling import sample_of
from rotary_batch.commands.step_costs import StepWork
from rotary_batch.log import event
from rotary_batch.window import Window
from rotary_batch.work import counts
from rotary_batch.work.runs import save_stats
from rotary_batch.work.samples import Sampler
from rotary_batch.work.store import WorkStore

if TYPE_CHECKING:  # `--help` imports this module, and the runner imports much
    from rotary_batch.pacing import Pace
    from rotary_batch.run_stats import Progress, RunStats

SAVE_EVERY_S = 3.0
LOG_EVERY_S = 60.0
READ_QUEUE_EVERY_S = 2.0
_READ_SHARE = 0.02  # of the time that reading the queue may take


def _ignore(_: object) -> None:
    """Nobody watches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watcher:
    """What is called in the course of a run."""

    phase: Callable[[str], None] = _ignore  # what begins now, as `opening the model`
    reading: Callable[[Reading], None] = _ignore  # after every step
    first_page: Callable[[Path], None] = _ignore  # the first page with words of the model is written


def pace_words(state: str, share: float, why: str) -> str:
    """What a run does that does not work as fast as it can: `yielding (its memory is free): other programs ...`."""
    if state == "paused":
        return f"{why}; its memory is free"
    return f"yielding ({f'at {share:.0%} of its pace'.replace('%', ' %') if share else 'its memory is free'}): {why}"


@dataclass(kw_only=True)
class RunWatch:
    """Called after every step of one run."""

    store: WorkStore
    repository_ids: Sequence[int]
    run_id: int
    window: Window
    watcher: Watcher
    clock: Callable[[], float] = time.monotonic
    _meter: Meter = field(init=False)

    def __post_init__(self) -> None:
        self._meter = Meter(counts.unit_work(self.store, self.repository_ids))
        self._sampler = Sampler(self.store, self.run_id)
        self._stepped_at: float | None = None
        self._opening_s = 0.0  # until the first step
        self._told: dict[str, Any] = {"progress": None, "activity": None}  # what `status` shows
        self._read_at = self._saved_at = self._logged_at = float("-inf")
        self._read_again_s = READ_QUEUE_EVERY_S

    def __call__(self, progress: Progress) -> None:
        """Count the step and tell the watcher."""
        now, report = self.clock(), progress.report
        since_s = report.step_s if self._stepped_at is None else now - self._stepped_at
        if self._stepped_at is None:
            self._opening_s = max(0.0, progress.elapsed_s - report.step_s)
        self._stepped_at = now
        self._meter.add(
            StepWork(
                seconds=min(since_s, 2 * report.step_s + 1),  # a machine that was suspended did not work
                prompt_tokens=report.prefill_tokens,
                generated={new.request_id: len(new.token_ids) for new in report.new_tokens},
                ended=[*(one.request_id for one in report.completions), *(one.request_id for one in report.failures)],
                prompts=progress.prompts,
                is_full=progress.is_full,
            )
        )
        progress.stats.pace = {**self._meter.pace()._asdict(), "opening_s": round(self._opening_s, 3)}
        self._read_queue(now)
        reading = self._reading(progress)
        self._keep(reading, progress, now)
        self.watcher.reading(reading)

    def pace(self, pace: Pace, stats: RunStats) -> None:
        """Tell that the run is paused, yields to others, or works as fast as it can again."""
        is_held = pace.state != "working"
        since = datetime.now(UTC).isoformat(timespec="seconds")
        self._told["activity"] = {**pace._asdict(), "since": since} if is_held else None
        save_stats(self.store, self.run_id, stats.as_dict() | self._told)
        if is_held:
            self.waits(pace)

    def waits(self, pace: Pace) -> None:
        """The run waits, and is not stuck."""
        self.watcher.phase(pace_words(pace.state, pace.share, pace.why))

    def _read_queue(self, now: float) -> None:
        if now - self._read_at < self._read_again_s:
            return
        self._meter.renew(counts.unit_work(self.store, self.repository_ids))
        self._read_at = self.clock()
        self._read_again_s = max(READ_QUEUE_EVERY_S, (self._read_at - now) / _READ_SHARE)

    def _reading(self, progress: Progress) -> Reading:
        num_done = counts.num_ended(self.store, self.repository_ids)
        is_over = not counts.open_items(self.store, self.repository_ids)
        num_items = num_done if is_over else max(self._meter.num_items, num_done + 1)
        allowed = progress.num_allowed
        is_limited = allowed is not None and allowed < num_items - num_done
        left_s, seconds_left = self._meter.left_s(allowed), self.window.seconds_left
        stops_first = seconds_left is not None and (left_s is None or seconds_left < left_s)
        stats = progress.stats
        return Reading(
            share=1.0 if is_over else min(self._meter.share(), 0.999),
            num_done=num_done,
            num_items=num_items,
            tokens_per_s=self._meter.tokens_per_s,
            bound_share=stats.roofline_s / stats.step_s if stats.roofline_s and stats.step_s else None,
            left_s=left_s,
            stops_in_s=seconds_left if stops_first else None,
            max_items=self.window.max_items if is_limited else None,
        )

    def _keep(self, reading: Reading, progress: Progress, now: float) -> None:
        if self._sampler.is_due(progress.stats.drain_s):
            num_open = max(0, reading.num_items - reading.num_done)
            self._sampler.add(sample_of(progress.stats.as_dict(), num_open))
        if now - self._saved_at >= SAVE_EVERY_S:
            self._told["progress"] = reading.as_dict()
            save_stats(self.store, self.run_id, progress.stats.as_dict() | self._told)
            self._saved_at = now
        if now - self._logged_at >= LOG_EVERY_S:
            event("progress", **reading.as_dict())
            self._logged_at = now
