"""Virtual nights: clocks that change, are set or stand still, and a run that never works past its deadline.

The queue is a real SQLite file and the runner is the real one.  The machine is virtual: its engine takes minutes for a
step, it is suspended, its clock is set by an hour, and its zone changes its own.  In storms all else fails too.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rotary_batch.core import Completion, StepReport, Subject, Unit, ValidationResult, Verdict, WorkItem
from rotary_batch.errors import StoppedError
from rotary_batch.pages.files import SyncResult
from rotary_batch.pool.in_process import in_process_pool
from rotary_batch.runner import Runner
from rotary_batch.testing import FakeEngine, plan_items
from rotary_batch.window import Clocks, open_window
from rotary_batch.work.connection import open_database
from rotary_batch.work.counts import open_items
from rotary_batch.work.index import save_repository
from rotary_batch.work.rows import Claim, Finished, PlannedItem
from rotary_batch.work.schema import migrate
from rotary_batch.work.store import WorkStore
from tests.lives import storms
from tests.test_window import CHANGES, minute_by_minute
from tests.virtual_machine import GRACE_S, ROW, ZONES, Machine

NIGHTS_A_QUEUE = 100
DRIVER = Path(__file__).parent / "faults" / "lives_driver.py"


class SlowEngine(FakeEngine):
    """A step takes as long as it takes, and must not begin when it is too late."""

    def __init__(self, machine: Machine, seed: random.Random) -> None:
        super().__init__(max_batch=4, answer_tokens=3)
        self.machine, self.random = machine, seed
        self.usual_s = machine.left_s() / seed.uniform(2, 30)
        self.longest_s = self.last_s = 0.0
        self.began_late = False

    def step(self) -> StepReport:
        self.began_late |= self.machine.left_s() <= 0
        began = self.machine.awake_s
        self.machine.work(self.usual_s * self.random.uniform(0.5, 2.0))
        self.last_s = self.machine.awake_s - began
        self.longest_s = max(self.longest_s, self.last_s)
        return replace(super().step(), step_s=self.last_s)


class Answers:
    """The part of the planner that this needs: every answer is good."""

    def reuse_answers(self) -> Iterator[list[WorkItem]]:
        return iter(())

    prepare = reuse_answers

    def complete(self, claim: Claim, completion: Completion) -> Finished:
        shown = ValidationResult(verdict=Verdict.SHOWN, shown_text="It works.")
        return Finished(claim=claim, completion=completion, text="It works.", validation=shown)


def queue(path, num_items: int) -> tuple[WorkStore, int]:
    db = open_database(path, journal_mode="memory")
    db.execute("pragma synchronous = off")
    migrate(db)
    store = WorkStore(db)
    repository_id = save_repository(store, ROW)
    items = [
        PlannedItem(
            subject=Subject(Unit.CHUNK, "a.py", span=(number, number + 1)),
            parent=None,
            max_new_tokens=4,
            key=f"key{number}",
            prompt_ids=(1, 2, number),
        )
        for number in range(num_items)
    ]
    plan_items(store, repository_id, "summarize", items, changed_paths={"a.py"})
    return store, repository_id


def asked_for(seed: random.Random) -> dict[str, str | None]:
    """Options as a person types them: at least one deadline."""
    hour = f"{seed.choice([0, 1, 2, 2, 3, 6, 7, 23]):02}:{seed.choice([0, 0, 15, 30]):02}"
    kinds = seed.choice([("until",), ("until",), ("duration",), ("hours",), ("hours",), ("until", "duration")])
    values = {
        "until": hour,
        "duration": seed.choice(["45m", "2h", "6h30m"]),
        "hours": f"{seed.choice(['20:00', '22:10', '23:10', '01:10'])}-{hour}",
    }
    return {name: values[name] if name in kinds else None for name in values}


def is_inside(hours: str, shown: datetime) -> bool:
    """Walk from the start of the hours to their end, minute by minute."""
    at, end = ([int(part) for part in text.split(":")] for text in hours.split("-"))
    minutes = set()
    while at != end:
        minutes.add((at[0], at[1]))
        at = [(at[0] + (at[1] + 1) // 60) % 24, (at[1] + 1) % 60]
    return (shown.hour, shown.minute) in minutes


def live_through(seed_number: int, store: WorkStore, repository_id: int, seen: Counter[str]) -> None:
    """One night, held against the laws."""
    seed = random.Random(seed_number)
    name = seed.choice(sorted(ZONES))
    change = datetime.fromisoformat(seed.choice(CHANGES[name])).replace(tzinfo=UTC)
    start = change + timedelta(minutes=seed.randrange(-24 * 60, 6 * 60))
    events = [
        (seed.uniform(0, 8 * 3600), kind, amount)
        for kind, amount in (
            ("set forward", 3600.0),
            ("set back", -3600.0),
            ("suspended", seed.choice([120.0, 5400.0, 8 * 3600.0])),
        )
        if seed.random() < 0.4
    ]
    machine = Machine(start, ZONES[name], events)
    clocks = Clocks(lambda: machine.wall, lambda: machine.boot, machine.show)
    asked = asked_for(seed)
    shown = machine.show(machine.wall)
    if asked["hours"] and not is_inside(asked["hours"], shown):
        with pytest.raises(StoppedError, match=f"it is {shown:%H:%M}, outside"):
            open_window(**asked, clocks=clocks)
        seen["outside its hours"] += 1
        return
    window = open_window(**asked, clocks=clocks)
    truth = minute_by_minute(ZONES[name], start.replace(second=0))
    for end in filter(None, [asked["until"], asked["hours"] and asked["hours"].partition("-")[2]]):
        hour, minute = map(int, end.split(":"))
        machine.deadlines.append(("wall", truth[hour, minute].timestamp()))
    if asked["duration"]:
        machine.deadlines.append(("boot", {"45m": 2700.0, "2h": 7200.0, "6h30m": 23400.0}[asked["duration"]]))
    assert window.seconds_left == machine.left_s()

    engine = SlowEngine(machine, seed)

    def write_pages(_items: Sequence[WorkItem]) -> SyncResult:
        machine.work(seed.uniform(0, GRACE_S))
        return SyncResult()

    runner = Runner(
        store=store,
        pool=in_process_pool(lambda: lambda _phase: engine),
        processor=Answers(),
        window=window,
        run_id=seed_number,
        repository_ids=[repository_id],
        sync_pages=write_pages,
        on_step=lambda _: None,
        num_open=lambda: open_items(store, [repository_id]),
        max_attempts=3,
        clock=lambda: machine.boot,
        sleep=machine.work,
    )
    outcome = runner.drain()
    assert not engine.began_late, "a step began after the deadline"

    seen[outcome] += 1
    seen.update(machine.happened)
    offset = machine.show(machine.wall) - datetime.fromtimestamp(machine.wall, UTC).replace(tzinfo=None)
    before = shown - datetime.fromtimestamp(start.timestamp(), UTC).replace(tzinfo=None)
    seen["summer time"] += offset > before
    seen["winter time"] += offset < before
    if machine.overdue_at is not None:
        assert machine.awake_s - machine.overdue_at <= engine.longest_s + 2 * GRACE_S, "worked past its deadline"
    if outcome == "deadline":
        assert machine.left_s() <= 2 * engine.last_s, "the night was cut short"
    leased = store.db.execute("select count(*) as n from item where state = 'leased'").fetchone()["n"]
    assert (leased, outcome in {"deadline", "done"}) == (0, True)


def nights(tmp_path, numbers: range) -> Counter[str]:
    seen: Counter[str] = Counter()
    for first in numbers[::NIGHTS_A_QUEUE]:
        store, repository_id = queue(tmp_path / f"{first}.db", 60 * NIGHTS_A_QUEUE)
        for number in range(first, first + NIGHTS_A_QUEUE):
            try:
                live_through(number, store, repository_id, seen)
            except BaseException as error:
                error.add_note(f"night {number}")
                raise
        store.db.close()
    return seen


EVERYTHING = {
    "deadline",
    "outside its hours",
    "set forward",
    "set back",
    "suspended",
    "summer time",
    "winter time",
}


def test_no_night_goes_past_its_deadline_by_more_than_a_step(tmp_path):
    seen = nights(tmp_path, range(300))
    assert {what for what in EVERYTHING if seen[what] >= 10} == EVERYTHING, seen


@pytest.mark.faults
def test_none_of_ten_thousand_nights_goes_past_its_deadline(tmp_path):
    seen = nights(tmp_path, range(300, 10_300))
    assert {what for what in EVERYTHING if seen[what] >= 300} == EVERYTHING, seen


FAULTS = {"temporary", "in the way", "no memory", "dies", "bad model", "bad machine", "killed", "deadline", "paused"}
FAULTS |= {"set forward", "set back", "suspended", "done", "unavailable", "parked"}


def test_nights_with_faults_end_with_what_a_night_without_them_does(tmp_path, monkeypatch):
    seen = storms(tmp_path, range(50), monkeypatch)
    assert {what for what in FAULTS if seen[what] >= 5} == FAULTS, seen


def killed(num_kills: int, seed_number: int) -> dict[str, int]:
    memory = Path("/dev/shm")  # syncs of a disk would take nearly all the time
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        command = [sys.executable, str(DRIVER), folder, str(num_kills), str(seed_number)]
        return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def test_nights_that_are_killed_end_with_what_a_night_without_kills_does():
    kills = killed(30, 0)
    assert set(kills) == {"delete", "wal"}


@pytest.mark.faults
def test_a_thousand_kills_of_nights_lose_nothing(record_property):
    kills = Counter()
    for seed_number in range(1, 11):
        kills += Counter(killed(100, seed_number))
    record_property("SIGKILLs", dict(kills))
    assert min(kills["delete"], kills["wal"]) >= 400


@pytest.mark.faults
def test_ten_thousand_lives_with_faults_lose_nothing(tmp_path, monkeypatch):
    seen = storms(tmp_path, range(50, 10_050), monkeypatch)
    assert {what for what in FAULTS if seen[what] >= 1000} == FAULTS, seen
