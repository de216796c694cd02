"""Whatever the machine refuses, a command ends with a documented exit code and plain lines, never with a traceback."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

DOCUMENTED = {0, 2, 3, 4, 5, 6, 69, 70, 74, 75, 130}
FILES = {"a.py": 'def a():\n    """Doc é."""\n    return 1\n', "café.py": "x = 1\n"}
CLI = f"{shlex.quote(sys.executable)} -m rotary_batch"
# The root user of a test machine reads everything; without these capabilities it is as any other.
AS_USER = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []


def shell(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a bash script with `rb` for the command line; what it printed has no traceback."""
    command = [*AS_USER, "bash", "-c", f'rb() {{ {CLI} "$@"; }}\n{script}']
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, errors="replace")
    assert "Traceback" not in done.stdout + done.stderr, done.stderr
    assert "Exception ignored" not in done.stderr, done.stderr
    assert done.returncode in DOCUMENTED, (done.returncode, done.stderr)
    return done


@pytest.fixture
def repo(make_repository):
    """An indexed repository."""
    root = make_repository(FILES)
    assert shell(f"rb index {root}").returncode == 0
    return root


def test_streams_that_are_closed_lead_nowhere(repo):
    for command, closed in (
        ("index", "<&- >&- 2>&-"),
        ("inspect files", ">&-"),
        ("search hello --repo", ">&-"),
        ("agents", ">&-"),
        ("status", ">&-"),
        ("render", ">&- 2>&-"),
        ("index", "2>&-"),
    ):
        assert shell(f"rb {command} {repo} {closed}").returncode == 0
    assert shell(f"rb index {repo}/nothing >&- 2>&-").returncode == 3
    db = sqlite3.connect(Path(os.environ["XDG_STATE_HOME"]) / "rotary-batch" / "work.db")
    assert db.execute("pragma integrity_check").fetchall() == [("ok",)]
    db.close()


def test_a_full_disk_and_a_reader_that_leaves(repo):
    for command in (f"inspect files {repo}", f"inspect graph {repo} --format graphml", "status", "--help", "--version"):
        done = shell(f"rb {command} >/dev/full")
        assert (done.returncode, done.stderr.count("\n")) == (74, 1)
        assert shell(f"set -o pipefail; rb {command} | true").returncode == 0
    assert shell(f"rb index {repo}/nothing 2>/dev/full").returncode == 3
    assert shell(f"exec 2> >(true); sleep 0.1; rb index {repo}/nothing").returncode == 3


def test_a_log_on_a_full_disk_is_named_once_and_the_work_goes_on(repo):
    done = shell(f"rb run {repo} --log /dev/full --json")
    assert (done.returncode, "is incomplete" in done.stderr) == (0, True), done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("rotary-batch: ")]
    assert said == ["rotary-batch: /dev/full: No space left on device; the log is incomplete"]
    assert "Logging error" not in done.stderr
    assert json.loads(done.stdout)[0]["open"] == 0


