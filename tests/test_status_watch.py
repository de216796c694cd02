"""`status --watch` holds no read transaction: a write-ahead log is emptied, and a rollback journal is free, meanwhile."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from rotary_batch.config import state_dir
from rotary_batch.work.connection import open_database
from rotary_batch.work.schema import migrate
from tests.terminal_run import CTRL_C, TerminalRun


@pytest.fixture(params=["wal", "delete"])
def database(request) -> Path:
    path = state_dir(os.environ) / "work.db"
    with closing(open_database(path, journal_mode=request.param)) as db:
        migrate(db)
        if request.param == "wal":  # the last connection that closes removes the log: keep one open
            yield path
            return
    yield path


def commit(connection: sqlite3.Connection, count: int) -> None:
    for number in range(count):
        connection.execute(
            "insert into run (started_at, ended_at, pid, command, outcome) values ('2026-11-28', '2026-11-28', ?, ?, 'done')",
            [number, "x" * 1000],
        )


def is_emptied(connection: sqlite3.Connection, path: Path) -> bool:
    """Whether the write-ahead log can be emptied: nobody reads an older state."""
    busy, *_ = connection.execute("pragma wal_checkpoint(truncate)").fetchone()
    log = path.with_name(f"{path.name}-wal")
    return not busy and not (log.is_file() and log.stat().st_size)


def test_what_is_watched_can_be_written_and_its_log_emptied(database):
    with closing(sqlite3.connect(database, isolation_level=None, timeout=0.2)) as writer:
        commit(writer, 1)
        watch = TerminalRun("status", "--watch", columns=80)
        watch.read_until("No drain is running.")
        for _ in range(3):  # screens
            seen = watch.text.count("No drain is running.")
            while watch.text.count("No drain is running.") == seen:
                watch._read()
            commit(writer, 200)
            emptied = False
            for _ in range(20):  # one try may meet the moment in which it reads
                emptied = emptied or is_emptied(writer, database)
                time.sleep(0 if emptied else 0.05)
            assert emptied
        watch.press(CTRL_C)
        assert watch.end() == 0

        with closing(sqlite3.connect(database, isolation_level=None)) as reader:  # the test can tell
            reader.execute("begin")
            reader.execute("select count(*) from run").fetchone()
            is_wal = writer.execute("pragma journal_mode").fetchone()[0] == "wal"
            if is_wal:
                commit(writer, 1)
                assert not is_emptied(writer, database)
            else:
                with pytest.raises(sqlite3.OperationalError, match="locked"):
                    commit(writer, 1)
