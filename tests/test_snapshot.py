"""A snapshot holds what the index knows, and nothing of the queue or of the machine; the queue goes on meanwhile."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rotary_batch.cli import app
from rotary_batch.commands.database import database_path, reading, writing
from rotary_batch.config import Settings
from rotary_batch.work import snapshot

CODE = {
    "a/one.py": '"""First."""\n\n\ndef use_two():\n    return two()\n\n\ndef two():\n    """Second."""\n    return 2\n',
    "b.go": "package b\n\n// Third is one.\nfunc Third() int { return 3 }\n",
}
TABLES = ["call", "file", "item", "page", "repository", "search", "search_entry", "symbol"]
VIEWS = ["coverage", "cost", "graph", "parked", "stale"]


def run(*arguments: object, code: int = 0) -> str:
    done = CliRunner().invoke(app, list(map(str, arguments)))
    assert done.exit_code == code, (arguments, done.output, done.exception)
    return done.stdout


def refused(*arguments: object) -> BaseException:
    error = CliRunner().invoke(app, list(map(str, arguments))).exception
    assert error is not None
    return error


def rows(path: Path, query: str) -> list[tuple[object, ...]]:
    db = sqlite3.connect(path)
    try:
        return db.execute(query).fetchall()
    finally:
        db.close()


@pytest.fixture
def indexed(make_repository) -> Path:
    root = make_repository(CODE, "secret-place/project")
    run("index", root)
    with writing(Settings(), create=False) as store:
        store.db.execute(
            "update item set state = 'parked', error = ? || '/a/one.py: cannot be read' where unit = 'file'",
            [str(root)],
        )
    return root


def test_a_snapshot_has_the_answers_and_views_of_the_database(indexed, tmp_path):
    file = tmp_path / "out.db"
    run("export", "--sqlite", file)
    own = "name not like 'search\\_%' escape '\\' and name not like 'sqlite%' or name = 'search_entry'"
    names = rows(
        file, f"select type, name from sqlite_master where type in ('table', 'view') and ({own}) order by name"
    )
    assert [name for kind, name in names if kind == "table"] == sorted(TABLES)
    assert [name for kind, name in names if kind == "view"] == sorted(VIEWS)
    queries = [f"select * from {view} order by 1, 2, 3, 4" for view in VIEWS if view != "parked"]
    queries += [f"select * from {table} order by 1, 2, 3, 4" for table in ("symbol", "call")]
    queries += ["select rowid from search where search match 'second OR third' order by rowid"]
    for query in queries:
        assert rows(file, query) == rows(database_path(Settings()), query), query
    assert len(rows(file, "select * from graph")) == 1
    assert rows(file, "select distinct error from parked") == [("REPO/a/one.py: cannot be read",)]


def test_a_snapshot_is_private_and_tells_nothing_of_the_machine_or_the_queue(indexed, tmp_path):
    file = tmp_path / "out.db"
    run("export", "--sqlite", file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    data = file.read_bytes()
    assert [word for word in (b"secret-place", os.fsencode(Path.home()), b"embedded/") if word in data] == []
    columns = {name for table in TABLES for _, name, *_ in rows(file, f"pragma table_info({table})")}
    assert columns & {"root", "pack_dir", "docs_dir", "plan_key", "key", "epoch", "run_id", "pid", "token_ids"} == set()
    run("export", "--sqlite", file, "--mode", "644")
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def test_a_snapshot_holds_the_repositories_that_are_named(indexed, make_repository, tmp_path):
    other = make_repository({"c.py": "def four():\n    return 4\n"}, "other")
    run("index", other)
    run("export", other, "--sqlite", tmp_path / "other.db")
    run("export", "--sqlite", tmp_path / "all.db")
    names = "select distinct repository from coverage order by 1"
    assert rows(tmp_path / "other.db", names) == [("other",)]
    assert rows(tmp_path / "all.db", names) == [("other",), ("project",)]
    assert rows(tmp_path / "other.db", "select qualified_name from search_entry where kind = 'function'") == [("four",)]


def test_only_a_snapshot_is_replaced(indexed, tmp_path):
    for path in (tmp_path / "mine.txt", database_path(Settings()), tmp_path / "folder", tmp_path / "link"):
        if path.name == "mine.txt":
            path.write_text("mine")
        elif path.name == "folder":
            path.mkdir()
        elif path.name == "link":
            run("export", "--sqlite", tmp_path / "goal.db")
            path.symlink_to(tmp_path / "goal.db")
        assert "is not a snapshot of rotary-batch" in str(refused("export", "--sqlite", path))
    assert (tmp_path / "mine.txt").read_text() == "mine"
    assert refused("export", "--sqlite", tmp_path / "no" / "out.db").exit_code == 74
    assert refused("export", "--sqlite", tmp_path / "x.db", "--mode", "9").exit_code == 2
    assert refused("export", "--sqlite", tmp_path / "x.db", "--mode", "1777").exit_code == 2
    assert "application id" in str(refused("status", "--db", tmp_path / "goal.db"))


def test_a_driver_commits_while_a_snapshot_is_copied(indexed, tmp_path, monkeypatch):
    """The copy is made in steps, and a change between two of them is in it or makes it begin again."""
    monkeypatch.setattr(snapshot, "_PAGES_A_STEP", 1)
    monkeypatch.setattr(snapshot, "_PAUSE_S", 0.01)
    script = (
        "import sys, time, sqlite3\ndb = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=0.0)\n"
        "print('ready', flush=True); sys.stdin.readline()\nend, n, late = time.monotonic() + 1.5, 0, 0\n"
        "while time.monotonic() < end:\n"
        '    try:\n        db.execute("update item set priority = ?", [n]); n += 1\n'
        "    except sqlite3.OperationalError: late += 1\n"
        "    time.sleep(0.02)\nprint(n, late)"
    )
    command = [sys.executable, "-c", script, str(database_path(Settings()))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        writer.stdout.readline()
        writer.stdin.write("go\n")
        writer.stdin.flush()
        file = tmp_path / "copy.db"
        with reading(Settings()) as store:
            snapshot.copy_database(store, file)
        commits, late = map(int, writer.stdout.read().split())
    assert commits > 20
    assert late < commits / 2
    assert rows(file, "pragma integrity_check") == [("ok",)]


def test_a_change_while_copying_begins_the_copy_again_and_the_last_try_holds_the_lock(indexed, tmp_path, monkeypatch):
    monkeypatch.setattr(snapshot, "_PAGES_A_STEP", 1)
    steps: list[int] = []
    make = snapshot._refuse_restart

    def refuse_restart():
        progress = make()

        def wrapped(status: int, remaining: int, total: int) -> None:
            steps.append(remaining)
            if len(steps) % 5 == 0:
                with sqlite3.connect(database_path(Settings())) as db:
                    db.execute("update item set priority = priority + 1")
                db.close()
            progress(status, remaining, total)

        return wrapped

    monkeypatch.setattr(snapshot, "_refuse_restart", refuse_restart)
    with reading(Settings()) as store:
        snapshot.copy_database(store, tmp_path / "copy.db")
    assert 10 <= len(steps) < 20
    assert rows(tmp_path / "copy.db", "pragma integrity_check") == [("ok",)]


def test_a_full_disk_leaves_the_old_snapshot(indexed, tmp_path, monkeypatch):
    file = tmp_path / "out.db"
    run("export", "--sqlite", file)
    before = file.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "x")

    monkeypatch.setattr("rotary_batch.commands.export.write_snapshot", full)
    assert "No space left" in str(refused("export", "--sqlite", file))
    assert (file.read_bytes(), list(tmp_path.glob(".out*"))) == (before, [])
