"""The record of the runs of a command: whatever ends one, the reason is stored with it and a report is written."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from rotary_batch.commands import reports
from rotary_batch.commands.finishing import Outlets
from rotary_batch.commands.isolation import Failure
from rotary_batch.commands.run_report import MAX_LISTED, RunReport, of_run, without_database
from rotary_batch.commands.sampling import samples_of
from rotary_batch.crashes import crash_file, described, understood
from rotary_batch.errors import RotaryError, StorageError, storage_error
from rotary_batch.log import event
from rotary_batch.run_stats import RunStats
from rotary_batch.window import Window
from rotary_batch.work import counts, runs
from rotary_batch.work.ballast import free_ballast
from rotary_batch.work.connection import explained
from rotary_batch.work.index import repositories
from rotary_batch.work.rows import RepositoryRow, RunRow
from rotary_batch.work.runs import ENDED, FAILED, INTERRUPTED, KILLED, killed
from rotary_batch.work.samples import Sample
from rotary_batch.work.store import WorkStore

INTERNAL = 70  # the exit code of a bug


@dataclass(slots=True)
class Run:
    """A run that goes on."""

    id: int
    row: RunRow
    has_begun: bool  # its repositories are known
    started_at: float = field(default_factory=time.monotonic)
    stats: RunStats = field(default_factory=RunStats)
    outcome: str | None = None  # set when it came to its end
    notes: Sequence[str] = ()


class Recorder:
    """The runs of one command, one for each engine.

    The first begins with the command, so that what fails before an engine opens is recorded too.
    """

    def __init__(self, store: WorkStore, command: str, window: Window) -> None:
        self.reports: list[RunReport] = []
        self.failures: list[Failure] = []  # of the command so far; every report has those before its end
        self._store, self._command, self._window = store, command, window
        self._pages: dict[str, None] = {}  # that changed so far
        self._run: Run | None = self._start(None, [])

    def _start(self, model_name: str | None, ids: Sequence[int]) -> Run:
        run_id = runs.start_run(
            self._store, command=self._command, model_name=model_name, pid=os.getpid(), repository_ids=ids
        )
        return Run(run_id, counts.run_row(self._store, run_id), has_begun=bool(ids))

    def begin(self, rows: Sequence[RepositoryRow], notes: Sequence[str], device: str) -> Run:
        """Begin the run of an engine for these repositories."""
        ids, model_name = [row.id for row in rows], rows[0].model_name
        if self._run is None or self._run.has_begun:
            self._run = self._start(model_name, ids)
        else:
            runs.describe_run(self._store, self._run.id, model_name=model_name, repository_ids=ids)
        run = self._run
        run.has_begun, run.notes, run.stats = True, notes, RunStats(device=device)
        event("run started", run=run.id, command=self._command, model=model_name)
        return run

    def add_pages(self, docs: Path, pages: Iterable[str]) -> None:
        """Note files of a docs folder that changed; only pages count."""
        self._pages |= dict.fromkeys(str(docs / page) for page in pages if page.endswith(".md"))

    def add_failures(self, failed: Iterable[Failure]) -> None:
        """Note what failed, each once."""
        self.failures += [one for one in failed if one not in self.failures]

    def end(self, failed: Sequence[Failure]) -> RunReport:
        """End the run that goes on; without an outcome of its own, it failed or its time was over."""
        assert self._run is not None, "it has begun"
        self.add_failures(failed)
        if self._run.outcome:
            return self._close(self._run, self._run.outcome)
        if why := self._window.why_closed():
            return self._close(self._run, why)
        return self._close(self._run, FAILED, str(failed[0]) if failed else None)

    def end_command(self) -> None:
        """End a command that opened no engine."""
        if self._run is None:
            return
        if self.failures:
            roots = {failure.repository for failure in self.failures}
            ids = [row.id for row in repositories(self._store) if row.root in roots]
            runs.describe_run(self._store, self._run.id, model_name=None, repository_ids=ids)
        else:
            self._run.outcome = ENDED
        self.end(self.failures)

    def end_by(self, error: BaseException) -> None:
        """End the run that goes on because of an error, which nothing that fails here may hide."""
        if (run := self._run) is None:
            return
        crash, known = None, understood(error)
        if isinstance(error, Exception):
            if known is None:
                with suppress(OSError, RotaryError):
                    crash = crash_file(error)
            if isinstance(known, StorageError):  # pages on a full disk that the database is on too
                free_ballast(self._store.db.path)
            reason = str(known) if known else described(error)
            self.failures.append(Failure(repository="", error=reason, exit_code=known.exit_code if known else INTERNAL))
            outcome = self._window.why_closed() or FAILED
        else:
            reason, outcome = None, INTERRUPTED
        try:
            self._close(run, outcome, reason, crash)
        except Exception:  # noqa: BLE001 - the database may be what failed
            row = replace(run.row, outcome=outcome, reason=reason, ended_at=_now(), stats=run.stats.as_dict())
            with suppress(Exception):
                self._save(run, without_database(row, self._store.db.path), crash)

    def _close(self, run: Run, outcome: str, reason: str | None = None, crash: Path | None = None) -> RunReport:
        stats = run.stats.as_dict()
        runs.end_run(self._store, run.id, outcome, stats, reason=reason)
        logged = {name: value for name, value in stats.items() if name not in {"pace", "forecast"}}
        event("run ended", run=run.id, outcome=outcome, **logged)
        report = self._save(run, of_run(self._store, counts.run_row(self._store, run.id)), crash)
        runs.save_report(self._store, run.id, report.as_json())
        return report

    def _save(self, run: Run, report: RunReport, crash: Path | None) -> RunReport:
        """Complete a report by what only this command knows, and write its files."""
        self._run = None
        report = replace(
            report,
            seconds=round(time.monotonic() - run.started_at, 3),
            crash_file=None if crash is None else str(crash),
            pages_changed=len(self._pages),
            pages=tuple(sorted(self._pages)[:MAX_LISTED]),
            failures=tuple(self.failures),
            repositories=report.repositories or tuple(one.repository for one in self.failures if one.repository),
            notes=tuple(run.notes),
            file=str(reports.new_path(self._store.db.path, report.started_at)),
        )
        self.reports.append(report)
        try:
            reports.write(report, self._samples(report))
        except OSError as error:
            refused = storage_error(error)
            self.add_failures([Failure(repository="", error=str(refused), exit_code=refused.exit_code)])
        return report

    def _samples(self, report: RunReport) -> list[Sample]:
        try:
            return samples_of(self._store, report)
        except Exception:  # noqa: BLE001 - the database may be what failed
            return []


@contextmanager
def recording(store: WorkStore, command: str, window: Window, outlets: Outlets | None = None) -> Iterator[Recorder]:
    """Record the runs of a command, and tell of their end.  However the block ends, no run stays without an end."""
    recorder, outlets = Recorder(store, command, window), outlets or Outlets()
    try:
        with explained(store.db.path):
            yield recorder
    except BaseException as error:
        with window.finishing(""):
            recorder.end_by(error)
            outlets.tell(store, recorder.reports)
        raise
    with window.finishing(""):
        recorder.end_command()
        outlets.tell(store, recorder.reports)


def record_killed(store: WorkStore) -> None:
    """End the runs that were killed, and write their reports.  Only under the driver's lock."""
    for run_id in runs.unended_runs(store):
        run = killed(counts.run_row(store, run_id))
        runs.end_run(store, run_id, KILLED, run.stats, reason=run.reason, ended_at=run.ended_at)
        report = of_run(store, run)
        report = replace(report, file=str(reports.new_path(store.db.path, report.started_at)))
        with suppress(OSError):  # what this command does is more important
            reports.write(report, samples_of(store, report))
        runs.save_report(store, run_id, report.as_json())


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
