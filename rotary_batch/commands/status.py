"""`status`: where everything stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rotary_batch.commands.database import database_path
from rotary_batch.commands.keeping import indexed_pack
from rotary_batch.commands.repositories import select_repositories
from rotary_batch.config import Settings
from rotary_batch.errors import ModelError
from rotary_batch.work import counts, runs
from rotary_batch.work.control import paused
from rotary_batch.work.lock import holder
from rotary_batch.work.parked import parked as parked_items
from rotary_batch.work.parked import parked_by_class
from rotary_batch.work.rows import RepositoryRow, RunRow
from rotary_batch.work.store import WorkStore


def status(store: WorkStore, settings: Settings, roots: Sequence[Path]) -> dict[str, Any]:
    """Where every repository stands, and whether a driver runs now."""
    run, driver = counts.last_run(store), holder(database_path(settings))
    return {
        "database": str(database_path(settings)),
        "driver_pid": driver,
        "paused": (pause := paused(database_path(settings))) and pause.as_dict(),
        "running": None if run is None or driver is None or run.outcome else _running(run),
        "repositories": [_standing(store, row, driver) for row in select_repositories(store, roots)],
        "last_run": run and {"id": run.id, "started_at": run.started_at, **_end(run, driver)},
    }


def parked(store: WorkStore, roots: Sequence[Path]) -> dict[str, Any]:
    """The parked items of the repositories, and how many each class has."""
    ids = [row.id for row in select_repositories(store, roots)]
    return {"by_class": parked_by_class(store, ids), "parked": [one._asdict() for one in parked_items(store, ids)]}


def _running(run: RunRow) -> dict[str, Any]:
    """The run that is under way.

    `progress` is null until its first step.  `activity` is null while it works as fast as it can.  `nodes` are those
    of a cluster.
    """
    return {
        "command": run.command,
        "model": run.model_name,
        "started_at": run.started_at,
        "progress": run.stats.get("progress"),
        "activity": run.stats.get("activity"),
        "drain_s": run.stats.get("drain_s", 0.0),
        "nodes": run.stats.get("nodes", {}),
    }


def _standing(store: WorkStore, row: RepositoryRow, driver: int | None) -> dict[str, Any]:
    num_done = counts.num_ended(store, [row.id])
    states = counts.states(store, row.id)
    return {
        "root": row.root,
        "model": row.model_name,
        "model_problem": _model_problem(row),
        "items": states if driver is not None else {unit: _without_leases(states[unit]) for unit in states},
        "verdicts": counts.verdicts(store, row.id),
        "done": num_done - (num_parked := counts.parked_items(store, [row.id])),
        "parked": num_parked,
        "all": sum(sum(by_state.values()) for by_state in states.values()),
    }


def _model_problem(row: RepositoryRow) -> str | None:
    """Why the model of a repository cannot be used, and what to do; None when it is there."""
    try:
        indexed_pack(row)
    except ModelError as error:
        return str(error)
    return None


def _without_leases(states: dict[str, int]) -> dict[str, int]:
    """A killed run leaves leases; the next one takes them back, so these items are as good as ready."""
    if not states.get("leased"):
        return states
    free = {state: count for state, count in states.items() if state != "leased"}
    return dict(sorted((free | {"ready": free.get("ready", 0) + states["leased"]}).items()))


def _end(run: RunRow, driver: int | None) -> dict[str, str | None]:
    """A run without an end is still running, or was killed."""
    if run.outcome is None:
        run = replace(run, outcome=runs.RUNNING) if driver is not None else runs.killed(run)
    return {"outcome": run.outcome, "reason": run.reason}
