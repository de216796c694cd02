"""The database file: which journal, whose file, and what happens while other programs have it open."""

from __future__ import annotations

import logging
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from test_store import ROW, chunk, claim_all, open_store

from rotary_batch.commands.database import reading, writing
from rotary_batch.config import Settings
from rotary_batch.core import NewTokens
from rotary_batch.errors import BusyError, ConfigError, DatabaseError, StoppedError
from rotary_batch.testing import plan_items
from rotary_batch.work import patience
from rotary_batch.work.connection import explained, journal_mode_for, open_database
from rotary_batch.work.index import repositories, save_repository
from rotary_batch.work.runs import start_run
from rotary_batch.work.schema import migrate
from rotary_batch.work.store import WorkStore

# Another program that looks into a database and keeps its transaction open until it is told to end.
PIN = (
    "import sqlite3, sys; db = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
    "db.execute('begin'); db.execute('select * from repository').fetchall(); print('pinned', flush=True); sys.stdin.read()"
)


def pin(database: Path) -> subprocess.Popen:
    child = subprocess.Popen(
        [sys.executable, "-c", PIN, str(database)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    child.stdout.readline()
    return child


@pytest.fixture
def logged(caplog):
    """The events that were logged."""
    caplog.set_level(logging.INFO, "rotary_batch")
    return lambda: [(record.getMessage(), record.fields) for record in caplog.records]


@pytest.mark.parametrize(
    ("version", "mode"),
    [
        ((3, 40, 1), "delete"),
        ((3, 44, 5), "delete"),
        ((3, 44, 6), "wal"),
        ((3, 45, 0), "delete"),
        ((3, 50, 6), "delete"),
        ((3, 50, 7), "wal"),
        ((3, 51, 2), "delete"),
        ((3, 51, 3), "wal"),
        ((3, 52, 0), "wal"),
    ],
)
def test_wal_only_where_its_bug_is_fixed(version, mode):
    assert journal_mode_for(version) == mode


def test_a_database_of_a_newer_program_and_a_foreign_one_are_refused(tmp_path):
    store = open_store(tmp_path / "work.db")
    store.db.execute("pragma user_version = 99")
    with pytest.raises(ConfigError, match="schema 99"):
        migrate(store.db)
    store.db.close()
    other = sqlite3.connect(tmp_path / "other.db")
    other.execute("pragma application_id = 7")
    other.execute("create table t (x)")
    other.close()
    with pytest.raises(ConfigError, match="not a rotary-batch database"):
        open_database(tmp_path / "other.db")
    (tmp_path / "text.db").write_text("no database at all, but long enough to be looked at " * 40)
    with pytest.raises(ConfigError, match="not a rotary-batch database"):
        open_database(tmp_path / "text.db")


def test_a_database_of_another_file_format_is_called_damaged(tmp_path):
    """SQLite reports it as an error of the statement."""
    path = tmp_path / "work.db"
    open_store(path).db.close()
    damaged = bytearray(path.read_bytes())
    damaged[44:48] = (9).to_bytes(4, "big")  # the schema format number: SQLite knows 1 to 4
    path.write_bytes(damaged)
    with pytest.raises(DatabaseError, match=r"work.db: unsupported file format: damaged; put back a copy"):
        open_database(path)


def test_a_commit_waits_for_whoever_reads_and_then_goes_on(tmp_path, logged):
    """With a rollback journal a reader holds up every commit; SQLite's own patience is long over when it leaves."""
    store = open_store(tmp_path / "work.db")
    save_repository(store, ROW)
    plan_items(store, 1, "summarize", [chunk(1, parent=None)], {"a.py"})
    (claim,) = claim_all(store, run := start_run(store, command="drain", model_name="m", pid=1))
    reader = pin(tmp_path / "work.db")
    threading.Timer(6 * patience.BUSY_TIMEOUT_MS / 1000, reader.communicate).start()
    store.commit_step([(claim.lease, NewTokens(request_id=1, token_ids=(7,), logprob_sum=-1.0))], [], [])
    reader.wait()
    (locked, by), (free, waited) = logged()
    assert (locked, by["by"].startswith(f"process {reader.pid} (")) == ("database locked", True)
    assert (free, waited["waited_s"] >= 5 * patience.BUSY_TIMEOUT_MS / 1000) == ("database free", True)
    store.reap(run + 1)
    assert claim_all(store, run + 1)[0].request.generated_ids == (7,)
    store.db.close()


def test_a_reader_that_never_leaves_is_named_and_nothing_is_half_done(tmp_path, monkeypatch):
    store = open_store(tmp_path / "work.db")
    save_repository(store, ROW)
    reader, store.db.patience_s = pin(tmp_path / "work.db"), 0.5
    with pytest.raises(BusyError, match=f"process {reader.pid} .*has kept it locked for 0 s; close that program"):
        start_run(store, command="drain", model_name="m", pid=1)
    reader.communicate()
    assert not store.db.in_transaction
    assert store.db.execute("select count(*) from run").fetchone()[0] == 0
    assert start_run(store, command="drain", model_name="m", pid=1) == 1
    store.db.close()


def test_a_window_that_closes_ends_the_wait(tmp_path, monkeypatch):
    monkeypatch.setattr(patience, "GRACE_S", 3.0)
    closed: list[bool] = []
    db = open_database(tmp_path / "work.db", journal_mode="delete", should_stop=lambda: bool(closed))
    migrate(db)
    store = WorkStore(db)
    save_repository(store, ROW)
    reader = pin(tmp_path / "work.db")
    threading.Timer(0.7, closed.append, [True]).start()
    began = time.monotonic()
    with pytest.raises(StoppedError, match=f"process {reader.pid} .*kept it locked until the window closed"):
        start_run(store, command="drain", model_name="m", pid=1)
    assert time.monotonic() - began > 3.6
    began = time.monotonic()
    with pytest.raises(StoppedError):
        start_run(store, command="drain", model_name="m", pid=1)
    assert time.monotonic() - began < 2.9, "the grace is one for all that is left to do"
    reader.communicate()
    assert start_run(store, command="drain", model_name="m", pid=1) == 1
    db.close()


def test_a_foreign_writer_is_waited_for_too(tmp_path, logged):
    store = open_store(tmp_path / "work.db")
    other = sqlite3.connect(tmp_path / "work.db", isolation_level=None, check_same_thread=False)
    other.execute("begin exclusive")
    threading.Timer(0.6, other.execute, ["rollback"]).start()
    assert repositories(store) == []
    assert [name for name, _ in logged()] == ["database locked", "database free"]
    other.close()
    store.db.close()


def test_each_refusal_of_the_disk_has_its_own_words(tmp_path):
    store = open_store(tmp_path / "work.db")
    save_repository(store, ROW)
    store.db.execute("pragma max_page_count = 1")
    with pytest.raises(DatabaseError, match=r"SQLITE_FULL.*the disk is full; free some space"):
        plan_items(store, 1, "summarize", [chunk(n, parent=None) for n in range(500)], {"a.py"})
    store.db.execute("pragma max_page_count = 1000000")
    assert store.db.execute("select count(*) from item").fetchone()[0] == 0
    store.db.execute("pragma query_only = on")
    with pytest.raises(DatabaseError, match=r"SQLITE_READONLY.*cannot be written; check its permissions"):
        start_run(store, command="drain", model_name="m", pid=1)
    store.db.close()
    with pytest.raises(DatabaseError, match=r"SQLITE_CANTOPEN.*check its folder"), explained(tmp_path / "work.db"):
        sqlite3.connect(f"file:{tmp_path}/none.db?mode=ro", uri=True)


def test_a_mistake_of_ours_is_not_called_damage(tmp_path):
    for query, kind in [("select nothing", sqlite3.OperationalError), ("select ?", sqlite3.ProgrammingError)]:
        with pytest.raises(kind), explained(tmp_path / "work.db"):
            sqlite3.connect(":memory:").execute(query)


def test_what_a_killed_run_left_half_done_is_taken_back_by_whoever_comes_next(tmp_path):
    """A journal that has to be rolled back cannot be by a reader, and `status` may be the first to come."""
    settings = Settings(db=tmp_path / "work.db")
    with writing(settings) as store:
        save_repository(store, ROW)
    script = (
        "import os, sqlite3, sys; db = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "db.execute('pragma cache_size = 5'); db.execute('begin immediate')\n"
        "db.executemany('insert into run (started_at, pid, command) values (?, 1, ?)', [('now', 'x' * 900)] * 2000)\n"
        "os.kill(os.getpid(), 9)"
    )
    child = subprocess.run([sys.executable, "-c", script, str(tmp_path / "work.db")])
    assert child.returncode == -signal.SIGKILL
    assert (tmp_path / "work.db-journal").stat().st_size > 0
    with reading(settings) as store:
        assert store.db.execute("select count(*) from run").fetchone()[0] == 0
        assert [row.root for row in repositories(store)] == ["/r"]


def test_a_reader_that_takes_back_what_was_half_done_is_no_driver(tmp_path, monkeypatch):
    """A driver that begins in the meantime waits instead of being refused."""
    path, half_done, seen = tmp_path / "work.db", [True], []
    open_store(path).db.close()
    ask = "import sys; from pathlib import Path; from rotary_batch.work.lock import holder, recovery_lock\n"
    ask += "print(holder(Path(sys.argv[1])))\nwith recovery_lock(Path(sys.argv[1])): pass"

    def recover(*arguments, **options):
        if half_done:
            half_done.clear()
            seen.append(subprocess.run([sys.executable, "-c", ask, str(path)], capture_output=True, text=True))
        return open_database(*arguments, **options)

    monkeypatch.setattr("rotary_batch.commands.database.needs_recovery", lambda _: bool(half_done))
    monkeypatch.setattr("rotary_batch.commands.database.open_database", recover)
    with reading(Settings(db=path)):
        pass
    (done,) = seen
    assert done.stdout == "None\n"
    assert f"(process {os.getpid()})" in done.stderr


def test_opening_a_database_again_does_not_give_up_its_locks(tmp_path):
    """Closing any descriptor of the file would drop the record locks that SQLite has on it."""
    store = open_store(tmp_path / "work.db")
    with store.transaction():
        open_database(tmp_path / "work.db", journal_mode="delete").close()
        script = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('begin immediate')"
        done = subprocess.run([sys.executable, "-c", script, str(tmp_path / "work.db")], capture_output=True, text=True)
        assert "database is locked" in done.stderr
    store.db.close()
