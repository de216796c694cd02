"""The record of runs: when each began, what it did and how it ended."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from rotary_batch.work.rows import RunRow
from rotary_batch.work.samples import forget_old
from rotary_batch.work.store import WorkStore

# Outcomes, besides `deadline` and `limit`.
ENDED, INTERRUPTED, FAILED, KILLED, RUNNING = "done", "interrupted", "failed", "killed", "still running"
WHY_KILLED = (
    "It ended without a word: kill -9, a power cut, a second Ctrl-C, or no memory left "
    "(`journalctl -k` names what the system ended for its memory)"
)


def start_run(
    store: WorkStore, *, command: str, model_name: str | None, pid: int, repository_ids: Sequence[int] = ()
) -> int:
    """Record that a run began, and for which repositories; returns its id."""
    with store.transaction():
        row = store.db.execute(
            "insert into run (started_at, pid, command, model_name) values (?, ?, ?, ?) returning id",
            [_now(), pid, command, model_name],
        ).fetchone()
        _link(store, row["id"], repository_ids)
        forget_old(store, row["id"])
        return int(row["id"])


def describe_run(store: WorkStore, run_id: int, *, model_name: str | None, repository_ids: Sequence[int]) -> None:
    """Record for which repositories a run is, when that is known only after it began."""
    with store.transaction():
        store.db.execute("update run set model_name = ? where id = ?", [model_name, run_id])
        _link(store, run_id, repository_ids)


def _link(store: WorkStore, run_id: int, repository_ids: Sequence[int]) -> None:
    store.db.executemany(
        "insert or ignore into run_repository (repository_id, run_id) values (?, ?)",
        [(repository_id, run_id) for repository_id in repository_ids],
    )


def save_stats(store: WorkStore, run_id: int, stats: dict[str, Any]) -> None:
    """Record what a run did so far, and with it how far it is."""
    with store.transaction():
        store.db.execute("update run set tally = ?, saved_at = ? where id = ?", [json.dumps(stats), _now(), run_id])


def end_run(
    store: WorkStore,
    run_id: int,
    outcome: str,
    stats: dict[str, Any],
    *,
    reason: str | None = None,
    ended_at: str | None = None,
) -> None:
    """Record how a run ended, why if it did not end by itself, and when if not now."""
    with store.transaction():
        store.db.execute(
            "update run set ended_at = ?, outcome = ?, reason = ?, tally = ? where id = ?",
            [ended_at or _now(), outcome, reason and _storable(reason), json.dumps(stats), run_id],
        )


def last_success(store: WorkStore) -> str | None:
    """When a run last ended without an error, in ISO 8601; None when none did."""
    query = "select max(ended_at) as at from run where outcome in ('done', 'deadline', 'limit', 'interrupted')"
    at = store.db.execute(query).fetchone()["at"]
    return None if at is None else str(at)


def unended_runs(store: WorkStore) -> list[int]:
    """The ids of runs that go on or were killed: under the driver's lock, those that were killed."""
    return [row["id"] for row in store.db.execute("select id from run where ended_at is null order by id")]


def killed(run: RunRow) -> RunRow:
    """A run without an end, of which no process lives: it ended when it was last heard of, or later."""
    return replace(run, outcome=KILLED, reason=WHY_KILLED, ended_at=run.saved_at or run.started_at)


def save_report(store: WorkStore, run_id: int, report: str) -> None:
    """Store the report of a run that has ended."""
    with store.transaction():
        store.db.execute("update run set report = ? where id = ?", [report, run_id])


def _storable(text: str) -> str:
    """Text for the database, with bytes of file names that are not UTF-8 escaped."""
    return text.encode(errors="backslashreplace").decode()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
