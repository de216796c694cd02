"""`report`: what the last run did."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rotary_batch.commands import run_report
from rotary_batch.commands.database import database_path
from rotary_batch.commands.repositories import select_repositories
from rotary_batch.commands.run_report import RunReport
from rotary_batch.config import Settings
from rotary_batch.errors import InputError
from rotary_batch.work import counts
from rotary_batch.work.lock import holder
from rotary_batch.work.store import WorkStore


def report(store: WorkStore, settings: Settings, roots: Sequence[Path]) -> RunReport:
    """The last run, or the last one of some repositories.  Raises InputError when there was none."""
    run = counts.last_run(store, [row.id for row in select_repositories(store, roots)] if roots else None)
    if run is None:
        whose = "".join(f" of {root}" for root in roots[:1])
        raise InputError(f"no run{whose} yet; `rotary-batch drain` makes one")
    return run_report.stored(store, run, is_driver_alive=holder(database_path(settings)) is not None)
