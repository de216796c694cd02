"""`drain`, and what it shares with `run`: the live line and the end."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from typing import TYPE_CHECKING, NoReturn

from rotary_batch import commands, console
from rotary_batch.cli.answers import exit_with, print_answer, print_failures
from rotary_batch.cli.deadline import announce_deadline
from rotary_batch.cli.options import (
    Config,
    Db,
    Device,
    DeviceMemory,
    For,
    HostMemory,
    Hours,
    IndexedRepos,
    InsecureRay,
    JobName,
    Json,
    Kv,
    Limit,
    Log,
    MaxBatch,
    Numerics,
    OnFinish,
    Prometheus,
    Quiet,
    Ray,
    RayResource,
    RayWorkers,
    Until,
    Verbose,
)
from rotary_batch.cli.progress import shown_progress, tell_begun
from rotary_batch.cli.report import print_ending
from rotary_batch.cli.settings import start_log, user_settings
from rotary_batch.commands.configuration import UserSettings
from rotary_batch.commands.database import database_path, writing
from rotary_batch.commands.watching import Watcher
from rotary_batch.errors import RepositoryError
from rotary_batch.window import Window, open_window, stop_on_signals
from rotary_batch.work.rows import RepositoryRow
from rotary_batch.work.store import WorkStore

if TYPE_CHECKING:
    from rotary_batch.commands.finishing import Outlets
    from rotary_batch.commands.recording import Recorder
    from rotary_batch.sync import IndexViews


def drain(
    repos: IndexedRepos = None,
    until: Until = None,
    for_: For = None,
    hours: Hours = None,
    limit: Limit = None,
    device: Device = None,
    device_memory: DeviceMemory = None,
    host_memory: HostMemory = None,
    max_batch: MaxBatch = None,
    ray: Ray = None,
    ray_workers: RayWorkers = None,
    ray_resource: RayResource = None,
    insecure_ray: InsecureRay = None,
    numerics: Numerics = None,
    kv: Kv = None,
    job: JobName = None,
    db: Db = None,
    config: Config = None,
    log: Log = None,
    prometheus: Prometheus = None,
    on_finish: OnFinish = None,
    json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Work through the queue until it is empty or time is up.

    Ctrl-C (SIGINT) and SIGTERM stop it too. The next drain continues where this one stopped.

    Examples:
        rotary-batch drain --until 07:00
        rotary-batch drain ~/src/app --for 30m --device cuda
        rotary-batch drain --window 23:00-07:00
        rotary-batch drain --limit 20 --device-memory 4GB
    """
    console.be_quiet(wanted=quiet)
    user = user_settings(
        config,
        repos,
        device=device,
        device_memory=device_memory,
        host_memory=host_memory,
        max_batch=max_batch,
        ray=ray,
        ray_workers=ray_workers,
        ray_resource=ray_resource,
        insecure_ray=insecure_ray,
        numerics=numerics,
        kv=kv,
        job=job,
        db=db,
        prometheus=prometheus,
        on_finish=on_finish,
    )
    settings = user.for_command().settings
    start_log(log)
    tell_begun()
    window = open_window(until=until, duration=for_, hours=hours, max_items=limit)
    announce_deadline(window, until=until, duration=for_)
    outlets = outlets_of(user)
    with (
        stop_on_signals(window),
        outlets.telling(window),
        writing(settings, create=False, should_stop=window.is_closed) as store,
        commands.recording.recording(store, "drain", window, outlets) as recorder,
    ):
        rows = commands.repositories.select_each(store, repos or [], recorder.failures)
        gone = commands.repositories.without_folder(rows)
        if gone and len(gone) == len(rows):
            raise RepositoryError(f"{gone[0].root}: no such folder any more; its items stay in the queue")
        for row in gone:
            console.note(f"{row.root} is gone; its items stay in the queue")
        if rows:
            drain_all(store, user, rows, window, recorder, views=commands.index.index_views(store), quiet=quiet)
    finish(recorder, json=json, verbose=verbose, quiet=quiet)


def outlets_of(user: UserSettings) -> Outlets:
    """Where the end of the command is told: only what the user sets counts, not what a repository does."""
    return commands.finishing.Outlets(
        prometheus=user.values.get("prometheus"),
        on_finish=user.values.get("on_finish"),
        say=lambda text: console.err(f"warning: {text}"),
    )


def drain_all(
    store: WorkStore,
    user: UserSettings,
    rows: Sequence[RepositoryRow],
    window: Window,
    recorder: Recorder,
    *,
    views: IndexViews,
    quiet: bool = False,
) -> None:
    """Work through the queue, and show how far it is."""
    settings = user.for_command().settings
    if settings.ray is not None and settings.insecure_ray:
        console.err("warning: --insecure-ray: anybody who reaches this Ray cluster can read the code and run programs")
    with shown_progress("starting", quiet=quiet) as display:
        request = commands.drain.DrainRequest(
            store=store,
            settings_of=user.for_indexed,
            window=window,
            open_engine=commands.engines.open_engine,
            recorder=recorder,
            views=views,
            pacer_for=partial(commands.pace.pacer_for, database_path(settings)),
            watcher=Watcher(phase=display.phase, reading=display.reading, first_page=display.first_page),
        )
        for _ in commands.drain.drain(request, rows):
            pass


def finish(
    recorder: Recorder, *, json: bool, verbose: bool, quiet: bool, notes_printed: Collection[str] = ()
) -> NoReturn:
    """Print how the runs ended, without the notes that were printed before, and exit."""
    print_failures(recorder.failures)
    for note in [note for report in recorder.reports for note in report.notes if note not in notes_printed]:
        console.note(note)

    def print_endings() -> None:
        for report in recorder.reports if not quiet else ():
            print_ending(report, verbose=verbose)

    failed = [failure.as_dict() for failure in recorder.failures]
    print_answer([*failed, *(report.as_dict() for report in recorder.reports)], json, print_endings)
    codes = [*(failure.exit_code for failure in recorder.failures), *(report.exit_code for report in recorder.reports)]
    exit_with([], [code for code in codes if code is not None])
