"""`drain` and `run`: open the engine, work through the queue, leave pages."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from rotary_batch.commands.cluster import cluster_pool, open_on_node
from rotary_batch.commands.engines import OpenEngine, engine_options, open_measured, pool_for
from rotary_batch.commands.forecasting import engine_of, forecast
from rotary_batch.commands.groups import Group, SettingsOf, by_engine
from rotary_batch.commands.isolation import Failure, isolated
from rotary_batch.commands.jobs import load_prompt_builder
from rotary_batch.commands.pace import PacerFor, energy_of, full_pace, within_free
from rotary_batch.commands.preflight import require_engine
from rotary_batch.commands.rates import RateWatch
from rotary_batch.commands.recording import Recorder, Run
from rotary_batch.commands.repositories import without_folder
from rotary_batch.commands.run_report import RunReport
from rotary_batch.commands.watching import RunWatch, Watcher
from rotary_batch.config import Settings
from rotary_batch.core import Subject, WorkItem
from rotary_batch.errors import RepositoryError
from rotary_batch.machine.nvml import open_card
from rotary_batch.model.footprint import Workload
from rotary_batch.pages.files import SyncResult
from rotary_batch.pages.page import IndexView
from rotary_batch.pages.site import things_of
from rotary_batch.planner.index import index_key
from rotary_batch.planner.processor import ItemProcessor
from rotary_batch.planner.prompt_builder import PromptBuilder
from rotary_batch.pool.hosted import Opener
from rotary_batch.pool.pool import Pool
from rotary_batch.run_stats import RunStats
from rotary_batch.runner import Runner
from rotary_batch.sync import IndexViews, docs_folder, sync_pending, sync_some
from rotary_batch.window import Window
from rotary_batch.work import counts
from rotary_batch.work.lock import device_lock
from rotary_batch.work.rows import RepositoryRow
from rotary_batch.work.store import WorkStore

FINISHING = "Finishing this step and saving.\nPress Ctrl-C again to quit now; nothing stored is lost."
NOT_WHOLE = "its index was not finished, or an earlier version made it"


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainRequest:
    """What a drain has in common for all models."""

    store: WorkStore
    settings_of: SettingsOf
    window: Window
    open_engine: OpenEngine
    recorder: Recorder
    views: IndexViews
    watcher: Watcher = field(default_factory=Watcher)
    pacer_for: PacerFor = full_pace


def drain(request: DrainRequest, rows: Sequence[RepositoryRow]) -> Iterator[RunReport | Failure]:
    """Work through the queue of the repositories: one engine after the other, each for all that can share it.

    What came of one engine is yielded before the next is opened, so an error that ends the command loses none.
    """
    gone = without_folder(rows)
    failed: list[Failure] = []
    groups = by_engine([row for row in rows if row not in gone], request.settings_of, failed)
    request.recorder.add_failures(failed)
    yield from failed
    for group in groups:
        outcomes: list[Failure] = []
        run = request.recorder.begin(group.rows, group.notes, group.settings.device)
        with isolated([row.root for row in group.rows], outcomes), _device(group.settings):
            _drain_group(request, group, run, outcomes)
        with request.window.finishing(""):
            report = request.recorder.end(outcomes)
        yield from outcomes
        if run.outcome:
            yield report


def _device(settings: Settings) -> AbstractContextManager[None]:
    """The device of this machine, which no other run may have; on a cluster it is not used."""
    return device_lock(settings.device) if settings.ray is None else nullcontext()


def _drain_group(request: DrainRequest, group: Group, run: Run, outcomes: list[Failure]) -> None:
    """Drain with one engine, and append the failures of its repositories."""
    prompt_builder = load_prompt_builder(group.settings, group.pack)
    views: dict[int, IndexView] = {}
    for row in group.rows:
        with isolated([row.root], outcomes):
            request.window.check()
            require_current_index(prompt_builder, row)
            views[row.id] = request.views.of(row)
    if views:
        with request.window.finishing(FINISHING):
            _Drain(request, group, run, prompt_builder, views).drain(outcomes)


class _Drain:
    """One engine that works through the queue of the repositories that share it."""

    def __init__(
        self, request: DrainRequest, group: Group, run: Run, prompt_builder: PromptBuilder, views: dict[int, IndexView]
    ) -> None:
        self._request, self._group, self._run = request, group, run
        self._prompt_builder, self._views = prompt_builder, views
        self._store = request.store
        self._rows = [row for row in group.rows if row.id in views]
        self._ids = [row.id for row in self._rows]
        self._pacer = request.pacer_for(group.settings)

    def drain(self, outcomes: list[Failure]) -> None:
        """Drain, and append what failed.  The pages are brought up to date whatever happens."""
        pages = _PageSync(self._store, self._rows, self._request)
        make = pool_for if self._group.settings.ray is None else cluster_pool
        pool = make(self._group.settings, self._opener, self._request.watcher.phase, self._request.window.at_once)
        try:
            if self._group.settings.ray is None and (workload := self._workload()):
                manifest = self._prompt_builder.manifest
                require_engine(self._group.pack, manifest, self._group.settings, workload.longest_tokens)
            self._describe()
            self._run.outcome = self._runner(pool, pages).drain()
        finally:
            pool.close()
            self._request.watcher.phase("writing pages")
            pages.sync_rest(self._run.stats)
            outcomes += pages.failures

    def _describe(self) -> None:
        """Note how the engine is set, and what is forecast, which the report holds against what happens."""
        stats, window = self._run.stats, self._request.window
        stats.numerics, stats.kv, stats.max_batch = engine_of(self._group)
        if found := forecast(self._store, replace(self._group, rows=self._rows)):
            stats.forecast = found.as_dict(window.seconds_left)

    def _opener(self) -> Opener:
        """How to open an engine for what is in the queue now."""
        settings = self._group.settings
        options = engine_options(settings, self._workload())
        if settings.ray is not None:
            digest = self._prompt_builder.manifest.weights_digest
            return partial(open_on_node, settings, self._group.pack, digest, options, self._request.open_engine)
        if self._pacer.yielding.has_freed:
            options = within_free(options, open_card(settings.device))
        return partial(open_measured, settings, self._group.pack, options, self._request.open_engine)

    def _workload(self) -> Workload | None:
        longest = self._prompt_builder.job.longest_rollup_tokens(self._prompt_builder.manifest.context_tokens)
        return counts.workload(self._store, self._ids, longest)

    def _runner(self, pool: Pool, pages: _PageSync) -> Runner:
        watch = RunWatch(
            store=self._store,
            repository_ids=self._ids,
            run_id=self._run.id,
            window=self._request.window,
            watcher=self._request.watcher,
        )
        return Runner(
            store=self._store,
            pool=pool,
            processor=ItemProcessor(self._store, self._prompt_builder, self._views),
            window=self._request.window,
            run_id=self._run.id,
            repository_ids=self._ids,
            sync_pages=pages.sync_items,
            # The nodes of a cluster differ: the rates of none are those of all.
            on_step=watch if self._group.settings.ray else RateWatch(pool, self._group.settings, watch),
            pacer=self._pacer,
            on_pace=lambda pace: watch.pace(pace, self._run.stats),
            on_wait=watch.waits,
            energy_j=energy_of(self._group.settings.device),
            num_open=lambda: counts.open_items(self._store, self._ids),
            max_attempts=self._prompt_builder.job.attempts,
            stats=self._run.stats,
        )


@dataclass(frozen=True, slots=True)
class _PageSync:
    """Brings pages up to date in the course of a run.  A docs folder that fails costs its own pages only."""

    store: WorkStore
    rows: Sequence[RepositoryRow]
    request: DrainRequest
    failures: list[Failure] = field(default_factory=list)
    with_prose: list[Path] = field(default_factory=list)  # the first page of all that has words of the model

    def sync_items(self, items: Sequence[WorkItem]) -> SyncResult:
        """Write the pages of items that were just answered."""
        subjects: dict[int, list[Subject]] = {}
        for item in items:
            subjects.setdefault(item.repository_id, []).append(item.subject)
        synced = [row for row in self.rows if row.id in subjects]
        sync_result = self._each(
            synced,
            lambda row: sync_some(
                self.store, row, self.request.views.of(row), subjects[row.id], self.request.window.is_closed
            ),
        )
        for row in synced if not (self.with_prose or sync_result.stopped) else ():
            self._tell_first_page(row, subjects[row.id])
        return sync_result

    def _tell_first_page(self, row: RepositoryRow, subjects: Sequence[Subject]) -> None:
        paths, units = sorted({subject.path for subject in subjects}), sorted({subject.unit for subject in subjects})
        shown = [one.subject for one in counts.answers(self.store, row.id, paths, units) if one.shown_text]
        pages = self.request.views.of(row).paths
        for thing in things_of(subject for subject in shown if subject in subjects):
            if thing in pages and (page := docs_folder(row) / pages[thing]).is_file() and not self.with_prose:
                self.with_prose.append(page)
                self.request.watcher.first_page(page)

    def sync_rest(self, stats: RunStats) -> None:
        """Write every page that differs from the database, those of items that a killed run finished too."""
        self.failures.clear()
        sync_result = self._each(
            self.rows, lambda row: sync_pending(self.store, row, self.request.views, self.request.window.is_closed)
        )
        if not sync_result.stopped:  # every conflict and failure from before was tried again
            stats.conflicts, stats.pages_failed = [], []
        stats.add_pages(sync_result)

    def _each(self, rows: Sequence[RepositoryRow], sync: Callable[[RepositoryRow], SyncResult]) -> SyncResult:
        total = SyncResult()
        for row in rows:
            with isolated([row.root], self.failures):
                result = sync(row)
                self.request.recorder.add_pages(docs_folder(row), result.written)
                total.add(result, "" if len(self.rows) == 1 else f"{row.root}: ")
        return total


def require_current_index(prompt_builder: PromptBuilder, row: RepositoryRow) -> None:
    """Prompts and keys were made at `index`; answers computed otherwise must not be stored under them."""
    if not row.plan_key:
        raise RepositoryError(f"{row.root}: {NOT_WHOLE}; run `rotary-batch index {row.root}` again")
    if row.plan_key != index_key(prompt_builder, row):
        raise RepositoryError(
            f"{row.root}: indexed with another job, prompts, numerics or --kv than this drain has, or before the model "
            f"was calibrated; give the same flags, or run `rotary-batch index {row.root}` again"
        )
