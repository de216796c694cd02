"""Whole nights with faults by chance, for test_nights.py: a virtual machine, repository and engine, a real queue.

A process is killed before a statement: then its connection does nothing any more, and SQLite takes back what was open.
"""

from __future__ import annotations

import hashlib
import os
import random
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from rotary_batch.core import (
    Completion,
    ErrorClass,
    Failure,
    Request,
    StepReport,
    Subject,
    Unit,
    ValidationResult,
    Verdict,
    WorkItem,
)
from rotary_batch.errors import DeviceMemoryError
from rotary_batch.testing import FakeEngine
from rotary_batch.work.connection import Connection
from rotary_batch.work.rows import Claim, Finished, PlannedItem
from rotary_batch.work.store import WorkStore

POISON, KILLER = 900_001, 900_002  # the first token of a prompt that is refused, and of one that kills the engine
NEW_TOKENS, ANSWER_TOKENS = 6, 5


class KilledError(BaseException):
    """This process is gone."""


class MortalConnection(Connection):
    """Dies before a statement."""

    statements_left: int | None = None
    is_dead = False
    tells: int | None = None  # a descriptor that gets the number of answers after each commit

    def execute(self, sql, parameters=(), /):
        self._live_on()
        cursor = super().execute(sql, parameters)
        if self.tells is not None and sql == "commit":
            os.write(self.tells, b"%d\n" % self.ask("select count(*) from result")[0][0])
        return cursor

    def executemany(self, sql, parameters, /):
        self._live_on()
        return super().executemany(sql, parameters)

    def _live_on(self) -> None:
        if self.statements_left is not None and not self.is_dead:
            self.statements_left -= 1
            self.is_dead = self.statements_left <= 0
        if self.is_dead:
            raise KilledError

    def ask(self, sql: str, *parameters: object) -> list[sqlite3.Row]:
        """For the laws, at no cost."""
        return sqlite3.Connection.execute(self, sql, parameters).fetchall()


