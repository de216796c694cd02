"""One run: admit ready items, step the engine, commit its tokens and answers, write finished pages.

The runner decides the order of things and when to stop.  Of the engines it uses only the protocol of a pool.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field

from rotary_batch.backoff import Backoff
from rotary_batch.blame import Quarantine
from rotary_batch.core import EnginePool, ErrorClass, Failure, Lease, Loss, NewTokens, StepReport, WorkItem
from rotary_batch.errors import DeviceMemoryError, PromptError, StoppedError, UnavailableError
from rotary_batch.log import event
from rotary_batch.pacing import MEMORY_TRIES, Pace, Pacekeeper, Pacer
from rotary_batch.pages.files import SyncResult
from rotary_batch.planner.processor import ItemProcessor
from rotary_batch.run_stats import Progress, RunStats
from rotary_batch.window import Window, boot_clock
from rotary_batch.work.accounting import Accounts, Cost, save_costs
from rotary_batch.work.rows import Claim, Failed, Finished
from rotary_batch.work.store import WorkStore

CLAIM_BATCH = 16  # claimed in one transaction; those that the engine has no room for yet wait here
RETRY_AFTER_S, MOST_RETRY_AFTER_S = 4.0, 600.0  # doubled at every further attempt
_ENDS_RUN = {ErrorClass.BAD_MODEL, ErrorClass.BAD_MACHINE}
SYNC_EVERY_S = 5.0  # finished pages are written in batches, so that their fsyncs do not slow the engine


@dataclass(kw_only=True)
class Runner:
    """One run over some repositories.

    `sync_pages` brings the pages of items up to date; `on_step` is called after every step, `on_pace` when the pace
    changes.
    """

    store: WorkStore
    pool: EnginePool
    processor: ItemProcessor
    window: Window
    run_id: int
    repository_ids: Sequence[int]
    sync_pages: Callable[[Sequence[WorkItem]], SyncResult]
    on_step: Callable[[Progress], None]
    num_open: Callable[[], int]
    max_attempts: int
    pacer: Pacer = field(default_factory=Pacer)
    on_pace: Callable[[Pace], None] = lambda _: None
    on_wait: Callable[[Pace], None] = lambda _: None  # every second in which there is no work
    energy_j: Callable[[], float | None] = lambda: None  # of the card, in all
    backoff: Backoff = field(default_factory=lambda: Backoff(first_s=RETRY_AFTER_S, most_s=MOST_RETRY_AFTER_S))
    clock: Callable[[], float] = boot_clock  # also sets when a failed item is due, which no other run reads
    sleep: Callable[[float], None] = time.sleep
    stats: RunStats = field(default_factory=RunStats)

    def __post_init__(self) -> None:
        self._claims: dict[int, Claim] = {}  # by item, of what the engine has
        self._waiting: deque[Claim] = deque()  # for room in the engine
        self._quarantine = Quarantine()
        self._unsynced: list[WorkItem] = []
        self._step_s = 0.0  # of the last step
        self._accounts = Accounts()
        self._energy_j = self.energy_j()
        self._memory_tries = 0  # since the last step
        self._pacekeeper = Pacekeeper(
            pacer=self.pacer,
            is_closed=self.window.is_closed,
            on_change=self._note_pace,
            clock=self.clock,
            sleep=self.sleep,
        )
        self._synced_at = self._started_at = self.clock()

    def drain(self) -> str:
        """Work until the queue is empty or the window closes; returns `done`, `limit` or why the window closed."""
        self.store.reap(self.run_id)
        try:
            self._count_reused(self.processor.reuse_answers())
            while (why := self.window.why_closed()) is None:
                if self._pacekeeper.look().share == 0.0 and self.num_open():
                    self._wait_without_memory()
                elif not self._work():
                    break
        except StoppedError:  # a signal, while the engine was being opened
            if (why := self.window.why_closed()) is None:
                raise
        finally:
            self._release_claims()
            self.stats.drain_s = round(self.clock() - self._started_at, 3)
        self._sync_pages()
        return why or self._why_idle()

    def _work(self) -> bool:
        """Admit and take one step; returns False when there is nothing to do."""
        try:
            self._count_reused(self.processor.prepare())
            self._admit()
            if self.window.is_closed():
                return True  # opening the engine may have taken long
            if self.pool.num_live:
                self._step()
            elif self.window.is_closing(self._step_s) or not (self._wait_for_engine() or self._wait_for_retry()):
                return False
        except DeviceMemoryError as error:
            self._yield_memory(error)
        self._sync_pages_if_due()
        return True

    def _yield_memory(self, error: DeviceMemoryError) -> None:
        """No item is to blame when the device has no memory left: others have it, and give it back.

        Without a deadline, or before the first step, it may as well be too small: then `error` ends the run after a few
        tries.
        """
        self._memory_tries += 1
        self.stats.memory_ran_out += 1
        event("memory ran out", error=str(error), tries=self._memory_tries)
        self._give_back_memory()
        if self._memory_tries >= MEMORY_TRIES and not (self.stats.revolutions and self.window.deadlines):
            raise error
        self.pacer.yielding.memory_ran_out("the device ran out of memory, which other programs have")

    def _give_back_memory(self) -> None:
        self._release_claims()
        self.window.items_taken -= self._num_taken
        self._claims.clear()
        self._waiting.clear()
        self._quarantine.clear()
        self.pool.release()

    def _wait_without_memory(self) -> None:
        self._give_back_memory()
        self._sync_pages()
        self._pacekeeper.wait()
        self.on_wait(self._pacekeeper.pace)
        self._energy_j = self.energy_j()  # what others took meanwhile is not ours
        self._count_waits()

    def _count_waits(self) -> None:
        waited_s = self._pacekeeper.waited_s
        self.stats.paused_s, self.stats.yielded_s = (round(waited_s[one], 3) for one in ("paused", "yielding"))

    def _note_pace(self, pace: Pace) -> None:
        event("pace", state=pace.state, share=pace.share, why=pace.why)
        self._count_waits()
        self.on_pace(pace)

    def _why_idle(self) -> str:
        if not self.num_open():
            return "done"
        return "deadline" if self.window.is_closing(self._step_s) else "limit"

    def _step(self) -> None:
        """Step the engine once and commit all that it gave in one transaction."""
        prompts = {item_id: claim.read_tokens for item_id, claim in self._claims.items()}
        report = self.pool.step()
        self.stats.drain_s = round(self.clock() - self._started_at, 3)
        self._step_s = report.step_s
        if report.prefill_tokens or report.decode_tokens:
            self._memory_tries = 0
        self._accounts.add_step(self._cost(report), prompts)
        self.stats.add_step(report)
        ended = [self.processor.complete(self._claims[done.request_id], done) for done in report.completions]
        finished = [one for one in ended if isinstance(one, Finished)]
        failed = [self._failed(one) for one in report.failures if one.is_attempt and one.error_class not in _ENDS_RUN]
        failed += [self._blamed(loss) for loss in report.losses if len(loss.request_ids) == 1]
        failed += [one for one in ended if isinstance(one, Failed)]
        with self.store.transaction():
            self.store.commit_step(self._unfinished(report), finished, failed)
            over = [one.claim.item.id for one in finished] + [one.claim.item.id for one in failed]
            save_costs(self.store, self._accounts.take(over))
        for one in finished:
            self._note_finished(one)
        for lost in failed:
            self._note_failed(lost)
        self._hand_back([failure for failure in report.failures if not failure.is_attempt])
        self._judge(report)
        self.on_step(
            Progress(
                stats=self.stats,
                report=report,
                prompts=prompts,
                num_live=self.pool.num_live,
                num_allowed=self._num_allowed(),
                elapsed_s=self.clock() - self._started_at,
                is_full=bool(self._waiting),
            )
        )
        self._pacekeeper.rest(report.step_s)
        self._count_waits()

    def _cost(self, report: StepReport) -> Cost:
        """What this step cost, by how far the counters moved."""
        before, self._energy_j = self._energy_j, self.energy_j()
        moved, waited = (
            report.counters.get(name, 0.0) - self.stats.engine.get(name, 0.0) for name in ("bytes_moved", "stall_s")
        )
        energy_j = None
        if before is not None and self._energy_j is not None:
            energy_j = self._energy_j - before
            self.stats.energy_j = (self.stats.energy_j or 0.0) + energy_j
        return Cost(report.step_s, moved, waited, energy_j)

    def _hand_back(self, failures: Sequence[Failure]) -> None:
        """Return items that the machine had no room for to the queue; no attempt is counted."""
        if not failures:
            return
        self.stats.memory_ran_out += 1
        event("memory ran out", error=failures[0].error, items=len(failures))
        self.pacer.yielding.memory_is_short("the device ran out of memory for this batch")
        lost = [self._claims.pop(failure.request_id) for failure in failures]
        self.window.items_taken -= len(lost)
        with self.store.transaction():
            self.store.release([claim.lease for claim in lost])
            save_costs(self.store, self._accounts.take([claim.item.id for claim in lost]))

    def _num_allowed(self) -> int | None:
        left = self.window.items_left
        return None if left is None else left + self._num_taken

    @property
    def _num_taken(self) -> int:
        return len(self._claims) + len(self._waiting) + len(self._quarantine.claims)

    def _unfinished(self, report: StepReport) -> list[tuple[Lease, NewTokens]]:
        """The new tokens of sequences that go on, with their leases."""
        completed = {completion.request_id for completion in report.completions}
        unfinished = [new for new in report.new_tokens if new.request_id not in completed]
        return [(self._claims[new.request_id].lease, new) for new in unfinished]

    def _failed(self, failure: Failure) -> Failed:
        claim = self._claims[failure.request_id]
        retry_at = self._retry_at(claim) if failure.retry else None
        return Failed(claim=claim, error=failure.error, retry_at=retry_at, error_class=failure.error_class)

    def _blamed(self, loss: Loss) -> Failed:
        """The item that was alone when its engine died."""
        claim = self._claims[loss.request_ids[0]]
        return Failed(claim=claim, error=f"the engine died: {loss.error}", retry_at=self._retry_at(claim))

    def _retry_at(self, claim: Claim) -> float | None:
        """When an item may be asked again; None after the last attempt."""
        attempts = claim.item.attempts
        return self.clock() + self.backoff.wait_s(attempts) if attempts + 1 < self.max_attempts else None

    def _judge(self, report: StepReport) -> None:
        """Send suspects into quarantine, and those that a trial has cleared back to the others."""
        for failure in report.failures:
            if failure.error_class in _ENDS_RUN:
                raise UnavailableError(f"{failure.error}; nothing was parked for it")
        cleared = self._quarantine.note(report)
        self.pool.drop(cleared)
        self._waiting.extendleft(self._take_back(cleared))
        for loss in report.losses:
            suspects = self._take_back([one for one in loss.request_ids if one in self._claims])
            self.stats.add_loss(loss, len(suspects))
            self._quarantine.add_halves(suspects)
        if report.losses:
            event("engine suspects", items=len(self._quarantine.claims))

    def _take_back(self, item_ids: Collection[int]) -> list[Claim]:
        """Claims of items that no engine has any more, leased anew."""
        claims = [self._claims.pop(item_id) for item_id in sorted(item_ids)]
        with self.store.transaction():
            save_costs(self.store, self._accounts.take(item_ids))
            return self.store.renew(claims)

    def _note_finished(self, finished: Finished) -> None:
        item = finished.claim.item
        del self._claims[item.id]
        self.stats.add_finished(finished)
        self._unsynced.append(item)
        event("item done", item=item.id, verdict=finished.validation.verdict.value)

    def _note_failed(self, failed: Failed) -> None:
        item_id = failed.claim.item.id
        del self._claims[item_id]
        self.stats.add_failed(failed)
        event(
            "item failed",
            item=item_id,
            error=failed.error,
            error_class=failed.error_class,
            parked=failed.retry_at is None,
        )

    def _admit(self) -> None:
        """Claim and admit while the engine has room, and time is left to read what is new."""
        self._admit_suspects()
        while not self.window.is_closing(self._step_s) and self._pacekeeper.admits(self.pool.num_live):
            if not self._waiting:
                self._claim()
            if not self._waiting or not self.pool.has_room(self._waiting[0].request):
                break
            self._admit_one(self._waiting.popleft())
        self._admit_suspects()

    def _admit_suspects(self) -> None:
        """Begin the next trial, if an engine is free for it."""
        if self.window.is_closing(self._step_s):
            return
        group = deque(self._quarantine.next_group())
        tried = []
        while group and self.pool.has_room(group[0].request, apart=True):
            tried.append(group.popleft())
            self._admit_one(tried[-1], apart=True)
        if tried:
            self._quarantine.begin([one.item.id for one in tried if one.item.id in self._claims], group)

    def _admit_one(self, claim: Claim, *, apart: bool = False) -> None:
        self._claims[claim.item.id] = claim
        try:
            self.pool.admit(claim.request, apart=apart)
        except PromptError as error:
            lost = Failed(claim=claim, error=str(error), retry_at=None)
            self.store.commit_step([], [], [lost])
            self._note_failed(lost)

    def _claim(self) -> None:
        left = self.window.items_left
        limit = CLAIM_BATCH if left is None else min(CLAIM_BATCH, left)
        if limit > 0:
            claims = self.store.claim(self.run_id, limit=limit, now=self.clock(), repository_ids=self.repository_ids)
            for claim in claims:
                if self._quarantine.is_suspect(claim):
                    self._quarantine.add([claim])
                else:
                    self._waiting.append(claim)
            self.window.items_taken += len(claims)

    def _wait_for_engine(self) -> bool:
        """With items but no engine, wait for one to be replaced; returns False when there are no items."""
        self.sleep(min(1.0, self.pool.starts_in_s))
        return bool(self._waiting or self._quarantine.claims)

    def _wait_for_retry(self) -> bool:
        """With nothing else to do, wait for an item that failed; returns False when there is none."""
        retry_at = self.store.next_retry_at(self.repository_ids)
        if retry_at is None or self.window.items_left == 0:
            return False
        self.sleep(min(1.0, max(0.0, retry_at - self.clock())))  # it may have come due since the query
        return True

    def _count_reused(self, batches: Iterator[list[WorkItem]]) -> None:
        for items in batches:
            self.stats.reused += len(items)
            self._unsynced += items
            self._sync_pages_if_due()
            if self.window.is_closed():
                return

    def _release_claims(self) -> None:
        if claims := [*self._claims.values(), *self._waiting, *self._quarantine.claims]:
            with self.store.transaction():
                self.store.release([claim.lease for claim in claims])
                save_costs(self.store, self._accounts.take(self._claims))

    def _sync_pages_if_due(self) -> None:
        if self.clock() - self._synced_at >= SYNC_EVERY_S:
            self._sync_pages()

    def _sync_pages(self) -> None:
        if not self._unsynced:
            return
        self.stats.add_pages(self.sync_pages(self._unsynced))
        self._unsynced = []
        self._synced_at = self.clock()
