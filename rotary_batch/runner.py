"""The night: admit ready items, step the engine, commit what it wrote, project finished pages.

Knows the order of things and when to stop; knows only the protocol of the engine, and nothing of prompts,
of SQL or of Markdown.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from rotary_batch.core import Completion, Engine, Failure, Lease, NewTokens, Reason, StepReport, Verdict, WorkItem
from rotary_batch.errors import PromptError
from rotary_batch.log import event
from rotary_batch.pages.files import PageFailure, SyncResult
from rotary_batch.window import Window, boot_clock
from rotary_batch.work.rows import Claim, Failed, Finished
from rotary_batch.work.store import WorkStore

CLAIM_BATCH = 16  # one transaction claims this many; what the engine has no room for yet waits here
RETRY_AFTER_S = 2.0  # doubled at every further attempt
PROJECT_EVERY_S = 5.0  # finished pages wait at most this long, so that their syncs do not slow the engine


class ItemProcessor(Protocol):
    """What the planner does for the runner."""

    def reuse_answers(self) -> Iterator[list[WorkItem]]:
        """Answer ready items whose results are already there, some at a time."""
        ...

    def advance(self) -> Iterator[list[WorkItem]]:
        """Give items whose inputs are complete their prompts, some at a time; those that needed no model."""
        ...

    def finish(self, claim: Claim, completion: Completion) -> Finished:
        """Judge an answer."""
        ...


@dataclass(slots=True)
class RunStats:
    """What a run did so far; stored with the run, shown while it goes on."""

    revolutions: int = 0
    done: int = 0
    reused: int = 0
    parked: int = 0
    retried: int = 0
    verdicts: dict[str, int] = field(default_factory=dict)
    ended: dict[str, int] = field(default_factory=dict)  # what ended answers
    prefill_tokens: int = 0
    reprefill_tokens: int = 0
    reprefill_s: float = 0.0  # its share of step_s, by tokens
    decode_tokens: int = 0
    step_s: float = 0.0
    bound_s: float = 0.0  # what the same revolutions would have taken at the bound; 0 = the machine was not measured
    rates_raised: float = 1.0  # by how much, because revolutions were faster than their bound
    device: str = ""
    pages_written: int = 0
    conflicts: list[str] = field(default_factory=list)
    pages_failed: list[PageFailure] = field(default_factory=list)
    tier: str = ""  # where experts came from, and how
    engine: dict[str, float] = field(default_factory=dict)

    def add_step(self, report: StepReport) -> None:
        """Count one revolution."""
        self.revolutions += 1
        self.prefill_tokens += report.prefill_tokens
        self.reprefill_tokens += report.reprefill_tokens
        self.decode_tokens += report.decode_tokens
        passed = max(1, report.prefill_tokens + report.decode_tokens)
        self.reprefill_s += report.step_s * min(1.0, report.reprefill_tokens / passed)
        self.step_s += report.step_s
        self.bound_s += report.roofline_s
        self.tier = report.tier
        self.engine = dict(report.counters)

    def add_answer(self, verdict: Verdict, ended: Reason) -> None:
        """Count one answer."""
        self.verdicts[verdict.value] = self.verdicts.get(verdict.value, 0) + 1
        self.ended[ended] = self.ended.get(ended, 0) + 1

    def add_pages(self, done: SyncResult) -> None:
        """Count pages; what stands in the way of one is told once."""
        self.pages_written += len(done.written)
        self.conflicts += [page for page in done.conflicts if page not in self.conflicts]
        self.pages_failed += [failure for failure in done.failed if failure not in self.pages_failed]

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What an onlooker may want to know after each revolution."""

    tally: RunStats
    report: StepReport
    num_live: int
    num_open: int
    elapsed_s: float


