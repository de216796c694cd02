"""One command over several repositories: each for itself, one window for all, one exit code."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from test_cli import CODE, answer, docs_of, rotary

from rotary_batch import commands
from rotary_batch.commands import docs
from rotary_batch.commands.database import writing
from rotary_batch.commands.isolation import Failure, exit_code, isolated
from rotary_batch.config import Settings, bundled
from rotary_batch.errors import BusyError, DatabaseError, RepositoryError, StoppedError, StorageError
from rotary_batch.repo.git import GitCommit
from rotary_batch.testing import FakeEngine, FrozenClock
from rotary_batch.window import Deadline, Window
from rotary_batch.work import counts
from rotary_batch.work.lock import device_lock
from tests.in_process import drain_all, index_all


@pytest.mark.parametrize(
    ("codes", "code"),
    [
        ([], 0),
        ([0, 5], 5),
        ([75, 5], 75),
        ([0, 3, 75], 3),
        ([69, 3], 69),
        ([3, 74, 69], 74),
        ([75, 2], 2),
        ([75, 6, 0], 6),
    ],
)
def test_the_most_telling_code_wins(codes, code):
    assert exit_code(codes) == code


def test_what_concerns_one_repository_is_noted_once_and_what_concerns_all_ends_the_command():
    outcomes: list = []
    for _ in range(2):
        with isolated(["/a"], outcomes):
            raise RepositoryError("/a: not there")
    with isolated(["/b", "/c"], outcomes):
        raise PermissionError(13, "Permission denied", "/b/x")
    assert outcomes == [
        Failure(repository="/a", error="/a: not there", exit_code=3),
        *(Failure(repository=root, error="/b/x: Permission denied", exit_code=74) for root in ("/b", "/c")),
    ]
    with isolated(["/d"], alone := []):
        raise OSError("a text alone")
    assert [str(one) for one in alone] == ["/d: input or output: a text alone"]
    assert [str(one) for one in outcomes] == [
        "/a: not there",
        "/b/x: Permission denied",
        "/c: /b/x: Permission denied",
    ]
    for error in (DatabaseError("d"), BusyError("b"), ZeroDivisionError()):
        with pytest.raises(type(error)), isolated(["/a"], outcomes):
            raise error


def test_a_repository_that_fails_is_named_and_the_others_get_their_night(make_repository, tmp_path):
    """One is gone, of one the docs folder is a file, one has no commits; two are well."""
    good, other = make_repository(CODE), make_repository({"a.py": "def f(): pass\n"}, name="other")
    blocked = make_repository({"b.py": "def g(): pass\n", "rotary-docs": "a file\n"}, name="blocked")
    empty = tmp_path / "empty"
    subprocess.run(["git", "init", "-q", str(empty)], check=True)
    loop, odd = tmp_path / "loop", tmp_path / "odd\udcff"
    loop.symlink_to(loop)
    odd.mkdir()
    roots = [tmp_path / "gone", good, blocked, empty, loop, odd, other, good]
    outcomes = answer("run", *roots, code=3)
    failed = {one["repository"]: one["error"] for one in outcomes if "error" in one}
    assert failed.keys() == {
        *(str(tmp_path / name) for name in ("gone", "loop", "odd\\xff")),
        str(blocked),
        str(empty),
    }
    (outcome,) = [one for one in outcomes if "error" not in one]
    assert (outcome["outcome"], outcome["open"], outcome["parked"]) == ("done", 0, 0)
    for root in (good, other):
        assert "index.md" in docs_of(root)
        assert answer("status", root)["repositories"][0]["items"]["repository"] == {"done": 1}
    (report,) = (Path(os.environ["XDG_STATE_HOME"]) / "rotary-batch" / "reports").glob("*.json")
    assert {one["repository"] for one in json.loads(report.read_text())["failures"]} == failed.keys()
    done = rotary("drain", good, tmp_path / "gone", other)
    assert (done.returncode, f"{tmp_path / 'gone'}: no such folder" in done.stderr) == (3, True)


def test_a_repository_that_is_named_twice_is_taken_once(make_repository, tmp_path):
    """By its path, through a symbolic link, or both."""
    root, alias = make_repository(CODE), tmp_path / "alias"
    alias.symlink_to(root)
    answer("index", root)
    named = [root, root, alias]
    assert [one["root"] for one in answer("status", *named)["repositories"]] == [str(root)]
    (outcome,) = answer("drain", *named)
    assert (outcome["outcome"], outcome["done"], outcome["open"]) == ("done", 8, 0)


def test_a_repository_has_one_job_at_a_time_and_keeps_the_answers_of_others(make_repository, git, tmp_path):
    root, jobs = make_repository(CODE), tmp_path / "jobs"
    jobs.mkdir()
    small = (bundled("jobs") / "summarize-small.toml").read_text()
    summarize = small.replace('name = "summarize-small"', 'name = "summarize"')
    (jobs / "summarize.toml").write_text(summarize)
    (jobs / "two.toml").write_text(summarize.replace('name = "summarize"', 'name = "two"'))
    environment = {"ROTARY_BATCH_JOBS": str(jobs)}
    answer("index", root, **environment)
    (root / "pkg" / "wrap.py").write_text("def wrap(thing):\n    return (thing,)\n")
    git(root, "commit", "-qam", "change")
    (index,) = answer("index", root, "--job", "two", **environment)
    assert (index["queued"], index["removed"]) == (8, 8)
    items = [json.loads(line) for line in rotary("inspect", "items", root).stdout.splitlines()]
    assert {item["job"] for item in items} == {"two"}
    (outcome,) = answer("drain", root, **environment)
    assert (outcome["outcome"], outcome["done"], outcome["open"]) == ("done", 8, 0)
    database = Path(os.environ["XDG_STATE_HOME"]) / "rotary-batch" / "work.db"
    with contextlib.closing(sqlite3.connect(database)) as db, db:  # as earlier versions left it
        db.execute(
            """insert into item (repository_id, job, unit, subject, path, position, state, priority, max_new_tokens)
               values (1, 'summarize', 'chunk', 'pkg/wrap.py@0', 'pkg/wrap.py', 0, 'ready', 0, 9)"""
        )
    (index,) = answer("index", root, "--job", "two", **environment)
    assert (index["parsed"], index["queued"], index["removed"]) == (0, 0, 1)
    answer("index", root, "--job", "summarize", **environment)
    answer("index", root, "--job", "two", **environment)
    (outcome,) = answer("drain", root, **environment)
    assert (outcome["done"], outcome["reused"]) == (0, 8), "answers are kept by what was asked"


def test_a_repository_keeps_its_model_and_job_until_others_are_named(make_repository, tmp_path, tiny_pack):
    root, pack, jobs = make_repository(CODE), tmp_path / "pack", tmp_path / "jobs"
    shutil.copytree(tiny_pack, pack)
    jobs.mkdir()
    summarize = (bundled("jobs") / "summarize.toml").read_text()
    for name in ("summarize", "two"):
        (jobs / f"{name}.toml").write_text(summarize.replace('"summarize"', f'"{name}"').replace("3000", "300"))
    environment = {"ROTARY_BATCH_JOBS": str(jobs)}
    (index,) = answer("index", root, "--model", pack, "--job", "two", **environment)
    model = index["model"]
    assert model != "rotary-demo"
    (index,) = answer("index", root, **environment)
    assert (index["model"], index["queued"], index["parsed"]) == (model, 0, 0)
    (outcome,) = answer("run", root, "--limit", 1, code=75, **environment)
    assert outcome["model"] == model
    items = [json.loads(line) for line in rotary("inspect", "items", root).stdout.splitlines()]
    assert {item["job"] for item in items} == {"two"}
    pack.rename(tmp_path / "moved")
    refused = rotary("index", root, **environment)
    assert refused.returncode == 3
    assert f"{pack}: {root} was indexed with this model, {model}, and it is gone; put it back, or" in refused.stderr
    (index,) = answer("index", root, "--model", tmp_path / "moved", **environment)
    assert (index["model"], index["parsed"]) == (model, 0), "the same model elsewhere"


def test_the_demonstration_model_moves_with_the_program(make_repository):
    root = make_repository(CODE)
    (first,) = answer("index", root)
    database = Path(os.environ["XDG_STATE_HOME"]) / "rotary-batch" / "work.db"
    with contextlib.closing(sqlite3.connect(database)) as db, db:
        db.execute("update repository set pack_dir = '/gone'")
    (again,) = answer("index", root)
    assert (again["model"], again["parsed"]) == (first["model"], 0)


def two_models(make_repository, tmp_path, tiny_pack) -> list[Path]:
    """Two repositories that cannot share an engine, indexed."""
    roots = [make_repository(CODE), make_repository({"a.py": "def f(): pass\n"}, name="other")]
    settings = Settings(db=tmp_path / "work.db")
    with writing(settings) as store:
        for root, model in zip(roots, (None, tiny_pack), strict=True):
            index_all(store, Settings(model=model), root)
    return roots


DRAIN = """
import sys
from rotary_batch import cli, testing
from rotary_batch.commands import engines
from rotary_batch.errors import DatabaseError

