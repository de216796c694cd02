"""Break one call of the operating system after the other, each in a process of its own, and say what was left.

    LD_PRELOAD=shim.so python sweep.py FOLDER SCENARIO JOURNAL STRIDE FAULT:FIRST...

SCENARIO is `claim`, `commit`, `pages` or `migrate`.  The calls FIRST, FIRST + STRIDE, ... are broken until an action
makes fewer calls.  Prints JSON for each fault: how many calls were broken, and what was wrong.  All cases are forks of one process.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1] / "work"))

from test_store import ROW, chunk, claim_all, finished, open_store

from rotary_batch.core import NewTokens
from rotary_batch.errors import RotaryError
from rotary_batch.pages.files import SyncResult, inventory, remove_others, sync_pages
from rotary_batch.pages.front import seal
from rotary_batch.pages.safe_folder import open_safe_folder
from rotary_batch.testing import plan_items
from rotary_batch.work import connection
from rotary_batch.work.connection import explained, open_database
from rotary_batch.work.index import save_repository
from rotary_batch.work.runs import start_run
from rotary_batch.work.schema import migrate
from rotary_batch.work.store import WorkStore

FAULTS = {"eio": 1, "enospc": 2, "eintr": 3, "short": 4, "kill": 5, "full": 6}
DONE, REFUSED, SURPRISED = 0, 1, 2
SCHEMA_3 = Path(__file__).parents[1] / "work" / "schema3.sql"
PAGES = ("a.md", "b.md", "src/c.md")
OLD, NEW = ({path: seal({"title": path}, [], f"{word} " * 900) for path in PAGES} for word in ("old", "new"))


class Scenario(NamedTuple):
    """One thing that is done to a folder, and what the folder may hold when it was not done whole."""

    prepare: Callable[[Path], None]
    act: Callable[[Path], None]
    state: Callable[[Path], object]
    is_atomic: bool = True  # done or not done; else doing it again mends what was half done


def dump(folder: Path) -> list[str]:
    """The database as SQL; also takes back what a killed process left half done."""
    db = sqlite3.connect(folder / "work.db")
    try:
        assert db.execute("pragma integrity_check").fetchall() == [("ok",)]
        return [f"version {db.execute('pragma user_version').fetchone()[0]}", *db.iterdump()]
    finally:
        db.close()


claims = []  # of the template, which every copy has too


def queue(folder: Path) -> None:
    store = open_store(folder / "work.db", connection.journal_mode_for(()))
    save_repository(store, ROW)
    plan_items(store, 1, "summarize", [chunk(n, parent=None) for n in range(4)], {"a.py"})
    start_run(store, command="drain", model_name="m", pid=1)
    claims[:] = claim_all(store, 1, 2)
    store.db.close()


def opened(folder: Path) -> WorkStore:
    return WorkStore(open_database(folder / "work.db"))


def claim(folder: Path) -> None:
    store = opened(folder)
    claim_all(store, 1, 2)
    store.db.close()


def commit(folder: Path) -> None:
    store = opened(folder)
    new = NewTokens(request_id=claims[0].item.id, token_ids=(5,), logprob_sum=-1.0)
    store.commit_step([(claims[0].lease, new)], [finished(claims[1])], [])
    store.db.close()


def old_database(folder: Path) -> None:
    db = sqlite3.connect(folder / "work.db", isolation_level=None)
    db.executescript(SCHEMA_3.read_text())
    db.execute(f"pragma journal_mode = {connection.journal_mode_for(())}")
    db.close()


def migrate_all(folder: Path) -> None:
    db = open_database(folder / "work.db")
    with explained(folder / "work.db"):
        migrate(db)
    db.close()


def write_pages(folder: Path, pages: dict[str, bytes]) -> None:
    with open_safe_folder(folder, "docs", create=True) as docs:
        files, result = inventory(docs), SyncResult()
        sync_pages(docs, sorted(pages.items()), result)
        remove_others(docs, files, set(pages), result)
    if result.failed:
        raise RotaryError(result.failed)


def pages_of(folder: Path) -> dict[str, bytes]:
    docs = folder / "docs"
    found = {str(path.relative_to(docs)): path.read_bytes() for path in docs.rglob("*") if path.is_file()}
    assert all(found[path] in (OLD[path], NEW[path]) for path in PAGES), "each page is the old or the new one"
    return found


SCENARIOS = {
    "claim": Scenario(queue, claim, dump),
    "commit": Scenario(queue, commit, dump),
    "migrate": Scenario(old_database, migrate_all, dump, is_atomic=False),
    "pages": Scenario(
        lambda folder: write_pages(folder, OLD), lambda folder: write_pages(folder, NEW), pages_of, is_atomic=False
    ),
}


class Outcome(NamedTuple):
    """How a process ended whose n-th call was broken."""

    code: int  # negative: the signal that ended it
    calls: int
    hit: str  # which call it was
    error: str


def in_a_process(act: Callable[[Path], None], folder: Path, at: int = 0, fault: int = 0) -> Outcome:
    reader, writer = os.pipe()
    if pid := os.fork():
        os.close(writer)
        with os.fdopen(reader) as said:
            calls, hit, error = json.loads(said.read() or '[0, "", ""]')
        return Outcome(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), calls, hit, error)
    code, error = SURPRISED, ""
    shim.fault_arm(at, fault)
    try:
        act(folder)
        code = DONE
    except RotaryError as refused:
        code, error = REFUSED, str(refused)
    except BaseException as surprise:  # noqa: BLE001 - what should not come up here is told
        error = repr(surprise)
    calls, hit = shim.fault_calls(), shim.fault_hit().decode()
    shim.fault_arm(0, 0)
    os.write(writer, json.dumps([calls, hit, error]).encode())
    os._exit(code)


def sweep(base: Path, name: str, fault: str, first: int, stride: int) -> dict:
    scenario = SCENARIOS[name]
    template, case = base / "template", base / "case"
    template.mkdir(parents=True)
    scenario.prepare(template)
    before = scenario.state(template)
    calm = copied(template, base / "calm")
    assert in_a_process(scenario.act, calm).code == DONE
    after, wrong, at = scenario.state(calm), [], first
    while True:
        copied(template, case)
        outcome = in_a_process(scenario.act, case, at, FAULTS[fault])
        if outcome.calls < at and outcome.code >= 0:
            return {"cases": len(range(first, at, stride)), "wrong": wrong, "clean": outcome.code == DONE}
        try:
            check(scenario, case, outcome, before, after, fault)
        except AssertionError as error:
            wrong.append(f"{name}, {fault} at call {at} ({outcome.hit}): {error}; {outcome}")
        at += stride


def check(scenario: Scenario, case: Path, outcome: Outcome, before: object, after: object, fault: str) -> None:
    """What holds after every fault, and when the same is done again."""
    assert outcome.code in {DONE, REFUSED, -signal.SIGKILL}, "it ended with an error that nobody explained"
    log = case / "work.db-wal"  # synced at the commit; a checkpoint that fails at the end leaves it
    is_kept = outcome.code == REFUSED or (log.exists() and log.stat().st_size > 0)
    assert fault != "eio" or outcome.hit != "sync" or is_kept, "what is not synced is not done"
    assert fault not in {"eintr", "short"} or outcome.hit != "write" or outcome.code == DONE, "it is tried again"
    left = scenario.state(case)
    assert outcome.code != DONE or left == after, "it said that it was done"
    assert not scenario.is_atomic or left in (before, after), "it is done in part"
    if left != after:
        assert in_a_process(scenario.act, case).code == DONE, "it cannot be done again"
    assert scenario.state(case) == after, "it is not what an undisturbed run leaves"


def copied(template: Path, target: Path) -> Path:
    shutil.rmtree(target, ignore_errors=True)
    return Path(shutil.copytree(template, target))


if __name__ == "__main__":
    shim = ctypes.CDLL(os.environ["LD_PRELOAD"])
    shim.fault_hit.restype = ctypes.c_char_p
    folder, scenario_name, journal, stride_calls, *given = sys.argv[1:]
    connection.journal_mode_for = lambda _: journal
    answers = []
    for fault_name, first_call in (one.split(":") for one in given):
        base = Path(folder) / fault_name
        answers.append(sweep(base, scenario_name, fault_name, int(first_call), int(stride_calls)))
        shutil.rmtree(base)
    sys.stdout.write(json.dumps(answers) + "\n")
