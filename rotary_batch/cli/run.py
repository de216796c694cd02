"""`run`: `index` and `drain` in one command."""

from __future__ import annotations

from pathlib import Path

from rotary_batch import commands, console
from rotary_batch.cli import drain
from rotary_batch.cli.deadline import announce_deadline
from rotary_batch.cli.dry_run import dry_run as print_dry_run
from rotary_batch.cli.index import index_all, indexed_of, print_read, tell_pages
from rotary_batch.cli.options import (
    Config,
    Db,
    Device,
    DeviceMemory,
    DryRun,
    Experts,
    For,
    HostMemory,
    Hours,
    InsecureRay,
    JobName,
    Json,
    Kv,
    Limit,
    LinkTemplate,
    Log,
    MaxBatch,
    Model,
    Numerics,
    OnFinish,
    Out,
    Prometheus,
    Quiet,
    Ray,
    RayResource,
    RayWorkers,
    Repos,
    Until,
    Verbose,
    Worktree,
)
from rotary_batch.cli.progress import tell_begun
from rotary_batch.cli.settings import start_log, user_settings
from rotary_batch.commands.database import database_path, writing
from rotary_batch.commands.isolation import failures
from rotary_batch.window import open_window, stop_on_signals


def run(
    repos: Repos = None,
    until: Until = None,
    for_: For = None,
    hours: Hours = None,
    limit: Limit = None,
    dry_run: DryRun = False,
    model: Model = None,
    worktree: Worktree = None,
    out: Out = None,
    job: JobName = None,
    link_template: LinkTemplate = None,
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
    experts: Experts = None,
    db: Db = None,
    config: Config = None,
    log: Log = None,
    prometheus: Prometheus = None,
    on_finish: OnFinish = None,
    json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Index, drain and render: the nightly command.

    Kill it at any moment, and run it again to continue.

    Examples:
        rotary-batch run ~/src/app --until 07:00
        rotary-batch run --device cuda --device-memory 22GB
        rotary-batch run ~/src/app ~/src/lib --for 8h
        rotary-batch run ~/src/app --dry-run
    """
    console.be_quiet(wanted=quiet)
    user = user_settings(
        config,
        repos,
        model=model,
        worktree=worktree,
        out=out,
        job=job,
        link_template=link_template,
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
        experts=experts,
        db=db,
        prometheus=prometheus,
        on_finish=on_finish,
    )
    settings = user.for_command().settings
    tell_begun()
    window = open_window(until=until, duration=for_, hours=hours, max_items=limit)
    announce_deadline(window, until=until, duration=for_)
    if dry_run:
        print_dry_run(repos, user, window.seconds_left, answers=True, json=json)
    start_log(log)
    outlets = drain.outlets_of(user)
    with (
        stop_on_signals(window),
        outlets.telling(window),
        writing(settings, should_stop=window.is_closed) as store,
        commands.recording.recording(store, "run", window, outlets) as recorder,
    ):
        views = commands.index.index_views(store)
        named = repos or [commands.repositories.repository_root(None)]
        checked = recorder.failures
        ready = commands.preflight.ready_to_run(store, named, user.for_repository, database_path(settings), checked)
        index_outcomes = index_all(store, ready, user, window, views, tell_pages, quiet=quiet) if ready else []
        recorder.add_failures(failures(index_outcomes))
        indexed = indexed_of(index_outcomes)
        for outcome in indexed:
            recorder.add_pages(outcome.docs, outcome.sync_result.written)
            if not quiet:
                print_read(outcome, to_stderr=True)
        roots = [Path(outcome.indexed.repository.root) for outcome in indexed]
        rows = commands.repositories.select_repositories(store, roots) if roots else []
        if rows:
            drain.drain_all(store, user, rows, window, recorder, views=views, quiet=quiet)
    notes = {note for outcome in indexed for note in outcome.notes}
    drain.finish(recorder, json=json, verbose=verbose, quiet=quiet, notes_printed=notes)