opened = []

def open_engine(pack, _options):
    opened.append(pack)
    if len(opened) > 1:
        raise DatabaseError("the disk is full")
    return testing.FakeEngine(answer_tokens=3)

engines.open_engine = open_engine
sys.argv = ["rotary-batch", *sys.argv[1:]]
cli.main()
"""


def test_what_ends_the_command_takes_no_report_away(make_repository, tmp_path, tiny_pack):
    two_models(make_repository, tmp_path, tiny_pack)
    command = [sys.executable, "-c", DRAIN, "drain", "--db", str(tmp_path / "work.db"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    said = [line for line in done.stderr.splitlines() if line.startswith("rotary-batch: ")]
    assert (done.returncode, said) == (74, ["rotary-batch: the disk is full"])
    reports = [json.loads(path.read_text()) for path in (tmp_path / "reports").glob("*.json")]
    assert sorted((report["outcome"], report["reason"]) for report in reports) == [
        ("done", None),
        ("failed", "the disk is full"),
    ]


def test_a_busy_device_costs_those_that_need_it_only(make_repository, tmp_path, tiny_pack, monkeypatch):
    roots = two_models(make_repository, tmp_path, tiny_pack)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def settings_of(row):
        return Settings(device="cuda" if row.root == str(roots[0]) else "cpu")

    with writing(Settings(db=tmp_path / "work.db")) as store, device_lock("cuda:0"):
        outcomes = drain_all(store, settings_of, [], lambda: FakeEngine(answer_tokens=3))
    failures = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
    assert [(one.repository, one.exit_code) for one in failures] == [(str(roots[0]), 6)]
    assert f"cuda: another run holds this device (process {os.getpid()})" in failures[0].error
    assert [outcome.outcome for outcome in outcomes if outcome not in failures] == ["done"]


def test_nobody_else_reads_what_a_run_leaves_and_its_notes_are_said_once(make_repository, tmp_path):
    root, state = make_repository(CODE | {"rotary.toml": 'device = "cuda"\n'}), tmp_path / "state"
    environment = {"XDG_STATE_HOME": str(state)}
    assert rotary("trust", root, **environment).returncode == 0
    answer("run", root, "--log", state / "rotary-batch" / "log.jsonl", **environment, ROTARY_BATCH_DEVICE="cpu")
    modes = {path: path.stat().st_mode & 0o777 for path in [state, *state.rglob("*")]}
    assert modes == {path: 0o700 if path.is_dir() else 0o600 for path in modes}
    assert {path.name for path in modes} >= {"trusted", "reports", "work.db", "work.db.lock", "log.jsonl"}
    (root / "rotary.toml").write_text('device = "cuda:1"\n')
    done = rotary("run", root, **environment)
    note = f"note: {root / 'rotary.toml'}: ignored: device"
    assert (done.returncode, (done.stdout + done.stderr).count(note)) == (0, 1)


def test_a_docs_folder_that_fails_in_the_night_costs_its_pages_only(make_repository, tmp_path, monkeypatch):
    """All answers are stored, the other repository has its pages, and when the folder is well again nothing is lost."""
    roots = [make_repository(CODE), make_repository({"a.py": "def f(): pass\n"}, name="other")]
    settings, full = Settings(db=tmp_path / "work.db"), [True]
    sync_some, sync_pending = commands.drain.sync_some, commands.drain.sync_pending

    def refused(project):
        def call(store, row, *rest):
            if full[0] and row.root == str(roots[0]):
                raise StorageError(f"{row.root}: No space left on device; free some space")
            return project(store, row, *rest)

        return call

    def drained(store):
        return drain_all(store, settings, roots, lambda: FakeEngine(answer_tokens=3))

    with writing(settings) as store:
        index_all(store, settings, *roots)
        monkeypatch.setattr(commands.drain, "sync_some", refused(sync_some))
        monkeypatch.setattr(commands.drain, "sync_pending", refused(sync_pending))
        failure, outcome = drained(store)
        assert (failure.repository, failure.exit_code) == (str(roots[0]), 74)
        assert (outcome.outcome, counts.open_items(store, [1, 2]), outcome.exit_code) == ("done", 0, 74)
        full[0] = False
        (again,) = drained(store)
        assert (again.new_answers, again.stats["revolutions"], again.exit_code) == (0, 0, 0)


def test_a_window_that_is_over_stops_an_index_between_two_files_and_the_next_goes_on(make_repository, tmp_path):
    files = {f"m{n}.py": f"def f{n}(a):\n    return a + {n}\n" for n in range(30)}
    roots = [make_repository(files), make_repository(CODE, name="other")]
    settings, clock = Settings(db=tmp_path / "work.db"), FrozenClock()
    seen = []

    def progress(phase, done, total):
        seen.append((phase, done, total))
        clock.now = float(done)

    with writing(settings) as store:
        window = Window(deadlines=[Deadline(10.0, clock)])
        stopped, not_begun = index_all(store, settings, *roots, progress=progress, window=window)
        assert [(one.repository, one.exit_code) for one in (stopped, not_begun)] == [(str(root), 75) for root in roots]
        assert "deadline: stopped before the work was done" in stopped.error
        assert seen[-1] == ("reading files", 10, 30)
        assert not store.db.in_transaction
        (failure,) = drain_all(store, settings, roots[:1], FakeEngine)
        assert (failure.exit_code, "its index was not finished" in failure.error) == (3, True)
        with pytest.raises(RepositoryError, match="its index was not finished"):
            docs.render(store, roots[0], Window())
        one, other = index_all(store, settings, *roots)
        assert (one.indexed.files["source"], other.indexed.files["source"]) == (30, 3)
        assert counts.open_items(store, [one.indexed.repository.id]) == 61  # chunks, files, the repository


def test_no_model_is_opened_for_a_window_that_is_over(make_repository, tmp_path):
    root, settings = make_repository(CODE), Settings(db=tmp_path / "work.db")
    with writing(settings) as store:
        index_all(store, settings, root)
        window = Window(deadlines=[Deadline(0.0, FrozenClock(1.0))])
        (failure,) = drain_all(store, settings, [root], lambda: 1 / 0, window)
        assert (failure.repository, failure.exit_code) == (str(root), 75)


def test_opening_a_model_for_longer_than_the_window_is_no_reason_to_begin(make_repository, tmp_path):
    root, settings, clock = make_repository(CODE), Settings(db=tmp_path / "work.db"), FrozenClock()

    def slow_engine():
        clock.now = 10.0
        return FakeEngine()

    with writing(settings) as store:
        (index,) = index_all(store, settings, root)
        window = Window(deadlines=[Deadline(5.0, clock)])
        (outcome,) = drain_all(store, settings, [root], slow_engine, window)
        assert (outcome.outcome, outcome.stats["revolutions"], outcome.exit_code) == ("deadline", 0, 75)
        assert counts.states(store, index.indexed.repository.id)["chunk"] == {"ready": 3}, "leases were given back"


def test_an_index_that_stops_while_it_classifies_says_why(make_repository, tmp_path, monkeypatch):
    window = Window()

    def read(self, entries):
        window.interrupted = True
        yield from files(self, entries)

    files = GitCommit.read
    monkeypatch.setattr(GitCommit, "read", read)
    root, settings = make_repository(CODE), Settings(db=tmp_path / "work.db")
    with writing(settings) as store:
        (failure,) = index_all(store, settings, root, window=window)
    assert (failure.exit_code, failure.error.partition(":")[0]) == (75, "interrupted")


def num_rows(database: Path, table: str) -> int:
    """Of a database that another process may be about to make."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as db:
            return db.execute(f"select count(*) from {table}").fetchone()[0]
    except sqlite3.Error:
        return 0


