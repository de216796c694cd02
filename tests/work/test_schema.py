"""Databases of earlier versions come up to date, whatever happens meanwhile."""

from __future__ import annotations

import os
import signal
import sqlite3
from pathlib import Path

import pytest
from test_counts import check_counts
from test_store import claim_all

from rotary_batch.core import Verdict
from rotary_batch.errors import ConfigError
from rotary_batch.work import connection
from rotary_batch.work.connection import open_database
from rotary_batch.work.counts import open_items, parked_items, states, verdicts
from rotary_batch.work.index import load_files, repositories, stored_symbols
from rotary_batch.work.runs import start_run
from rotary_batch.work.schema import MIGRATIONS, migrate, require_current
from rotary_batch.work.store import WorkStore

SCHEMA_3 = (
    Path(__file__).parent / "schema3.sql"
)  # a dump of a database in mid-run, made by the last program that had it


class Mortal(connection.Connection):
    """Ends its process before the statement whose number is given."""

    left = 0

    def execute(self, sql, parameters=(), /):
        Mortal.left -= 1
        if not Mortal.left:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().execute(sql, parameters)


def migrate_and_die(path: Path, statement: int) -> int:
    """Migrate in a process of its own; its exit status."""
    if not (child := os.fork()):
        try:
            Mortal.left, connection.Connection = statement, Mortal
            migrate(open_database(path))
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.fixture
def old(tmp_path) -> Path:
    path = tmp_path / "old.db"
    db = sqlite3.connect(path, isolation_level=None)
    db.executescript(SCHEMA_3.read_text())
    db.close()
    return path


def dump(path: Path) -> list[str]:
    db = sqlite3.connect(path)
    try:
        version = db.execute("pragma user_version").fetchone()[0]
        return [f"version {version}", *db.iterdump()]
    finally:
        db.close()


def test_a_database_of_schema_3_goes_on_where_it_was(old):
    db = open_database(old)
    with pytest.raises(ConfigError, match=r"schema 3, this program knows [0-9]+; run"):
        require_current(db)
    migrate(db)
    require_current(db)
    store = WorkStore(db)
    check_counts(store)
    assert states(store, 1) == {
        "chunk": {"done": 3, "leased": 1, "parked": 1, "ready": 1},
        "directory": {"waiting": 1},
        "file": {"waiting": 4},
        "repository": {"waiting": 1},
    }
    assert (open_items(store, [1]), parked_items(store, [1, 2]), open_items(store, [1, 2])) == (8, 2, 9)
    assert verdicts(store, 1) == {Verdict.SHOWN: 3}
    assert [item.subject.text for item in store.unblocked([1])] == ["a.py#1", "a.py#2"]
    assert [row.root for row in repositories(store)] == ["/other", "/r"]
    assert (load_files(store, 1).docstrings, [symbol.docstring for symbol in stored_symbols(store, 1)]) == (
        {"a.py": "Mod."},
        ["D; with a semicolon."],
    )
    run = start_run(store, command="drain", model_name="m", pid=2)
    assert store.reap(run) == 1
    claims = claim_all(store, run)
    assert [(claim.item.subject.text, claim.request.generated_ids) for claim in claims] == [
        ("b.py@5-6", (3, 4)),
        ("b.py@6-7", ()),
    ]
    assert all(claim.read_tokens == len(claim.request.prompt_ids) for claim in claims)
    assert {(claim.request.shared_tokens, claim.request.stop.at_line_end) for claim in claims} == {(0, False)}
    assert [(row.job, row.job_by_name) for row in repositories(store)] == [("summarize", False)] * 2
    db.close()


@pytest.mark.parametrize("every", [12, pytest.param(1, marks=pytest.mark.faults)])
def test_a_migration_that_is_killed_at_any_statement_is_done_again_whole(every, old, tmp_path):
    calm = tmp_path / "calm.db"
    calm.write_bytes(old.read_bytes())
    db = open_database(calm)
    migrate(db)
    db.close()
    statement = 1
    while True:
        storm = tmp_path / f"storm{statement}.db"
        storm.write_bytes(old.read_bytes())
        code = migrate_and_die(storm, statement)
        db = open_database(storm)
        migrate(db)
        db.close()
        assert dump(storm) == dump(calm)
        if code == 0:
            break
        assert code == -signal.SIGKILL
        statement += every
    assert statement > 100, "it died before statements up to the end of the migration"


def test_an_index_of_an_earlier_version_is_read_again(tmp_path):
    """References of schema 2 had no receivers: what they meant was guessed."""
    db = open_database(tmp_path / "work.db")
    for script in MIGRATIONS[:2]:
        db.executescript(script)
    db.execute("pragma user_version = 2")
    db.execute(
        "insert into repository (root, name, worktree, docs_dir, model_name, pack_dir, plan_key, job)"
        " values ('/r', 'r', 0, 'd', 'm', '/p', 'k', 'j')"
    )
    migrate(db)
    assert [row.plan_key for row in repositories(WorkStore(db))] == [""]
    db.close()


def test_a_migration_that_fails_leaves_the_version_that_it_began_with(old, monkeypatch):
    broken = (*MIGRATIONS[:3], "create table new (x); create table item (x);")
    monkeypatch.setattr("rotary_batch.work.schema.MIGRATIONS", broken)
    before, db = dump(old), open_database(old)
    with pytest.raises(sqlite3.OperationalError, match="already exists"):
        migrate(db)
    db.close()
    assert dump(old) == before
