"""The lives of databases: nights with faults and edits, held against the laws, then a calm one; for test_nights.py."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
import traceback
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

from rotary_batch.errors import DeviceMemoryError, UnavailableError
from rotary_batch.pacing import Pacer, Yielding
from rotary_batch.pages.files import SyncResult
from rotary_batch.pool.in_process import LocalEngine
from rotary_batch.pool.pool import Pool, wait_for_any
from rotary_batch.runner import Runner
from rotary_batch.testing import plan_items
from rotary_batch.window import Deadline, Window
from rotary_batch.work import connection
from rotary_batch.work.connection import open_database
from rotary_batch.work.counts import open_items
from rotary_batch.work.index import save_repository
from rotary_batch.work.items import ask_again
from rotary_batch.work.laws import LAWS, num_broken
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
from tests.virtual_machine import GRACE_S, ROW, ZONES, Machine

MAX_ATTEMPTS = 3


class Life:
    """Some nights on one database, each a process of its own."""

    def __init__(self, path: Path, seed_number: int) -> None:
        self.path, self.chance = path, random.Random(seed_number)
        self.sources = Sources(self.chance)
        self.planned: list[set[tuple[str, str]]] = [set()]  # what the queue may hold: all before, or all after an edit
        self.results: dict[str, bytes] = {}
        self.epochs: dict[tuple[int, str, str], int] = {}
        self.happened: Counter[str] = Counter()
        self.journal = "memory"  # enough where no real process dies

    def open(self) -> MortalConnection:
        db = open_database(self.path, journal_mode=self.journal)
        if self.journal == "memory":
            db.execute("pragma synchronous = off")
        return db

    def die(self) -> bool:
        """A night in a process that gets a real SIGKILL at a chance instant; returns whether it came before its end."""
        self.planned.append(subjects(self.sources.planned()))
        after_s, seed = self.chance.uniform(0, 0.06), self.chance.random()
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            self._live_apart(writer, seed)
        os.close(writer)
        with os.fdopen(reader) as told:
            num_answers = told.readline()
            time.sleep(after_s)
            os.kill(pid, signal.SIGKILL)
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            num_answers = [num_answers, *told.readlines()][-1]
        assert code in {0, -signal.SIGKILL}, "an assertion in that process"
        self._hold("killed")
        assert len(self.results) >= int(num_answers), "an answer is lost that was committed"
        return code != 0

    def _live_apart(self, writer: int, seed: float) -> NoReturn:
        code = 1
        try:
            self.chance = random.Random(seed)
            with closing(self.open()) as db:
                os.write(writer, b"0\n")
                db.tells = writer
                machine = Machine(datetime(2026, 3, 28, 22, tzinfo=UTC), ZONES["Europe/Berlin"], [])
                self._night(WorkStore(db), machine, Weather(self.chance, 0.15), is_calm=False, asks_again=False)
            code = 0
        except BaseException:  # noqa: BLE001 - the parent only sees the code
            traceback.print_exc()
        finally:
            os._exit(code)

    def live(self, *, is_calm: bool, asks_again: bool = False) -> str:
        """One night, held against the laws; returns how it ended."""
        with closing(self.open()) as db:
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
        with closing(self.open()) as db:
            store = WorkStore(db)
            assert set(answers(db)) in self.planned, "an item is lost, or one too many"
            broken = [law.holds for law in LAWS if num_broken(store, law, ROW.root, is_driven=ended == "killed")]
            broken = [law for law in broken if ended != "killed" or law != "no run that is gone holds an item"]
            assert broken == []
            assert all(row["attempts"] <= MAX_ATTEMPTS for row in db.ask("select attempts from item"))
            assert self.results.items() <= results(db).items(), "an answer is lost, or another one"
            now = epochs(db)
            assert all(now[item] >= epoch for item, epoch in self.epochs.items() if item in now)
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
    return end(life, template, folder)


def kill(template: Path, folder: Path, seed_number: int, num_kills: int) -> Counter[str]:
    """Nights that real SIGKILLs end, with edits; returns how many of them in each journal mode."""
    life, kills = Life(fresh(template, folder / "storm.db"), seed_number), Counter()
    while kills.total() < num_kills:
        life.journal = life.chance.choice(["delete", "wal"])
        kills[life.journal] += life.die()
        if life.chance.random() < 0.4:
            life.sources.edit()
    end(life, template, folder)
    return kills


def end(life: Life, template: Path, folder: Path) -> Counter[str]:
    """A calm night, after which the database holds what one without any fault does."""
    assert life.live(is_calm=True, asks_again=True) == "done"
    calm = Life(fresh(template, folder / "calm.db"), 0)
    calm.sources.files = life.sources.files
    assert calm.live(is_calm=True) == "done"
    with closing(open_database(life.path)) as stormy, closing(open_database(calm.path)) as undisturbed:
        assert answers(stormy) == answers(undisturbed)
        states = Counter(state for state, _, _ in answers(stormy).values())
        assert set(states) <= {"done", "parked"}
        assert states["parked"] == sum(one in {POISON, KILLER} for file in life.sources.files.values() for one in file)
    life.happened["parked"] += states["parked"]
    return life.happened


def empty(folder: Path) -> Path:
    """A database with nothing in it; most lives are shorter than its making."""
    template = folder / "template.db"
    with closing(open_database(template, journal_mode="memory")) as db:
        db.execute("pragma synchronous = off")
        migrate(db)
    return template


def storms(tmp_path: Path, numbers: range, monkeypatch) -> Counter[str]:
    monkeypatch.setattr(connection, "Connection", MortalConnection)
    template, seen = empty(tmp_path), Counter()
    for number in numbers:
        try:
            seen += storm(template, tmp_path, number)
        except BaseException as error:
            error.add_note(f"storm {number}")
            raise
    return seen