def test_locales_terminals_and_zones_of_any_kind(repo):
    for name, value in (
        ("PYTHONIOENCODING", "ascii"),
        ("LC_ALL", "C"),
        ("LC_ALL", "nonsense"),
        ("TZ", ":/etc/passwd"),
    ):
        environment = {name: value, "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
        assert shell(f"rb inspect files {repo}", **environment).stdout.count("\n") == 2
    for columns, terminal in (("1", "nonsense"), ("many", "")):
        assert shell("rb status", COLUMNS=columns, TERM=terminal, TZ="Nonsense/Nowhere").returncode == 0
    moved = repo.rename(repo.with_name("café"))
    assert shell(f"rb index {moved} && rb status", PYTHONIOENCODING="ascii").returncode == 0


def test_arguments_that_are_no_utf8(repo, tmp_path):
    assert shell("rb index $'/tmp/caf\\xe9'").returncode == 3
    assert shell(f"rb explain $'caf\\xe9' {repo}").returncode == 3
    assert shell(f"rb $'caf\\xe9' {repo}").returncode == 2
    assert shell(f"rb index --db {tmp_path}/$'caf\\xe9'/work.db {repo}").returncode == 0


def test_folders_that_are_gone_or_closed(repo, tmp_path):
    gone = f"mkdir {tmp_path}/gone; cd {tmp_path}/gone; rmdir ../gone"
    for command in ("index", "--help"):
        done = shell(f"{gone}; rb {command}")
        assert done.returncode == 3
        assert "the current folder cannot be used" in done.stderr
    (tmp_path / "closed").mkdir(mode=0)
    assert shell(f"rb index {tmp_path}/closed").returncode in {2, 3, 74}
    (tmp_path / "open" / "part").mkdir(parents=True)
    (tmp_path / "open" / "a.py").write_text("x = 1\n")
    (tmp_path / "open" / "part").chmod(0)
    (tmp_path / "open" / "b.py").touch(mode=0)
    assert shell(f"rb index --worktree {tmp_path}/open").returncode in {0, 3, 74}
    state = tmp_path / "state" / "rotary-batch"
    state.mkdir(parents=True)
    state.chmod(0o555)
    done = shell(f"rb index {repo}", XDG_STATE_HOME=str(state.parent))
    assert (done.returncode, "Permission denied" in done.stderr) == (74, True)
    for path in (tmp_path / "closed", tmp_path / "open" / "part", state):
        path.chmod(0o700)


def test_without_a_home(repo):
    assert shell("unset HOME XDG_STATE_HOME XDG_CACHE_HOME; rb status").returncode in {0, 3}
    assert shell(f"HOME=/proc/nothing XDG_STATE_HOME= rb index {repo}").returncode == 74


def check_limits(repo: Path, limits: list[str]) -> None:
    for limit in limits:
        for command in ("status", f"run --limit 1 {repo}"):
            done = shell(f"ulimit {limit}; rb {command}")
            assert done.returncode in {0, 69, 74, 75}, (limit, done.stderr)


def test_little_memory_and_few_files(repo):
    check_limits(repo, ["-v 60000", "-v 800000", "-n 12"])


@pytest.mark.faults
def test_every_size_of_memory_and_any_number_of_files(repo):
    check_limits(repo, [f"-v {kilobytes}" for kilobytes in range(20_000, 2_000_000, 50_000)])
    check_limits(repo, [f"-n {number}" for number in range(8, 40)])  # Python itself needs 7


def test_a_bug_is_recorded_and_named_in_one_line(repo):
    script = "import sys; from rotary_batch import cli; cli.status.commands.status.status = lambda *_: {}['no']; sys.argv[1:] = ['status']; cli.main()"
    done = shell(f"{shlex.quote(sys.executable)} -c {shlex.quote(script)}")
    (crash,) = (Path(os.environ["XDG_STATE_HOME"]) / "rotary-batch" / "crashes").iterdir()
    assert (done.returncode, done.stderr) == (
        70,
        f"rotary-batch: a bug: KeyError: 'no'; please report it with {crash} (read it first: it can quote paths and code)\n",
    )
    assert "Traceback" in crash.read_text()
    modes = [path.stat().st_mode & 0o777 for path in (crash, crash.parent, crash.parent.parent)]
    assert modes == [0o600, 0o700, 0o700]
    shutil.rmtree(crash.parent)
    crash.parent.write_text("no folder")
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "could not be recorded" in done.stderr


def no_bytes(path: Path) -> None:
    path.write_bytes(b"")


def half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def replaced(path: Path) -> None:
    path.with_name("other").write_bytes(b"another program's file" * 1000)
    path.with_name("other").replace(path)


def overwritten(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"another program's file" * 1000)


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES = [no_bytes, half, replaced, overwritten, a_folder, Path.unlink]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_database_that_is_damaged_between_two_commands(repo, damage):
    path = Path(os.environ["XDG_STATE_HOME"]) / "rotary-batch" / "work.db"
    damage(path)
    for command in ("status", f"drain --limit 1 {repo}"):
        assert shell(f"rb {command}").returncode in {2, 3, 74}
    assert shell("rb doctor").returncode in {0, 69}
    assert shell(f"rb index {repo}").returncode in {0, 2, 3, 74}


@pytest.mark.parametrize(
    "damage",
    [
        no_bytes,
        overwritten,
        *(pytest.param(d, marks=pytest.mark.faults) for d in (half, replaced, a_folder, Path.unlink)),
    ],
)
def test_a_database_that_is_damaged_while_a_run_goes_on(make_repository, damage):
    root = make_repository({f"m{n}.py": f"def f{n}(a):\n    return a + {n}\n" for n in range(12)})
    path = Path(os.environ["XDG_STATE_HOME"]) / "rotary-batch" / "work.db"
    command = [sys.executable, "-m", "rotary_batch", "run", "--max-batch", "1", str(root)]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        wait_for_answers(path, run)
        damage(path)
        out, err = run.communicate(timeout=120)
    finally:
        if run.poll() is None:
            run.send_signal(signal.SIGKILL)
            run.wait()
    assert "Traceback" not in out + err, err
    assert run.returncode in {0, 3, 74}, err  # a file that nobody looks at again may do no harm before the end


def wait_for_answers(path: Path, run: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and run.poll() is None:
        if path.exists() and path.stat().st_size:
            db = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
            try:
                if db.execute("select count(*) from item where state = 'done'").fetchone()[0]:
                    return
            except sqlite3.OperationalError:
                pass  # not made yet, or being written
            finally:
                db.close()
        time.sleep(0.05)
    pytest.fail("the run ended before it answered anything")