@pytest.mark.parametrize(("command", "number"), [("index", signal.SIGTERM), ("run", signal.SIGINT)])
def test_a_signal_ends_an_index_soon_and_another_finishes_it(command, number, make_repository):
    files = {
        f"d{n % 7}/m{n}.py": "".join(f"def f{n}_{m}(a):\n    return a + {m}\n\n\n" for m in range(30))
        for n in range(120)
    }
    root = make_repository(files)
    child = subprocess.Popen(
        [sys.executable, "-m", "rotary_batch.cli", command, str(root), "--log", str(root.parent / "log"), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    database = Path(os.environ["XDG_STATE_HOME"]) / "rotary-batch" / "work.db"
    while not num_rows(database, "file"):  # it has begun to store what it reads
        time.sleep(0.02)
    os.kill(child.pid, number)
    stdout, stderr = child.communicate(timeout=100)
    assert (child.returncode, "interrupted: stopped before the work was done" in stderr) == (75, True), stderr
    failure, *reports = json.loads(stdout)
    assert [one["outcome"] for one in reports] == (["interrupted"] if command == "run" else [])
    assert (failure["repository"], failure["exit_code"]) == (str(root), 75)
    (index,) = answer("index", root)
    assert index["files"]["source"] == 120
    (repository,) = answer("status", root)["repositories"]
    assert repository["items"]["file"] == {"waiting": 120}


def test_a_reader_holds_a_night_up_and_does_not_end_it(make_repository, tmp_path):
    root = make_repository(CODE)
    answer("index", root)
    database = Path(os.environ["XDG_STATE_HOME"]) / "rotary-batch" / "work.db"
    pin = (
        "import sqlite3, sys; db = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "db.execute('begin'); db.execute('select * from repository').fetchall(); print(flush=True); sys.stdin.read()"
    )
    reader = subprocess.Popen([sys.executable, "-c", pin, str(database)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    reader.stdout.readline()
    threading.Timer(6, reader.communicate).start()
    (outcome,) = answer("drain", root, "--log", tmp_path / "log")
    reader.wait()
    assert (outcome["outcome"], outcome["open"]) == ("done", 0)
    logged = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [one["by"].startswith(f"process {reader.pid} ") for one in logged if one["event"] == "database locked"] == [
        True
    ]


def test_a_rendering_that_is_stopped_says_so_and_the_next_one_goes_on(make_repository, tmp_path):
    root = make_repository({f"m{n}.py": f"def f{n}(a):\n    return a + {n}\n" for n in range(250)})
    settings, clock = Settings(db=tmp_path / "work.db"), FrozenClock()
    with writing(settings) as store:
        index_all(store, settings, root)
        shutil.rmtree(root / "rotary-docs")
        with pytest.raises(StoppedError, match="deadline"):
            docs.render(store, root, Window(deadlines=[Deadline(0.0, clock)]))
        assert 0 < len(docs_of(root)) < 250, "one batch is written"
        assert len(docs.render(store, root, Window()).written) + 100 >= 250
        assert len(docs_of(root)) > 250
