"""What every step of a run asks is answered by an index, however many items there are."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from test_counts import check_counts
from test_store import ROW, chunk, claim_all, file_item, finished, open_store

from benchmarks.scale_queue import LIMITS, drain, fill, measure
from rotary_batch.testing import plan_items
from rotary_batch.work import counts
from rotary_batch.work.index import save_repository
from rotary_batch.work.runs import start_run
from rotary_batch.work.store import WorkStore


@pytest.fixture
def store(tmp_path):
    store = open_store(tmp_path / "work.db")
    for number in range(3):
        repository_id = save_repository(store, replace(ROW, root=f"/{number}"))
        plan_items(store, repository_id, "summarize", [file_item(), *(chunk(n) for n in range(40))], {"a.py"})
    yield store
    store.db.close()


def plan_of(store: WorkStore, statement: str) -> list[str]:
    return [row["detail"] for row in store.db.execute(f"explain query plan {statement}")]


def asked_in_a_step(store: WorkStore) -> set[str]:
    """Every statement of a claim, a commit, an unblocking and the counts that follow."""
    run, ids, found = start_run(store, command="drain", model_name="m", pid=1), [1, 2, 3], set()
    store.db.set_trace_callback(found.add)
    one, *others = claim_all(store, run, 16)
    store.commit_step([], [finished(claim) for claim in others], [])
    store.release([one.lease])
    store.unblocked(ids, limit=64)
    store.next_retry_at(ids)
    counts.open_items(store, ids)
    counts.parked_items(store, ids)
    store.db.set_trace_callback(None)
    return {text for text in found if text.lstrip().lower().startswith(("select", "update", "insert", "delete"))}


def in_triggers(store: WorkStore) -> set[str]:
    """The statements of all triggers on items, with a number for what they have of the row."""
    rows = store.db.execute("select sql from sqlite_master where type = 'trigger' and tbl_name = 'item'")
    bodies = [row["sql"].partition("begin")[2].rpartition("end")[0] for row in rows]
    statements = {text.strip() for body in bodies for text in body.split(";") if text.strip()}
    return {re.sub(r"\b(new|old)\.\w+", "1", text) for text in statements}


def test_no_step_looks_through_the_items(store):
    asked = asked_in_a_step(store) | in_triggers(store)
    assert len(asked) > 15
    plans = {text: plan_of(store, text) for text in asked}
    slow = {
        text: steps
        for text, steps in plans.items()
        if any(re.match(r"SCAN (item|item_count|child)\b", step) or "TEMP B-TREE" in step for step in steps)
    }
    assert slow == {}
    used = " ".join(step for steps in plans.values() for step in steps)
    for index in ("item_ready", "item_retried", "item_unblocked"):
        assert f"INDEX {index} " in used


def test_the_benchmark_of_the_queue_asks_what_it_says(tmp_path):
    """Its claims are of the most urgent items over all repositories, and every figure with a bound is measured."""
    store = open_store(tmp_path / "work.db")
    assert fill(store, 20_000).processor > 0
    assert counts.open_items(store, list(range(1, 11))) == 20_000
    check_counts(store)
    assert [counts.states(store, n) for n in range(1, 11)] == [counts.states(store, 1)] * 10
    times = drain(store, start_run(store, command="drain", model_name="m", pid=1), steps=5)
    assert {len(found) for found in times.values()} == {5}
    assert counts.open_items(store, list(range(1, 11))) == 20_000 - 5 * 15
    store.db.close()
    assert {name.removesuffix(", p99 ms") for name in LIMITS if name.endswith(", p99 ms")} == times.keys()


@pytest.mark.faults
@pytest.mark.timeout(3600)
def test_a_million_items_are_queued_claimed_and_counted_in_time(tmp_path: Path):
    """Ten times the bounds: a machine that others use too is no reason to fail."""
    figures = measure(tmp_path / "work.db", 1_000_000)
    assert {name: figures[name] for name, limit in LIMITS.items() if figures[name].elapsed > 10 * limit} == {}
