"""Virtual nights: clocks that change, are set or stand still, and a run that never works past its deadline.

The queue is a real SQLite file and the runner is the real one.  The machine is virtual: its engine takes minutes for a
step, it is suspended, its clock is set by an hour, and its zone changes its own.
"""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from rotary_batch.core import Completion, StepReport, Subject, Unit, ValidationResult, Verdict, WorkItem
from rotary_batch.errors import DeviceMemoryError, StoppedError, UnavailableError
from rotary_batch.pacing import Pacer, Yielding
from rotary_batch.pages.files import SyncResult
from rotary_batch.pool.in_process import LocalEngine, in_process_pool
from rotary_batch.pool.pool import Pool, wait_for_any
from rotary_batch.runner import Runner
from rotary_batch.testing import FakeEngine, plan_items
from rotary_batch.window import Clocks, Deadline, Window, open_window
from rotary_batch.work import connection
from rotary_batch.work.connection import open_database
from rotary_batch.work.counts import open_items
from rotary_batch.work.index import save_repository
from rotary_batch.work.items import ask_again
from rotary_batch.work.laws import LAWS, num_broken
from rotary_batch.work.rows import Claim, Finished, PlannedItem, RepositoryRow
from rotary_batch.work.runs import start_run
from rotary_batch.work.schema import migrate
from rotary_batch.work.store import WorkStore
from tests.storm import (
    KILLER,
    POISON,
    KilledError,
    MortalConnection,
    Planner,
    Sources,
    StormEngine,
    Weather,
    answers,
    epochs,
    results,
    subjects,
)
from tests.test_window import CHANGES, minute_by_minute

NIGHTS_A_QUEUE = 100
GRACE_S = 10.0  # to write the pages of the last step
ZONES = {name: ZoneInfo(name) for name in CHANGES}
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


class Machine:
    """A machine with its clocks.  `awake_s` is what a process lives through."""

    def __init__(self, start: datetime, zone: ZoneInfo, events: Sequence[tuple[float, str, float]]) -> None:
        self.wall = start.timestamp()
        self.boot = self.awake_s = 0.0
        self._zone, self._events = zone, sorted(events)
        self.happened: Counter[str] = Counter()
        self.deadlines: list[tuple[str, float]] = []  # clock, instant
        self._looked_at = 0.0
        self.overdue_at: float | None = None  # on the awake clock, since when a deadline is over

    def show(self, at: float) -> datetime:
        return datetime.fromtimestamp(at, self._zone).replace(tzinfo=None)

    def left_s(self) -> float:
        return min(at - getattr(self, clock) for clock, at in self.deadlines)

    def work(self, seconds: float) -> None:
        """Time goes by; what happens to the machine meanwhile, happens."""
        end = self.awake_s + seconds
        while self._events and self._events[0][0] <= end:
            at, kind, amount = self._events.pop(0)
            self._go(at - self.awake_s)
            self.happened[kind] += 1
            self.wall += amount
            self.boot += amount if kind == "suspended" else 0
            self._look()
        self._go(end - self.awake_s)

    def _go(self, seconds: float) -> None:
        self.awake_s, self.wall, self.boot = self.awake_s + seconds, self.wall + seconds, self.boot + seconds
        self._look()

    def _look(self) -> None:
        """Note when a deadline passed, unless the clock is set back behind it."""
        late_s = -self.left_s() if self.deadlines else -1.0
        if late_s < 0:
            self.overdue_at = None
        elif self.overdue_at is None:
            self.overdue_at = max(self.awake_s - late_s, self._looked_at)  # it may have passed in one jump
        self._looked_at = self.awake_s


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


MAX_ATTEMPTS = 3


