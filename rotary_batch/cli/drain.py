"""`drain`, and what it shares with `run`: the live line, the reports and the summary at the end."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from rotary_batch import commands, console
from rotary_batch.cli.answers import exit_with, print_answer
from rotary_batch.cli.deadline import announce_deadline
from rotary_batch.cli.docs import print_page_problems
from rotary_batch.cli.options import (
    Config,
    Db,
    Device,
    DeviceMemory,
    For,
    HostMemory,
    IndexedRepos,
    JobName,
    Json,
    Kv,
    Limit,
    Log,
    MaxBatch,
    Numerics,
    Until,
)
from rotary_batch.cli.progress import shown_progress
from rotary_batch.cli.settings import user_settings
from rotary_batch.commands.configuration import UserSettings
from rotary_batch.commands.database import database_path, writing
from rotary_batch.commands.isolation import Failure, failures
from rotary_batch.commands.watching import Watcher
from rotary_batch.errors import RepositoryError
from rotary_batch.log import log_to
from rotary_batch.window import Window, open_window, stop_on_signals
from rotary_batch.work.rows import RepositoryRow
from rotary_batch.work.store import WorkStore

if TYPE_CHECKING:
    from rotary_batch.commands.drain import DrainOutcome
    from rotary_batch.commands.reports import Reports
    from rotary_batch.sync import IndexViews

# Why answers ended, in words.
ENDED = {
    "stop": "ended by themselves",
    "length": "cut off at the token limit",
    "sentences": "cut off at the sentence limit",
    "loop": "cut off because they repeated themselves",
}


def drain(
    repos: IndexedRepos = None,
    until: Until = None,
    for_: For = None,
    limit: Limit = None,
    device: Device = None,
    device_memory: DeviceMemory = None,
    host_memory: HostMemory = None,
    max_batch: MaxBatch = None,
    numerics: Numerics = None,
    kv: Kv = None,
    job: JobName = None,
    db: Db = None,
    config: Config = None,
    log: Log = None,
    json: Json = False,
) -> None:
    """Work through the queue until it is empty or time is up.

    Ctrl-C (SIGINT) and SIGTERM stop it too. The next drain continues where this one stopped.

    Examples:
        rotary-batch drain --until 07:00
        rotary-batch drain ~/src/app --for 30m --device cuda
        rotary-batch drain --limit 20 --device-memory 4GB
    """
    user = user_settings(
        config,
        repos,
        device=device,
        device_memory=device_memory,
        host_memory=host_memory,
        max_batch=max_batch,
        numerics=numerics,
        kv=kv,
        job=job,
        db=db,
    )
    settings = user.for_command().settings
    if log is not None:
        log_to(log)
    window = open_window(until=until, duration=for_, max_items=limit)
    announce_deadline(window, until=until, duration=for_)
    outcomes: list[DrainOutcome | Failure] = []
    with stop_on_signals(window), writing(settings, create=False, should_stop=window.is_closed) as store:
        rows = commands.repositories.select_each(store, repos or [], outcomes)
        gone = commands.repositories.without_folder(rows)
        if gone and len(gone) == len(rows):
            raise RepositoryError(f"{gone[0].root}: no such directory any more; its items stay in the queue")
        for row in gone:
            console.err(f"note: {row.root} is gone; its items stay in the queue")
        reports = drain_all(
            store, user, rows, window, outcomes, command="drain", views=commands.index.index_views(store)
        )
    finish(outcomes, reports, json)


def drain_all(
    store: WorkStore,
    user: UserSettings,
    rows: Sequence[RepositoryRow],
    window: Window,
    outcomes: list[DrainOutcome | Failure],
    *,
    command: str,
    views: IndexViews,
    quiet: bool = False,
) -> Reports:
    """Append each outcome and report it at once, so that an error that ends the command loses no report."""
    reports = commands.reports.Reports(database_path(user.for_command().settings))
    with shown_progress("starting", quiet=quiet) as display:
        request = commands.drain.DrainRequest(
            store=store,
            settings_of=user.for_indexed,
            window=window,
            open_engine=commands.engines.open_engine,
            command=command,
            views=views,
            watcher=Watcher(phase=display.phase, reading=display.reading, first_page=display.first_page),
        )
        for outcome in commands.drain.drain(request, rows):
            outcomes.append(outcome)
            with window.finishing(""), suppress(OSError):  # `finish` writes the reports again and raises
                reports.save(outcomes)
    return reports


def finish(
    outcomes: list[DrainOutcome | Failure], reports: Reports, json: bool, notes_printed: Collection[str] = ()
) -> None:
    """Write the reports, print the summary and exit."""
    reports.save(outcomes)
    drained = [outcome for outcome in outcomes if isinstance(outcome, commands.drain.DrainOutcome)]
    print_answer(
        [outcome.as_dict() for outcome in outcomes], json, lambda: print_drain(drained, reports.paths, notes_printed)
    )
    exit_with(failures(outcomes), (outcome.exit_code for outcome in drained))


def print_drain(
    outcomes: Sequence[DrainOutcome], report_paths: Sequence[Path], notes_printed: Collection[str] = ()
) -> None:
    """What a run did, without the notes that were printed before."""
    for outcome, report_path in zip(outcomes, report_paths, strict=True):
        _drain_table(outcome).print()
        if outcome.num_parked:
            console.out("parked: `rotary-batch inspect items` says why, `rotary-batch retry` queues them again")
        print_page_problems(outcome.stats.conflicts, outcome.stats.pages_failed)
        for note in [note for note in outcome.notes if note not in notes_printed]:
            console.out(f"note: {note}")
        for folder in outcome.docs:
            console.out(f"docs: {folder / 'index.md'}")
        console.out(f"report: {report_path}")


def _drain_table(outcome: DrainOutcome) -> console.Table:
    stats = outcome.stats
    table = console.Table(f"Run ended: {outcome.outcome}", "", "")
    table.row("items answered by the model", stats.done)
    table.row("reused from earlier answers", stats.reused)
    for verdict, count in sorted(stats.verdicts.items()):
        table.row(f"  {verdict}", count)
    for reason, count in sorted(stats.ended.items()):
        table.row(f"  {ENDED[reason]}", count)
    table.row("parked", outcome.num_parked)
    table.row("still open", outcome.num_open)
    table.row("revolutions", stats.revolutions)
    table.row("prompt tokens read", stats.prefill_tokens)
    table.row("  of these, read again after an interruption", stats.reprefill_tokens)
    table.row("  seconds of that", f"{stats.reprefill_s:.1f}")
    table.row("tokens written", stats.decode_tokens)
    if stats.roofline_s:
        table.row("share of the machine's bound", f"{stats.roofline_s / max(stats.step_s, 1e-9):.0%}")
    if stats.rates_raised > 1:
        table.row("  its rates were too low and have been raised by", f"{stats.rates_raised - 1:.0%}")
    table.row("seconds", f"{outcome.seconds:.1f}")
    table.row("pages written", stats.pages_written)
    return table