@dataclass(kw_only=True)
class Runner:
    """One run over some repositories.  `project` brings the pages of items up to date; `look` shows progress."""

    store: WorkStore
    engine: Engine
    desk: ItemProcessor
    window: Window
    run_id: int
    repository_ids: Sequence[int]
    project: Callable[[Sequence[WorkItem]], SyncResult]
    look: Callable[[Progress], None]
    num_open: Callable[[], int]
    max_attempts: int
    clock: Callable[[], float] = boot_clock  # also of when a failed item is due, which no other run asks
    sleep: Callable[[float], None] = time.sleep
    tally: RunStats = field(default_factory=RunStats)

    def __post_init__(self) -> None:
        self._claims: dict[int, Claim] = {}
        self._waiting: deque[Claim] = deque()
        self._unprojected: list[WorkItem] = []
        self._projected_at = self._started_at = self.clock()

    def drain(self) -> str:
        """Work until the queue is empty or the window closes; answer `done` or the reason to stop."""
        self.store.reap(self.run_id)
        try:
            self._note_reused(self.desk.reuse_answers())
            while (why := self.window.why_closed()) is None:
                self._note_reused(self.desk.advance())
                self._admit()
                if self.window.is_closed():
                    continue  # opening the engine may have taken long
                if self.engine.num_live:
                    self._revolve()
                elif not self._wait_for_retry():
                    break
                self._project(at_once=False)
        finally:
            self._give_back()
        self._project(at_once=True)
        return why or ("done" if not self.num_open() else "limit")

    def _revolve(self) -> None:
        report = self.engine.step()
        self.tally.add_step(report)
        finished = [self.desk.finish(self._claims[done.request_id], done) for done in report.completions]
        failed = [self._failed(lost) for lost in report.failures]
        self.store.commit_step(self._progress(report), finished, failed)
        for done in finished:
            self._forget(done.claim)
            self.tally.done += 1
            self.tally.add_answer(done.judged.verdict, done.completion.reason)
            self._unprojected.append(done.claim.item)
            event("item done", item=done.claim.item.id, verdict=done.judged.verdict.value)
        for lost in failed:
            self._forget(lost.claim)
            self.tally.parked += lost.retry_at is None
            self.tally.retried += lost.retry_at is not None
            event("item failed", item=lost.claim.item.id, error=lost.error, parked=lost.retry_at is None)
        self.look(
            Progress(
                tally=self.tally,
                report=report,
                num_live=self.engine.num_live,
                num_open=self.num_open(),
                elapsed_s=self.clock() - self._started_at,
            )
        )

    def _progress(self, report: StepReport) -> list[tuple[Lease, NewTokens]]:
        ended = {done.request_id for done in report.completions}
        return [(self._claims[new.request_id].lease, new) for new in report.new_tokens if new.request_id not in ended]

    def _failed(self, failure: Failure) -> Failed:
        claim = self._claims[failure.request_id]
        again = failure.retry and claim.item.attempts + 1 < self.max_attempts
        retry_at = self.clock() + RETRY_AFTER_S * 2**claim.item.attempts if again else None
        return Failed(claim=claim, error=failure.error, retry_at=retry_at)

    def _admit(self) -> None:
        """Claim and admit while the engine has room."""
        while True:
            if not self._waiting:
                self._claim()
            if not self._waiting or not self.engine.has_room(self._waiting[0].request):
                return
            claim = self._waiting.popleft()
            self._claims[claim.item.id] = claim
            try:
                self.engine.admit(claim.request)
            except PromptError as error:
                self.store.commit_step([], [], [Failed(claim=claim, error=str(error), retry_at=None)])
                self._forget(claim)
                self.tally.parked += 1

    def _claim(self) -> None:
        left = self.window.items_left
        limit = CLAIM_BATCH if left is None else min(CLAIM_BATCH, left)
        if limit > 0:
            found = self.store.claim(self.run_id, limit=limit, now=self.clock(), repository_ids=self.repository_ids)
            self._waiting.extend(found)
            self.window.items_taken += len(found)

    def _forget(self, claim: Claim) -> None:
        del self._claims[claim.item.id]

    def _wait_for_retry(self) -> bool:
        """With nothing else to do, wait for an item that failed; answer whether there is one."""
        at = self.store.next_retry_at(self.repository_ids)
        if at is None or self.window.items_left == 0:
            return False
        self.sleep(min(1.0, max(0.0, at - self.clock())))  # its time may have come since the queue was asked
        return True

    def _note_reused(self, batches: Iterator[list[WorkItem]]) -> None:
        for items in batches:
            self.tally.reused += len(items)
            self._unprojected += items
            self._project(at_once=False)
            if self.window.is_closed():
                return

    def _give_back(self) -> None:
        self.store.release([claim.lease for claim in (*self._claims.values(), *self._waiting)])

    def _project(self, *, at_once: bool) -> None:
        if not self._unprojected or (not at_once and self.clock() - self._projected_at < PROJECT_EVERY_S):
            return
        self.tally.add_pages(self.project(self._unprojected))
        self.store.save_tally(self.run_id, self.tally.as_dict())
        self._unprojected = []
        self._projected_at = self.clock()
