"""`status` and `report`: where everything stands, and what the last run did."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rotary_batch.commands.database import database_path
from rotary_batch.commands.repositories import select_repositories
from rotary_batch.config import Settings
from rotary_batch.errors import InputError
from rotary_batch.work import counts
from rotary_batch.work.lock import holder
from rotary_batch.work.rows import RunRow
from rotary_batch.work.store import WorkStore


def status(store: WorkStore, settings: Settings, roots: Sequence[Path]) -> dict[str, Any]:
    """Where every repository stands, and whether a driver runs now."""
    run, driver = counts.last_run(store), holder(database_path(settings))
    return {
        "database": str(database_path(settings)),
        "driver_pid": driver,
        "repositories": [
            {
                "root": row.root,
                "model": row.model_name,
                "items": counts.states(store, row.id),
                "verdicts": counts.verdicts(store, row.id),
            }
            for row in select_repositories(store, roots)
        ],
        "last_run": run and {"id": run.id, "started_at": run.started_at, "outcome": _outcome(run, driver)},
    }


def _outcome(run: RunRow, driver: int | None) -> str:
    """A run without an outcome is still running, or was killed."""
    return run.outcome or ("killed" if driver is None else "still running")


def report(store: WorkStore, settings: Settings, roots: Sequence[Path]) -> dict[str, Any]:
    """The last run, or the last one of some repositories.  Raises InputError when there was none."""
    run = counts.last_run(store, [row.id for row in select_repositories(store, roots)] if roots else None)
    if run is None:
        whose = "".join(f" of {root}" for root in roots[:1])
        raise InputError(f"no run{whose} yet; `rotary-batch drain` makes one")
    return {
        "run": run.id,
        "command": run.command,
        "started_at": run.started_at,
        "ended_at": run.ended_at,
        "outcome": _outcome(run, holder(database_path(settings))),
        "model": run.model_name,
        **run.stats,
    }