class Life:
    """Some nights on one database, each a process of its own."""

    def __init__(self, path: Path, seed_number: int) -> None:
        self.path, self.chance = path, random.Random(seed_number)
        self.sources = Sources(self.chance)
        self.planned: list[set[tuple[str, str]]] = [set()]  # what the queue may hold: all before, or all after an edit
        self.results: dict[str, bytes] = {}
        self.epochs: dict[int, int] = {}
        self.happened: Counter[str] = Counter()

    def live(self, *, is_calm: bool, asks_again: bool = False) -> str:
        """One night, held against the laws; returns how it ended."""
        with closing(open_database(self.path, journal_mode="memory")) as db:
            db.execute("pragma synchronous = off")
            if not is_calm and self.chance.random() < 0.6:
                db.statements_left = self.chance.randint(1, self.chance.choice([60, 300, 600]))
            machine = Machine(datetime(2026, 3, 28, 22, tzinfo=UTC), ZONES["Europe/Berlin"], self._events(is_calm))
            weather = Weather(self.chance, 0.0 if is_calm else 0.15)
            ended = self._night(WorkStore(db), machine, weather, is_calm=is_calm, asks_again=asks_again)
        self.happened.update(weather.happened)
        self.happened.update(machine.happened)
        self.happened[ended] += 1
        assert not weather.began_late, "a step began after the deadline"
        if machine.overdue_at is not None:
            assert machine.awake_s - machine.overdue_at <= weather.longest_s + 2 * GRACE_S, "worked past its deadline"
        self._hold(ended)
        return ended

    def _events(self, is_calm: bool) -> list[tuple[float, str, float]]:
        kinds = {"set forward": 3600.0, "set back": -3600.0, "suspended": 1800.0}
        if is_calm:
            return []
        return [(self.chance.uniform(0, 3000), kind, by) for kind, by in kinds.items() if self.chance.random() < 0.3]

    def _night(self, store: WorkStore, machine: Machine, weather: Weather, *, is_calm: bool, asks_again: bool) -> str:
        window = Window()
        if not is_calm:
            left_s = self.chance.choice([300.0, 1800.0, 7200.0])
            machine.deadlines.append(("boot", left_s))
            window = Window(deadlines=[Deadline(left_s, lambda: machine.boot)])
        try:
            repository_id = save_repository(store, ROW)
            wanted = self.sources.planned()
            self.planned.append(subjects(wanted))
            paths = set(self.sources.files) | {
                path for (path,) in store.db.ask("select distinct path from item where unit = 'chunk'")
            }
            plan_items(store, repository_id, "summarize", wanted, paths)
            del self.planned[0]
            if asks_again:
                ask_again(store, [repository_id])
            run_id = start_run(store, command="run", model_name="m", pid=1)
            return self._runner(store, repository_id, run_id, machine, weather, window).drain()
        except KilledError:
            return "killed"
        except UnavailableError:
            return "unavailable"
        except DeviceMemoryError:
            return "memory"

    def _runner(self, store, repository_id, run_id, machine, weather, window) -> Runner:
        until = self.chance.uniform(0, 600) if weather.rate and self.chance.random() < 0.3 else -1.0

        def paused() -> str | None:
            self.happened["paused"] += machine.boot < until
            return "by hand" if machine.boot < until else None

        return Runner(
            store=store,
            pool=Pool(
                open_engine=lambda: LocalEngine(StormEngine(machine, weather, store.db)),
                wait=wait_for_any,
                clock=lambda: machine.boot,
            ),
            processor=Planner(store, repository_id),
            window=window,
            run_id=run_id,
            repository_ids=[repository_id],
            sync_pages=lambda _: SyncResult(),
            on_step=lambda _: None,
            num_open=lambda: open_items(store, [repository_id]),
            max_attempts=MAX_ATTEMPTS,
            pacer=Pacer(paused=paused, yielding=Yielding(clock=lambda: machine.boot), sleep=machine.work),
            clock=lambda: machine.boot,
            sleep=machine.work,
        )

    def _hold(self, ended: str) -> None:
        """What holds after every night."""
        with closing(open_database(self.path, journal_mode="memory")) as db:
            store = WorkStore(db)
            assert set(answers(db)) in self.planned, "an item is lost, or one too many"
            broken = [law.holds for law in LAWS if num_broken(store, law, ROW.root, is_driven=ended == "killed")]
            broken = [law for law in broken if ended != "killed" or law != "no run that is gone holds an item"]
            assert broken == []
            assert all(row["attempts"] <= MAX_ATTEMPTS for row in db.ask("select attempts from item"))
            assert self.results.items() <= results(db).items(), "an answer is lost, or another one"
            now = epochs(db)
            assert all(now[item_id] >= epoch for item_id, epoch in self.epochs.items() if item_id in now)
            self.planned, self.results, self.epochs = [set(answers(db))], results(db), now


def fresh(template: Path, path: Path) -> Path:
    shutil.copyfile(template, path)
    return path


def storm(template: Path, folder: Path, seed_number: int) -> Counter[str]:
    """Some nights with faults and edits, then calm ones until all is done."""
    life = Life(fresh(template, folder / "storm.db"), seed_number)
    for _ in range(6):
        life.live(is_calm=False)
        if life.chance.random() < 0.5:
            life.sources.edit()
    assert life.live(is_calm=True, asks_again=True) == "done"
    calm = Life(fresh(template, folder / "calm.db"), seed_number)
    calm.sources.files = life.sources.files
    assert calm.live(is_calm=True) == "done"
    with closing(open_database(life.path)) as stormy, closing(open_database(calm.path)) as undisturbed:
        assert answers(stormy) == answers(undisturbed)
        states = Counter(state for state, _, _ in answers(stormy).values())
        assert set(states) <= {"done", "parked"}
        assert states["parked"] == sum(one in {POISON, KILLER} for file in life.sources.files.values() for one in file)
    life.happened["parked"] += states["parked"]
    return life.happened


def storms(tmp_path: Path, numbers: range, monkeypatch) -> Counter[str]:
    monkeypatch.setattr(connection, "Connection", MortalConnection)
    template, seen = tmp_path / "template.db", Counter()
    with closing(open_database(template, journal_mode="memory")) as db:
        db.execute("pragma synchronous = off")
        migrate(db)
    for number in numbers:
        try:
            seen += storm(template, tmp_path, number)
        except BaseException as error:
            error.add_note(f"storm {number}")
            raise
    return seen


FAULTS = {"temporary", "in the way", "no memory", "dies", "bad model", "bad machine", "killed", "deadline", "paused"}
FAULTS |= {"set forward", "set back", "suspended", "done", "unavailable", "parked"}


def test_nights_with_faults_end_with_what_a_night_without_them_does(tmp_path, monkeypatch):
    seen = storms(tmp_path, range(50), monkeypatch)
    assert {what for what in FAULTS if seen[what] >= 5} == FAULTS, seen


@pytest.mark.faults
def test_ten_thousand_lives_with_faults_lose_nothing(tmp_path, monkeypatch):
    seen = storms(tmp_path, range(50, 10_050), monkeypatch)
    assert {what for what in FAULTS if seen[what] >= 1000} == FAULTS, seen