class Sources:
    """A repository: of each file the content of its chunks."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.files = {f"f{number}.py": self._chunks() for number in range(3)}

    def _chunks(self) -> list[int]:
        odd = {0: [POISON], 1: [KILLER]}.get(self.chance.randrange(12), [])
        return [*odd, *(self.chance.randrange(40) for _ in range(self.chance.randint(1, 3)))]

    def edit(self) -> None:
        """A changed, a new or a gone file; some contents come back."""
        path = f"f{self.chance.randrange(5)}.py"
        if path in self.files and len(self.files) > 1 and self.chance.random() < 0.3:
            del self.files[path]
        else:
            self.files[path] = self._chunks()

    def planned(self) -> list[PlannedItem]:
        items = [PlannedItem(subject=Subject(Unit.REPOSITORY, ""), parent=None, max_new_tokens=NEW_TOKENS)]
        for place, (path, contents) in enumerate(sorted(self.files.items())):
            file = Subject(Unit.FILE, path)
            items.append(PlannedItem(subject=file, parent=items[0].subject, position=place, max_new_tokens=NEW_TOKENS))
            items += [
                PlannedItem(
                    subject=Subject(Unit.CHUNK, path, span=(number, number + 1)),
                    parent=file,
                    position=number,
                    max_new_tokens=NEW_TOKENS,
                    key=f"{path} {number} {content}",
                    prompt_ids=(content, number, *path.encode()),
                )
                for number, content in enumerate(contents)
            ]
        return items


@dataclass
class Planner:
    """The part of the planner that a run needs; a roll-up asks about the answers below it."""

    store: WorkStore
    repository_id: int

    def reuse_answers(self) -> Iterator[list[WorkItem]]:
        for item_id in self.store.answered_before([self.repository_id]):
            yield [self._reuse(item_id, self.store.item(item_id).key)]

    def prepare(self) -> Iterator[list[WorkItem]]:
        while waiting := self.store.unblocked([self.repository_id]):
            for item in waiting:
                rows = self.store.db.execute(
                    "select shown_text from item where parent_id = ? order by position, id", [item.id]
                ).fetchall()
                digest = hashlib.sha256(f"{item.subject.identity} {[row[0] for row in rows]}".encode()).digest()
                if self.store.result(digest.hex()):
                    yield [self._reuse(item.id, digest.hex())]
                else:
                    self.store.make_ready(item.id, key=digest.hex(), prompt_ids=tuple(digest), num_markers=0)

    def _reuse(self, item_id: int, key: str) -> WorkItem:
        result = self.store.result(key)
        self.store.complete_reused(item_id, key, result, _shown(result.text))
        return self.store.item(item_id)

    def complete(self, claim: Claim, completion: Completion) -> Finished:
        text = " ".join(map(str, completion.token_ids))
        return Finished(claim=claim, completion=completion, text=text, validation=_shown(text))


def _shown(text: str) -> ValidationResult:
    return ValidationResult(verdict=Verdict.SHOWN, shown_text=text)


class Weather:
    """Which faults come; shared by all engines of a night."""

    def __init__(self, chance: random.Random, rate: float) -> None:
        self.chance, self.rate = chance, rate
        self.happened: Counter[str] = Counter()
        self.longest_s = 0.0
        self.began_late = False

    def fault(self) -> str:
        if self.chance.random() >= self.rate:
            return "none"
        return self.chance.choices(
            ["temporary", "in the way", "no memory", "dies", "bad model", "bad machine"], [6, 3, 2, 3, 1, 1]
        )[0]


class StormEngine(FakeEngine):
    """Takes its time, fails in every way, and is never asked what has an answer."""

    def __init__(self, machine, weather: Weather, db: MortalConnection) -> None:
        super().__init__(max_batch=4, answer_tokens=ANSWER_TOKENS)
        self.machine, self.weather, self.db = machine, weather, db

    def admit(self, request: Request) -> None:
        asked = "select key from item join result using (key) where item.id = ?"
        assert self.db.ask(asked, request.request_id) == [], "it is done twice"
        assert list(request.generated_ids) == self.truth(request)[: len(request.generated_ids)], "tokens of another"
        super().admit(request)

    def truth(self, request: Request) -> list[int]:
        return [self._token(request, place) for place in range(ANSWER_TOKENS)]

    def step(self) -> StepReport:
        weather, kind = self.weather, self.weather.fault()
        weather.began_late |= bool(self.machine.deadlines) and self.machine.left_s() <= 0
        began = self.machine.awake_s
        self.machine.work(weather.chance.uniform(1.0, 60.0))
        step_s = self.machine.awake_s - began
        weather.longest_s = max(weather.longest_s, step_s)
        if self._first_with(KILLER) is not None:
            raise RuntimeError("killed by what it read")
        poison = self._first_with(POISON)
        if poison is None and kind != "none":
            weather.happened[kind] += 1
        if poison is None and kind == "no memory":
            raise DeviceMemoryError("no memory")
        if poison is None and kind == "dies":
            raise RuntimeError("it just died")
        failures = self._failed("refused", poison) if poison is not None else self._failed(kind, None)
        return replace(super().step(), step_s=step_s, failures=failures)

    def _first_with(self, token: int) -> int | None:
        return next((one for one, (asked, _) in self._live.items() if asked.prompt_ids[0] == token), None)

    def _failed(self, kind: str, request_id: int | None) -> tuple[Failure, ...]:
        classes = {
            "refused": ErrorClass.BAD_ITEM,
            "temporary": ErrorClass.TEMPORARY,
            "in the way": ErrorClass.TEMPORARY,
            "bad model": ErrorClass.BAD_MODEL,
            "bad machine": ErrorClass.BAD_MACHINE,
        }
        if kind not in classes:
            return ()
        chosen = request_id if request_id is not None else self.weather.chance.choice(list(self._live))
        del self._live[chosen]
        return (Failure(request_id=chosen, error=kind, error_class=classes[kind], is_attempt=kind != "in the way"),)


def answers(db: MortalConnection) -> dict[tuple[str, str], tuple[str, str, str | None]]:
    """Of each item: how it ended, its key and what is shown."""
    rows = db.ask("select unit, subject, state, key, shown_text from item")
    return {(row["unit"], row["subject"]): (row["state"], row["key"], row["shown_text"]) for row in rows}


def results(db: MortalConnection) -> dict[str, bytes]:
    return {row["key"]: row["token_ids"] for row in db.ask("select key, token_ids from result")}


def epochs(db: MortalConnection) -> dict[tuple[int, str, str], int]:
    """Of each item; an id is used again once its item is gone."""
    rows = db.ask("select id, unit, subject, epoch from item")
    return {(row["id"], row["unit"], row["subject"]): row["epoch"] for row in rows}


def subjects(planned: Sequence[PlannedItem]) -> set[tuple[str, str]]:
    return {item.subject.identity for item in planned}
