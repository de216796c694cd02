"""`drain` and `run`: open the engine, work through the queue, leave pages."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from rotary_batch.commands.database import chosen
from rotary_batch.commands.groups import SettingsOf, by_engine
from rotary_batch.commands.inputs import asking
from rotary_batch.commands.isolation import Failure, isolated
from rotary_batch.commands.rates import RateWatch, refresh_rates
from rotary_batch.commands.roots import printable
from rotary_batch.config import Settings
from rotary_batch.core import Engine, Subject, WorkItem
from rotary_batch.errors import RepositoryError
from rotary_batch.log import event
from rotary_batch.model.footprint import Workload
from rotary_batch.model.manifest import Manifest
from rotary_batch.pages.files import SyncResult
from rotary_batch.pages.page import IndexView
from rotary_batch.planner.index import index_key
from rotary_batch.planner.processor import ItemProcessor
from rotary_batch.planner.prompt_builder import PromptBuilder
from rotary_batch.runner import Progress, Runner, RunStats
from rotary_batch.sync import docs_folder, load_index_view, sync_pending, sync_some
from rotary_batch.window import Window, deadlines
from rotary_batch.work import counts
from rotary_batch.work.lock import device_lock
from rotary_batch.work.rows import RepositoryRow
from rotary_batch.work.runs import end_run, start_run
from rotary_batch.work.store import WorkStore

OpenEngine = Callable[..., Engine]
NOT_WHOLE = "its index was not finished, or an earlier version made it"


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainOutcome:
    """How a run ended."""

    outcome: str  # done, deadline, limit, interrupted
    tally: RunStats
    num_open: int
    num_parked: int
    seconds: float
    model_name: str
    docs: tuple[Path, ...]
    notes: tuple[str, ...] = ()  # which of the repositories' own settings were ignored

    @property
    def exit_code(self) -> int:
        """75 while work remains, else 5 when items are parked, else 0; see `separate.exit_code`."""
        return 75 if self.num_open else 5 if self.num_parked else 0

    def as_dict(self) -> dict[str, Any]:
        """Plain data for --json and the report."""
        return {
            "outcome": self.outcome,
            "exit_code": self.exit_code,
            "open": self.num_open,
            "parked": self.num_parked,
            "seconds": round(self.seconds, 3),
            "model": self.model_name,
            "docs": [str(path) for path in self.docs],
            "notes": list(self.notes),
            **self.tally.as_dict(),
        }


def window(*, until: str | None, duration: str | None, limit: int | None = None) -> Window:
    """The window that the flags ask for."""
    return Window(deadlines=deadlines(until=until, duration=duration), max_items=limit)


def chosen_apart(store: WorkStore, roots: Sequence[Path], found: list[DrainOutcome | Failure]) -> list[RepositoryRow]:
    """As `chosen`, but a repository that is not indexed is noted among the outcomes."""
    if not roots:
        return chosen(store, [])
    rows: list[RepositoryRow] = []
    for root in roots:
        with isolated([printable(root)], found):
            rows += [row for row in chosen(store, [root]) if row not in rows]
    return rows


def drain(
    store: WorkStore,
    settings_of: SettingsOf,
    rows: Sequence[RepositoryRow],
    limits: Window,
    look: Callable[[Progress], None],
    open_engine: OpenEngine,
    command: str,
) -> Iterator[DrainOutcome | Failure]:
    """Work through the queue of the repositories: one engine after the other, each for all that can share it.

    What each of them did is yielded before the next begins, so what ends the command takes nothing away.
    """
    gone = missing(rows)
    unread: list[DrainOutcome | Failure] = []
    groups = by_engine([row for row in rows if row not in gone], settings_of, unread)
    yield from unread
    for group in groups:
        found: list[DrainOutcome | Failure] = []
        call = DrainRequest(store, group.settings, limits, look, open_engine, command, tuple(group.notes))
        with isolated([row.root for row in group.rows], found), device_lock(group.settings.device):
            _drain_one_model(call, group.pack, group.rows, found)
        yield from found


def missing(rows: Sequence[RepositoryRow]) -> list[RepositoryRow]:
    """Those that are no longer where they were indexed; what was deleted must not come back as docs alone."""
    return [row for row in rows if not Path(row.root).is_dir()]


class DrainRequest(NamedTuple):
    """What a drain was asked for, with the settings of one engine."""

    store: WorkStore
    settings: Settings
    limits: Window
    look: Callable[[Progress], None]
    open_engine: OpenEngine
    command: str
    notes: tuple[str, ...]


def _drain_one_model(
    call: DrainRequest, pack: Path, group: Sequence[RepositoryRow], found: list[DrainOutcome | Failure]
) -> None:
    """Add the outcome of one model and what failed to `found`."""
    manifest, ask = Manifest.load(pack), asking(call.settings, pack)
    views = _views(call, ask, group, found)
    rows = [row for row in group if row.id in views]
    if not rows:
        return
    run_id = start_run(call.store, command=call.command, model_name=manifest.name, pid=os.getpid())
    event("run started", run=run_id, command=call.command, model=manifest.name)
    started, ids = time.monotonic(), [row.id for row in rows]
    projecting = _PageSync(call.store, rows, views, call.limits, [])
    longest = ask.job.longest_rollup_tokens(manifest.context_tokens)

    def open_now() -> Engine:
        refresh_rates(call.settings, pack, manifest, time.time())
        return open_for(call.settings, pack, call.open_engine, counts.workload(call.store, ids, longest))

    engine = _LazyEngine(open_now)
    runner = Runner(
        store=call.store,
        engine=engine,
        processor=ItemProcessor(call.store, ask, views),
        window=call.limits,
        run_id=run_id,
        repository_ids=ids,
        sync_pages=projecting.some,
        on_step=RateWatch(engine, call.settings, call.look),
        num_open=lambda: counts.open_items(call.store, ids),
        max_attempts=ask.job.attempts,
        stats=RunStats(device=call.settings.device),
    )
    outcome = "failed"
    try:
        outcome = runner.drain()
    finally:
        engine.close()
        projecting.rest(runner.stats)
        found += projecting.failures
        end_run(call.store, run_id, outcome, runner.stats.as_dict())
        event("run ended", run=run_id, outcome=outcome, **runner.stats.as_dict())
    done = DrainOutcome(
        outcome=outcome,
        tally=runner.stats,
        num_open=counts.open_items(call.store, ids),
        num_parked=counts.parked_items(call.store, ids),
        seconds=time.monotonic() - started,
        model_name=manifest.name,
        docs=tuple(docs_folder(row) for row in rows),
        notes=call.notes,
    )
    found.append(done)


def _views(
    call: DrainRequest, ask: PromptBuilder, group: Sequence[RepositoryRow], found: list[DrainOutcome | Failure]
) -> dict[int, IndexView]:
    """What is known of each repository that can be drained."""
    views = {}
    for row in group:
        with isolated([row.root], found):
            call.limits.check()
            _require_index_of(ask, row)
            views[row.id] = load_index_view(call.store, row)
    return views


class _PageSync(NamedTuple):
    """Brings pages up to date in the course of a run, each docs folder for itself."""

    store: WorkStore
    rows: Sequence[RepositoryRow]
    views: dict[int, IndexView]
    limits: Window
    failures: list[Failure]

    def some(self, items: Sequence[WorkItem]) -> SyncResult:
        """The pages of items that were just answered."""
        units: dict[int, list[Subject]] = {}
        for item in items:
            units.setdefault(item.repository_id, []).append(item.subject)
        return self._each(
            [row for row in self.rows if row.id in units],
            lambda row: sync_some(self.store, row, self.views[row.id], units[row.id], self.limits.is_closed),
        )

    def rest(self, tally: RunStats) -> None:
        """Every page that is not as it should be, those of items that a killed run finished too."""
        self.failures.clear()
        done = self._each(
            self.rows, lambda row: sync_pending(self.store, row, self.views[row.id], self.limits.is_closed)
        )
        if not done.stopped:  # every page that something stands in the way of was looked at again
            tally.conflicts, tally.pages_failed = [], []
        tally.add_pages(done)

    def _each(self, rows: Sequence[RepositoryRow], project: Callable[[RepositoryRow], SyncResult]) -> SyncResult:
        done = SyncResult()
        for row in rows:
            with isolated([row.root], self.failures):
                done.add(project(row), "" if len(self.rows) == 1 else f"{row.root}: ")
        return done


def _require_index_of(ask: PromptBuilder, row: RepositoryRow) -> None:
    """Prompts and keys were made at `index`; answers computed otherwise must not be kept under them."""
    if not row.plan_key:
        raise RepositoryError(f"{row.root}: {NOT_WHOLE}; run `rotary-batch index {row.root}` again")
    if row.plan_key != index_key(ask, row):
        raise RepositoryError(
            f"{row.root}: indexed with another job, prompts, numerics or --kv than this drain has; give the same "
            f"flags, or run `rotary-batch index {row.root}` again"
        )


def open_for(settings: Settings, pack: Path, open_engine: OpenEngine, workload: Workload | None = None) -> Engine:
    """The engine that the settings ask for."""
    return open_engine(
        pack,
        workload=workload,
        kv=settings.kv,
        device=settings.device,
        device_memory=settings.device_memory,
        host_memory=settings.host_memory,
        numerics=settings.numerics,
        max_batch=settings.max_batch,
    )


class _LazyEngine:
    """Opens the engine when the first item needs it: a night without work loads no model."""

    def __init__(self, open_now: Callable[[], Engine]) -> None:
        self._open_now = open_now
        self._engine: Engine | None = None

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the engine has
        if self._engine is None:
            self._engine = self._open_now()
        return getattr(self._engine, name)

    @property
    def num_live(self) -> int:
        return self._engine.num_live if self._engine is not None else 0

    def close(self) -> None:
        if self._engine is not None:
            self._engine.close()
