"""The record of runs: when each began, what it did and how it ended."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from rotary_batch.work.store import WorkStore


def start_run(
    store: WorkStore, *, command: str, model_name: str | None, pid: int, repository_ids: Sequence[int] = ()
) -> int:
    """Record that a run began, and for which repositories; returns its id."""
    with store.transaction():
        row = store.db.execute(
            "insert into run (started_at, pid, command, model_name) values (?, ?, ?, ?) returning id",
            [_now(), pid, command, model_name],
        ).fetchone()
        store.db.executemany(
            "insert into run_repository (repository_id, run_id) values (?, ?)",
            [(repository_id, row["id"]) for repository_id in repository_ids],
        )
        return int(row["id"])


def save_stats(store: WorkStore, run_id: int, stats: dict[str, Any]) -> None:
    """Record what a run did so far, and with it how far it is."""
    with store.transaction():
        store.db.execute("update run set tally = ? where id = ?", [json.dumps(stats), run_id])


def end_run(store: WorkStore, run_id: int, outcome: str, stats: dict[str, Any]) -> None:
    """Record how a run ended."""
    with store.transaction():
        store.db.execute(
            "update run set ended_at = ?, outcome = ?, tally = ? where id = ?",
            [_now(), outcome, json.dumps(stats), run_id],
        )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
