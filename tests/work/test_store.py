"""The queue: nothing is lost, nothing is done twice, an older holder changes nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from rotary_batch.core import Completion, NewTokens, StopCriteria, Subject, Unit, ValidationResult, Verdict
from rotary_batch.testing import plan_items
from rotary_batch.work.connection import open_database
from rotary_batch.work.counts import answers, items, last_run, run_row, states, workload
from rotary_batch.work.index import save_repository
from rotary_batch.work.items import ask_again
from rotary_batch.work.rows import Claim, Failed, Finished, PlannedItem, RepositoryRow
from rotary_batch.work.runs import WHY_KILLED, end_run, killed, save_stats, start_run, unended_runs
from rotary_batch.work.schema import migrate
from rotary_batch.work.store import WorkStore

ROW = RepositoryRow(
    root="/r",
    name="r",
    commit_id=None,
    worktree=False,
    docs_dir="rotary-docs",
    model_name="m",
    pack_dir="/p",
    plan_key="k",
    link_template=None,
    job="summarize",
)


FILE = Subject(Unit.FILE, "a.py")


def open_store(path: Path, journal_mode: str = "delete") -> WorkStore:
    db = open_database(path, journal_mode=journal_mode)
    migrate(db)
    return WorkStore(db)


def chunk(number: int, key: str | None = None, *, parent: Subject | None = FILE) -> PlannedItem:
    return PlannedItem(
        subject=Subject(Unit.CHUNK, "a.py", span=(number, number + 1)),
        parent=parent,
        position=number,
        max_new_tokens=8,
        key=key or f"key{number}",
        prompt_ids=(1, 2, number),
    )


def file_item(*, touched: bool = True) -> PlannedItem:
    return PlannedItem(subject=FILE, parent=None, max_new_tokens=8, touched=touched, priority=9)


def finished(claim: Claim, text: str = "It works.") -> Finished:
    completion = Completion(request_id=claim.item.id, token_ids=(7, 8), logprob_sum=-0.5, num_scored=2, reason="stop")
    return Finished(
        claim=claim,
        completion=completion,
        text=text,
        validation=ValidationResult(verdict=Verdict.SHOWN, shown_text=text),
    )


@pytest.fixture(params=["delete", "wal"])
def store(request, tmp_path):
    store = open_store(tmp_path / "work.db", request.param)
    save_repository(store, ROW)
    yield store
    store.db.close()


def claim_all(store: WorkStore, run_id: int, limit: int = 100) -> list[Claim]:
    return store.claim(run_id, limit=limit, now=0.0, repository_ids=[1])


def test_a_chunk_is_claimed_with_its_prompt_and_answered_once(store):
    plan_items(store, 1, "summarize", [file_item(), chunk(1), chunk(2)], {"a.py"})
    run = start_run(store, command="drain", model_name="m", pid=1)
    claims = claim_all(store, run)

    assert [claim.request.prompt_ids for claim in claims] == [(1, 2, 1), (1, 2, 2)]
    assert claim_all(store, run) == []
    store.commit_step([], [finished(claims[0])], [])
    store.commit_step([], [finished(claims[0], "Again.")], [])
    assert {(a.subject.text, a.shown_text) for a in answers(store, 1, ["a.py"], [Unit.FILE, Unit.CHUNK])} == {
        ("a.py", None),
        ("a.py@1-2", "It works."),
        ("a.py@2-3", None),
    }


def test_the_workload_is_that_of_requests_whose_shared_tokens_are_read_once(store):
    """Of three chunks and four symbols in each; the numbers are those of what is claimed."""
    shared = {n: tuple(range(100 * n, 100 * n + 60)) for n in (1, 2, 3)}
    planned = [
        replace(chunk(number, parent=None), shared_ids=shared[1 + number // 4], is_first=number % 4 == 0)
        for number in range(12)
    ]
    plan_items(store, 1, "summarize", planned, {"a.py"})
    found = workload(store, [1], 1000)
    requests = [one.request for one in claim_all(store, start_run(store, command="drain", model_name="m", pid=1))]
    assert found.prompt_tokens == sum(len(one.prompt_ids) for one in requests) / 12 == 63
    assert (found.shared_tokens, found.siblings) == (requests[0].shared_tokens, 4) == (60, 4)
    read = {one.prompt_ids[:60]: 60 for one in requests}
    assert found.prefill_tokens == (sum(read.values()) + 12 * 3) / 12
    assert (found.kv_tokens, found.own_kv_tokens) == (15 + 3 + 8 - 1, 3 + 8 - 1)


def test_partial_tokens_and_their_log_probability_come_back_bit_for_bit(store):
    plan_items(store, 1, "summarize", [chunk(1, parent=None)], {"a.py"})
    first = start_run(store, command="drain", model_name="m", pid=1)
    (claim,) = claim_all(store, first)
    total = 0.0
    for token in range(5):
        total += -0.1 / 3
        new = NewTokens(request_id=claim.item.id, token_ids=(token,), logprob_sum=total)
        store.commit_step([(claim.lease, new)], [], [])
    second = start_run(store, command="drain", model_name="m", pid=1)
    assert store.reap(second) == 1
    (again,) = claim_all(store, second)
    assert (again.request.generated_ids, again.request.logprob_sum) == ((0, 1, 2, 3, 4), total)

    # The dead run's lease is fenced out: it can neither add nor finish.
    late = NewTokens(request_id=claim.item.id, token_ids=(9,), logprob_sum=-9.0)
    store.commit_step([(claim.lease, late)], [finished(claim)], [])
    store.release([again.lease])
    (third,) = claim_all(store, second)
    assert third.request.generated_ids == (0, 1, 2, 3, 4)


def test_planning_the_same_again_queues_nothing_and_a_change_resets_only_what_reads_it(store):
    plan_items(store, 1, "summarize", [file_item(), chunk(1), chunk(2)], {"a.py"})
    run = start_run(store, command="drain", model_name="m", pid=1)
    for claim in claim_all(store, run):
        store.commit_step([], [finished(claim)], [])
    same = plan_items(store, 1, "summarize", [file_item(touched=False)], set())
    assert (same.queued, same.removed) == (0, 0)
    changed = plan_items(store, 1, "summarize", [file_item(), chunk(1), chunk(2, "other")], {"a.py"})
    assert (changed.queued, changed.unchanged, changed.removed) == (2, 1, 0)
    assert states(store, 1) == {"chunk": {"done": 1, "ready": 1}, "file": {"waiting": 1}}
    gone = plan_items(store, 1, "summarize", [], {"a.py"})
    assert (gone.removed, states(store, 1)) == (3, {})


def test_a_roll_up_is_unblocked_when_all_that_it_reads_is_done_or_parked(store):
    plan_items(store, 1, "summarize", [file_item(), chunk(1), chunk(2)], {"a.py"})
    run = start_run(store, command="drain", model_name="m", pid=1)
    one, two = claim_all(store, run)
    store.commit_step([], [finished(one)], [])
    assert store.unblocked([1]) == []
    store.commit_step([], [], [Failed(claim=two, error="broken", retry_at=None)])
    assert [item.subject.text for item in store.unblocked([1])] == ["a.py"]


def test_parts_stand_between_a_roll_up_and_what_it_reads_and_go_when_it_changes(store):
    plan_items(store, 1, "summarize", [file_item(), *(chunk(n) for n in range(4))], {"a.py"})
    run = start_run(store, command="drain", model_name="m", pid=1)
    claims = claim_all(store, run)
    for claim in claims:
        store.commit_step([], [finished(claim)], [])
    (item,) = store.unblocked([1])
    ids = [claim.item.id for claim in claims]
    store.add_parts(item.id, [ids[:2], ids[2:]])
    assert [part.subject.text for part in store.unblocked([1])] == ["a.py#1", "a.py#2"]
    plan_items(store, 1, "summarize", [file_item(), *(chunk(n) for n in range(4))], {"a.py"})
    assert [part.subject.text for part in store.unblocked([1])] == ["a.py"]


def test_what_reads_a_parked_item_is_asked_again_with_it(store):
    """A folder of two files, one with a chunk that was parked and a part between; the other file stays as it is."""
    folder = PlannedItem(subject=Subject(Unit.DIRECTORY, "d"), parent=None, max_new_tokens=8, touched=True)
    files = [replace(file_item(), subject=Subject(Unit.FILE, name), parent=folder.subject) for name in ("a.py", "b.py")]
    other = replace(chunk(3, parent=files[1].subject), subject=Subject(Unit.CHUNK, "b.py", span=(3, 4)))
    plan_items(store, 1, "summarize", [folder, *files, chunk(1), chunk(2), other], {"a.py", "b.py"})
    run = start_run(store, command="drain", model_name="m", pid=1)
    parked, *claims = claim_all(store, run)
    store.commit_step([], [finished(claim) for claim in claims], [Failed(claim=parked, error="x", retry_at=None)])
    (part_of,) = [item.id for item in store.unblocked([1]) if item.subject == FILE]
    store.add_parts(part_of, [[claim.item.id for claim in (parked, *claims) if claim.item.subject.path == "a.py"]])
    while waiting := store.unblocked([1]):
        for item in waiting:
            store.make_ready(item.id, key=item.subject.text, prompt_ids=(1,), num_markers=0)
        store.commit_step([], [finished(claim) for claim in claim_all(store, run)], [])
    found = [(row["subject"], row["state"]) for row in items(store, 1)]
    assert sorted(found) == [
        ("a.py", "done"),
        ("a.py#1", "done"),
        ("a.py@1-2", "parked"),
        ("a.py@2-3", "done"),
        ("b.py", "done"),
        ("b.py@3-4", "done"),
        ("d", "done"),
    ]
    parked = store.db.execute("select shown_text from item where subject = 'd'").fetchone()[0]
    assert parked == "It works."
    assert ask_again(store, [2]) == 0
    assert ask_again(store, [1]) == 1
    found = [(row["subject"], row["state"]) for row in items(store, 1)]
    assert sorted(found) == [
        ("a.py", "waiting"),
        ("a.py@1-2", "ready"),
        ("a.py@2-3", "done"),
        ("b.py", "done"),
        ("b.py@3-4", "done"),
        ("d", "waiting"),
    ]
    assert store.unblocked([1]) == []
    assert (
        store.db.execute("select shown_text, verdict, ended from item where subject = 'd'").fetchone()[:] == (None,) * 3
    )
    (again,) = claim_all(store, run)
    assert (again.item.subject.text, again.item.attempts, again.request.prompt_ids) == ("a.py@1-2", 0, (1, 2, 1))
    store.commit_step([], [finished(again)], [])
    assert [item.subject.text for item in store.unblocked([1])] == ["a.py"]


def test_a_failed_item_waits_for_its_time(store):
    plan_items(store, 1, "summarize", [chunk(1, parent=None)], {"a.py"})
    run = start_run(store, command="drain", model_name="m", pid=1)
    (claim,) = claim_all(store, run)
    store.commit_step([], [], [Failed(claim=claim, error="busy", retry_at=50.0)])
    assert claim_all(store, run) == []
    assert store.next_retry_at([1]) == 50.0
    assert [c.item.attempts for c in store.claim(run, limit=1, now=50.0, repository_ids=[1])] == [1]


def test_a_run_without_an_end_was_killed_when_it_was_last_heard_of(store):
    first = start_run(store, command="drain", model_name="m", pid=1)
    save_stats(store, first, {"done": 1})
    second = start_run(store, command="drain", model_name="m", pid=1)
    end_run(store, second, "failed", {"done": 3}, reason="no memory")
    last = last_run(store)
    assert (last.outcome, last.stats, last.reason) == ("failed", {"done": 3}, "no memory")
    assert unended_runs(store) == [first]
    dead = killed(run_row(store, first))
    assert (dead.outcome, dead.stats, dead.reason) == ("killed", {"done": 1}, WHY_KILLED)
    assert dead.started_at <= dead.ended_at == dead.saved_at


def test_what_was_committed_survives_a_kill(tmp_path):
    """A child commits one token after another and says so; whatever it said is there after SIGKILL."""
    script = (
        "import sys\nfrom pathlib import Path\nsys.path.insert(0, sys.argv[2])\nimport test_store as t\n"
        "from rotary_batch.core import NewTokens\n"
        "store = t.open_store(Path(sys.argv[1])); t.save_repository(store, t.ROW)\n"
        "t.plan_items(store, 1, 'summarize', [t.chunk(1, parent=None)], {'a.py'})\n"
        "run = t.start_run(store, command='drain', model_name='m', pid=1); (claim,) = t.claim_all(store, run)\n"
        "for n in range(100000):\n"
        "  new = NewTokens(request_id=1, token_ids=(n,), logprob_sum=-float(n))\n"
        "  store.commit_step([(claim.lease, new)], [], []); print(n, flush=True)\n"
    )
    path = tmp_path / "work.db"
    child = subprocess.Popen(
        [sys.executable, "-c", script, str(path), str(Path(__file__).parent)], stdout=subprocess.PIPE, text=True
    )
    said = [child.stdout.readline() for _ in range(20)]
    time.sleep(0.05)
    os.kill(child.pid, signal.SIGKILL)
    said += child.stdout.readlines()
    child.wait()
    child.stdout.close()
    last = int([line for line in said if line.endswith("\n")][-1])
    store = open_store(path)
    run = start_run(store, command="drain", model_name="m", pid=1)
    store.reap(run)
    (claim,) = claim_all(store, run)
    assert claim.request.generated_ids[: last + 1] == tuple(range(last + 1))
    assert len(claim.request.generated_ids) <= last + 2
    assert store.db.execute("pragma integrity_check").fetchone()[0] == "ok"


class Queue(RuleBasedStateMachine):
    """Claims, tokens, answers, failures, kills and re-plans in any order; a claim may be used long after its time."""

    def __init__(self) -> None:
        super().__init__()
        db = open_database(Path(os.devnull).parent / "shm" / f"rotary-{os.getpid()}-{id(self)}.db")
        migrate(db)
        self.store = WorkStore(db)
        save_repository(self.store, ROW)
        self.keys = dict.fromkeys(range(6), 0)
        self.run = start_run(self.store, command="drain", model_name="m", pid=1)
        self.claims: list[Claim] = []  # all that ever were
        self.valid: dict[str, Claim] = {}  # by subject
        self.plan()

    def plan(self) -> None:
        planned = [chunk(n, f"key{n}.{version}", parent=None) for n, version in self.keys.items()]
        plan_items(self.store, 1, "summarize", planned, {"a.py"})

    def rows(self) -> dict[str, tuple]:
        found = self.store.db.execute("select *, (select count(*) from partial where item_id = id) from item")
        return {row["subject"]: tuple(row) for row in found}

    @rule(limit=st.integers(1, 4))
    def claim(self, limit):
        found = claim_all(self.store, self.run, limit)
        assert not {claim.item.subject.text for claim in found} & self.valid.keys()
        self.claims += found
        self.valid |= {claim.item.subject.text: claim for claim in found}

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), action=st.sampled_from(["write", "finish", "fail", "release"]))
    def use(self, data, action):
        claim = self.claims[data.draw(st.integers(0, len(self.claims) - 1))]
        subject, before = claim.item.subject.text, self.rows()
        new = NewTokens(request_id=claim.item.id, token_ids=(5,), logprob_sum=-1.0)
        if action == "release":
            self.store.release([claim.lease])
        else:
            failed = [Failed(claim=claim, error="x", retry_at=0.0)] if action == "fail" else []
            answered = [finished(claim)] if action == "finish" else []
            self.store.commit_step([(claim.lease, new)] if action == "write" else [], answered, failed)
        after = self.rows()
        if self.valid.get(subject) is not claim:
            assert after == before, "who lost the lease changes nothing"
            return
        assert {name for name in after if after[name] != before[name]} == {subject}
        states_now = {row["subject"]: row["state"] for row in items(self.store, 1)}
        assert states_now[subject] == {"write": "leased", "finish": "done"}.get(action, "ready")
        if action != "write":
            del self.valid[subject]

    @rule(number=st.integers(0, 5))
    def change(self, number):
        self.keys[number] += 1
        self.valid.pop(f"a.py@{number}-{number + 1}", None)
        self.plan()

    @rule()
    def kill(self):
        self.valid.clear()
        self.run = start_run(self.store, command="drain", model_name="m", pid=1)
        self.store.reap(self.run)

    @invariant()
    def nothing_is_lost(self):
        assert sum(states(self.store, 1)["chunk"].values()) == 6
        leased = {row["subject"] for row in items(self.store, 1) if row["state"] == "leased"}
        assert leased == self.valid.keys()

    def teardown(self):
        path = self.store.db.execute("pragma database_list").fetchone()[2]
        self.store.db.close()
        Path(path).unlink()


Queue.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
TestQueue = Queue.TestCase


def test_limits_of_an_answer_travel_with_its_item_and_so_does_what_ended_it(store):
    limited = replace(chunk(1, parent=None), max_sentences=3)
    plan_items(store, 1, "summarize", [limited, chunk(2, parent=None)], {"a.py"})
    one, other = claim_all(store, start_run(store, command="drain", model_name="m", pid=1))
    assert (one.request.stop, other.request.stop) == (
        StopCriteria(3, stops_loops=True),
        StopCriteria(None, stops_loops=True),
    )
    looped = finished(other)
    looped = replace(looped, completion=replace(looped.completion, reason="loop"))
    store.commit_step([], [finished(one), looped], [])
    assert {row["subject"]: row["ended"] for row in items(store, 1)} == {"a.py@1-2": "stop", "a.py@2-3": "loop"}
    plan_items(store, 1, "summarize", [limited, replace(chunk(2, parent=None), key="new")], {"a.py"})
    assert {row["subject"]: row["ended"] for row in items(store, 1)} == {"a.py@1-2": "stop", "a.py@2-3": None}


def test_a_chunk_that_no_longer_fits_has_no_prompt_to_be_asked_again(store):
    plan_items(store, 1, "summarize", [chunk(1, parent=None)], {"a.py"})
    plan_items(
        store, 1, "summarize", [replace(chunk(1, parent=None), key=None, prompt_ids=(), error="too long")], {"a.py"}
    )
    assert store.db.execute("select count(*) from prompt").fetchone()[0] == 0
    assert ask_again(store, [1]) == 0
    assert claim_all(store, start_run(store, command="drain", model_name="m", pid=1)) == []
