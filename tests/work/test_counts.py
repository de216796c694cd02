"""Counters say what counting says, after whatever was done to the queue."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from test_store import ROW, chunk, finished

from rotary_batch.core import Completion, Subject, Unit, ValidationResult, Verdict
from rotary_batch.testing import plan_items
from rotary_batch.work.connection import open_database
from rotary_batch.work.counts import open_items, parked_items, states, verdicts
from rotary_batch.work.index import save_repository
from rotary_batch.work.items import ask_again
from rotary_batch.work.rows import Claim, Failed, PlannedItem, StoredResult
from rotary_batch.work.runs import start_run
from rotary_batch.work.schema import migrate
from rotary_batch.work.store import WorkStore

OPEN = ("waiting", "ready", "leased")
FILES, CHUNKS = 3, 3


def check_counts(store: WorkStore) -> None:
    """Compare every counter with what it counts."""
    rows = store.db.execute("select * from item").fetchall()
    counted = Counter((row["repository_id"], row["unit"], row["state"], row["verdict"] or "") for row in rows)
    kept = {tuple(row)[:4]: row["n"] for row in store.db.execute("select * from item_count")}
    assert {key: n for key, n in kept.items() if n} == counted
    blockers = Counter(row["parent_id"] for row in rows if row["state"] in OPEN)
    assert {row["id"]: row["blockers"] for row in rows} == {row["id"]: blockers[row["id"]] for row in rows}
    for repository_id in {row["repository_id"] for row in rows}:
        mine = [row for row in rows if row["repository_id"] == repository_id]
        by_unit: dict[str, dict[str, int]] = {}
        for (unit, state), n in Counter((row["unit"], row["state"]) for row in mine).items():
            by_unit.setdefault(unit, {})[state] = n
        assert states(store, repository_id) == by_unit
        assert verdicts(store, repository_id) == Counter(row["verdict"] for row in mine if row["verdict"])
        assert open_items(store, [repository_id]) == sum(row["state"] in OPEN for row in mine)
        assert parked_items(store, [repository_id]) == sum(row["state"] == "parked" for row in mine)
        waiting = [row["id"] for row in mine if row["state"] == "waiting" and not blockers[row["id"]]]
        assert [item.id for item in store.unblocked([repository_id])] == sorted(waiting)


class Tree(RuleBasedStateMachine):
    """Two repositories of files with chunks, planned, worked on, parked, asked again, cut down and forgotten."""

    def __init__(self) -> None:
        super().__init__()
        self.path = Path("/dev/shm") / f"rotary-counts-{os.getpid()}-{id(self)}.db"
        db = open_database(self.path)
        db.execute("pragma synchronous = off")
        migrate(db)
        self.store = WorkStore(db)
        self.claims: list[Claim] = []
        self.version = 0

    @initialize()
    def begin(self):
        for root in ("/r", "/s"):
            save_repository(self.store, replace(ROW, root=root))
        self.run = start_run(self.store, command="drain", model_name="m", pid=1)
        self.plan(1, {0, 1}, set(), {0})
        self.plan(2, {0, 2}, {0}, {0, 2})

    @rule(
        repository=st.integers(1, 2),
        files=st.sets(st.integers(0, FILES - 1)),
        errors=st.sets(st.integers(0, FILES - 1)),
        touched=st.sets(st.integers(0, FILES - 1)),
    )
    def plan(self, repository, files, errors, touched):
        if self.store.db.execute("select 1 from repository where id = ?", [repository]).fetchone() is None:
            return
        self.version += 1
        top = PlannedItem(subject=Subject(Unit.REPOSITORY, ""), parent=None, max_new_tokens=8, touched=bool(touched))
        planned = [top] if files else []
        for number in files:
            path = f"{number}.py"
            planned.append(
                replace(top, subject=Subject(Unit.FILE, path), parent=top.subject, touched=number in touched)
            )
            planned += [self.one_chunk(path, n, bad=number in errors) for n in range(CHUNKS) if number in touched]
        plan_items(self.store, repository, "summarize", planned, {f"{n}.py" for n in touched})

    def one_chunk(self, path: str, number: int, *, bad: bool) -> PlannedItem:
        made = chunk(number, f"{path}{number}.{self.version}", parent=Subject(Unit.FILE, path))
        made = replace(made, subject=replace(made.subject, path=path))
        return replace(made, key=None, prompt_ids=(), error="too long") if bad else made

    @rule(limit=st.integers(1, 4), now=st.sampled_from([0.0, 100.0]), repositories=st.sampled_from([[1], [2], [2, 1]]))
    def claim(self, limit, now, repositories):
        self.claims += self.store.claim(self.run, limit=limit, now=now, repository_ids=repositories)

    @rule(data=st.data(), how=st.sampled_from(["finish", "low", "fail", "park", "release"]))
    def use(self, data, how):
        if not self.claims:
            return
        claim = self.claims[data.draw(st.integers(0, len(self.claims) - 1))]
        done = finished(claim)
        low = replace(done, validation=ValidationResult(verdict=Verdict.LOW_CONFIDENCE, shown_text=None))
        if how == "release":
            self.store.release([claim.lease])
        elif how in {"finish", "low"}:
            self.store.commit_step([], [done if how == "finish" else low], [])
        else:
            at = 50.0 if how == "fail" else None
            self.store.commit_step([], [], [Failed(claim=claim, error="x", retry_at=at)])

    @rule(data=st.data(), how=st.sampled_from(["ready", "reuse", "park", "parts"]))
    def advance(self, data, how):
        items = self.store.unblocked([1, 2])
        if not items:
            return
        item = items[data.draw(st.integers(0, len(items) - 1))]
        children = [row["id"] for row in self.store.db.execute("select id from item where parent_id = ?", [item.id])]
        if how == "ready":
            self.store.make_ready(item.id, key=f"{item.id}.{self.version}", prompt_ids=(1,), num_markers=0)
        elif how == "reuse":
            completion = Completion(request_id=0, token_ids=(1,), logprob_sum=0.0, num_scored=1, reason="stop")
            validation = ValidationResult(verdict=Verdict.SHOWN, shown_text="x")
            self.store.complete_reused(item.id, "k", StoredResult(text="x", completion=completion), validation)
        elif how == "park":
            self.store.park(item.id, "too much")
        elif len(children) > 1:
            self.store.add_parts(item.id, [children[:1], children[1:]])

    @rule(repositories=st.sampled_from([[1], [2], [1, 2]]))
    def retry(self, repositories):
        ask_again(self.store, repositories)

    @rule()
    def kill(self):
        self.run = start_run(self.store, command="drain", model_name="m", pid=1)
        self.store.reap(self.run)

    @rule()
    def fail_in_the_middle(self):
        try:
            with self.store.transaction():
                self.plan(1, {0}, {0}, {0})
                self.store.claim(self.run, limit=9, now=100.0, repository_ids=[1, 2])
                raise KeyboardInterrupt
        except KeyboardInterrupt:
            pass

    @rule(repository=st.integers(1, 2))
    def forget(self, repository):
        self.store.db.execute("delete from repository where id = ?", [repository])
        save_repository(self.store, replace(ROW, root="/r" if repository == 1 else "/s"))

    @invariant()
    def what_is_counted_is_what_there_is(self):
        check_counts(self.store)

    def teardown(self):
        self.store.db.close()
        self.path.unlink()


Tree.TestCase.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
TestTree = Tree.TestCase
