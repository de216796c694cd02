"""The recipes in `deploy/` hold what they promise, as far as a machine without them can tell."""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from rotary_batch.cli import progress
from rotary_batch.commands.database import writing
from rotary_batch.config import Settings
from rotary_batch.systemd import Notifier
from rotary_batch.testing import FakeEngine
from tests.in_process import drain_all, index_all
from tests.without_engine import hide_engine

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
FILES = {
    "src/a.py": "def add(a, b):\n    return a + b\n\n\ndef twice(a):\n    return add(a, a)\n",
    "notes.txt": "Hi\n",
}


def rotary(*arguments: object, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rotary_batch", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=os.environ | environment)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_accepts_service_and_timer_without_a_warning(tmp_path):
    program = tmp_path / ".local" / "bin" / "rotary-batch"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    units = [DEPLOY / "rotary-batch.service", DEPLOY / "rotary-batch.timer"]
    done = subprocess.run(
        ["systemd-analyze", "--user", "verify", *units],
        capture_output=True,
        text=True,
        env=os.environ | {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_service_has_no_network_and_counts_75_as_success():
    lines = (DEPLOY / "rotary-batch.service").read_text().splitlines()
    wanted = {"Type=notify", "SuccessExitStatus=75", "PrivateNetwork=yes", "RestrictAddressFamilies=AF_UNIX"}
    assert wanted <= set(lines)
    assert "PrivateTmp=yes" not in lines  # locks of devices are in /tmp


@contextmanager
def listening(address: str) -> Iterator[list[str]]:
    """systemd's end of NOTIFY_SOCKET; filled with the messages when the block ends."""
    messages: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
        end.bind(address.replace("@", "\0", 1) if address.startswith("@") else address)
        end.setblocking(False)
        try:
            yield messages
        finally:
            while True:
                try:
                    messages.append(end.recv(4096).decode())
                except BlockingIOError:
                    break


@pytest.mark.parametrize("is_abstract", [False, True])
def test_systemd_is_told_of_the_start_and_that_the_work_goes_on(is_abstract, tmp_path):
    """Once a second at most, and four times as often as the watchdog looks."""
    address = f"@rotary-{os.getpid()}" if is_abstract else str(tmp_path / "notify")
    now = [100.0]
    watched = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "2000000", "WATCHDOG_PID": str(os.getpid())}
    with listening(address) as messages:
        notifier = Notifier(watched, clock=lambda: now[0])
        for second in (0.0, 0.3, 0.5, 0.9, 1.1):
            now[0] = 100.0 + second
            notifier.alive(lambda: f"at {now[0]}")
    assert messages == [
        "STATUS=at 100.0\nWATCHDOG=1\nREADY=1",
        "STATUS=at 100.5\nWATCHDOG=1",
        "STATUS=at 101.1\nWATCHDOG=1",
    ]


@pytest.mark.parametrize("other", [{"WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "soon"}, {"WATCHDOG_USEC": ""}])
def test_the_watchdog_of_another_process_is_not_fed(other, tmp_path):
    address = str(tmp_path / "notify")
    with listening(address) as messages:
        Notifier({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "2000000"} | other).alive(lambda: "reading")
    assert messages == ["STATUS=reading\nREADY=1"]


@pytest.mark.parametrize("address", ["", "relative", "vsock:2:1234", "/gone/away"])
def test_without_systemd_nothing_is_sent_and_nothing_fails(address, monkeypatch):
    if not address.startswith("/"):
        monkeypatch.setattr(socket, "socket", lambda *_: pytest.fail("a socket was opened"))
    Notifier({"NOTIFY_SOCKET": address}).alive(lambda: "reading")


def test_a_run_that_is_stuck_says_nothing(monkeypatch, tmp_path):
    """The thread that prints a line a minute goes on when the work hangs, so it may not feed the watchdog."""
    calls: list[str] = []

    class Recording(Notifier):
        def alive(self, status):
            calls.append(status())

    monkeypatch.setattr(progress, "_NOTIFIER", Recording({}))
    monkeypatch.setattr(progress.Display, "_print_line", lambda self: printed.append(1))
    printed: list[int] = []
    with progress.shown_progress("reading files", every_s=0.001) as display:
        while len(printed) < 10:
            pass
        assert len(calls) == 1
        display.count(1, 2)
        assert [call[6:] for call in calls] == ["reading files", "reading files 1/2"]


def test_a_real_run_notifies(make_repository, tmp_path):
    root, address = make_repository({"notes.txt": "Hi\n"}), str(tmp_path / "notify")
    with listening(address) as messages:
        done = rotary("index", root, NOTIFY_SOCKET=address, WATCHDOG_USEC="1800000000")
    assert done.returncode == 0, done.stderr
    assert messages[0].endswith("reading files\nWATCHDOG=1\nREADY=1")


def test_two_halves_a_database_is_rendered_elsewhere_without_a_model(make_repository, git, tmp_path):
    """One machine answers.  The other has a clone at another path, the database, and no engine."""
    root, settings = make_repository(FILES), Settings(db=tmp_path / "night.db")
    with writing(settings) as store:
        index_all(store, settings, root)
        drain_all(store, settings, [], FakeEngine)
    written = {path.name: path.read_bytes() for path in (root / "rotary-docs").rglob("*.md")}
    clone = tmp_path / "runner" / "work" / "project"
    git(tmp_path, "clone", "-q", str(root), str(clone))
    shutil.copy(tmp_path / "night.db", clone / "work.db")
    root.rename(tmp_path / "gone")
    bare = hide_engine(tmp_path / "hide") | {"XDG_STATE_HOME": str(tmp_path / "no-state")}
    recipe = yaml.safe_load((DEPLOY / "github-nightly.yml").read_text())
    steps = [step["run"] for step in recipe["jobs"]["publish"]["steps"] if "rotary-batch " in step.get("run", "")]
    lines = [shlex.split(step)[1:] for step in steps if step.startswith("rotary-batch ")]
    assert [line[0] for line in lines] == ["render", "check", "site"]
    for line in lines:
        done = rotary(*line, cwd=clone, **bare)
        assert done.returncode == 0, (line, done.stderr)
    assert {path.name: path.read_bytes() for path in (clone / "rotary-docs").rglob("*.md")} == written
    assert (clone / "rotary-site" / "index.html").exists()


def test_the_hook_of_pre_commit_looks_at_what_is_about_to_be_committed(make_repository, tmp_path):
    """pre-commit puts away what is not staged, so the working tree is what the commit will have."""
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    entry = shlex.split(hook["entry"])
    assert (entry[0], hook["pass_filenames"], hook["always_run"]) == ("rotary-batch", False, True)
    root, bare = make_repository(FILES), hide_engine(tmp_path / "hide")
    assert rotary("index", root, **bare).returncode == 0
    assert rotary(*entry[1:], cwd=root, **bare).returncode == 0
    (root / "src" / "a.py").write_text("def add(a, b, c):\n    return a + b + c\n")
    assert rotary(*entry[1:], cwd=root, **bare).returncode == 4
    assert rotary("index", root, "--worktree", **bare).returncode == 0
    assert rotary(*entry[1:], cwd=root, **bare).returncode == 0


@pytest.mark.parametrize("name", sorted(path.name for path in DEPLOY.glob("*.yml")))
def test_jobs_are_allowed_little_and_treat_75_as_work_that_remains(name):
    recipe = yaml.safe_load((DEPLOY / name).read_text())
    if name.startswith("github"):
        assert recipe["permissions"] == {"contents": "read"}
        jobs = recipe["jobs"].values()
        steps = [step.get("run", "") for job in jobs for step in job["steps"]]
        models = [job for job in jobs if any("rotary-batch run" in step.get("run", "") for step in job["steps"])]
        assert not [job for job in models if "permissions" in job]  # what runs a model on the code cannot write
    else:
        steps = [line for job in recipe.values() for line in job["script"]]
    runs = [step for step in steps if step.startswith("rotary-batch run")]
    assert all(step.endswith("|| test $? -eq 75") for step in runs)


def test_the_recipes_for_clusters_ask_for_a_token_and_send_no_usage():
    night, machines = (yaml.safe_load((DEPLOY / name).read_text()) for name in ("ray-job.yaml", "ray-cluster.yaml"))
    cluster = night["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        names = {one["name"]: one.get("value") for one in group["template"]["spec"]["containers"][0]["env"]}
        assert names == {"RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_TOKEN": None}
    for name in ("head_start_ray_commands", "worker_start_ray_commands"):
        assert "RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0 ray start" in machines[name][1]


def test_an_array_of_jobs_answers_its_shards(tmp_path):
    """The script as Slurm runs it; `srun` and `scontrol` are written down."""
    for name in ("srun", "scontrol"):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(
            f'#!/bin/sh\necho {name} "$@" >> calls\nexit $STATUS\n'.replace("$STATUS", "75" if name == "srun" else "0")
        )
        program.chmod(0o755)
    (tmp_path / "shards").write_text("one.jsonl\ntwo.jsonl\n")
    job = {
        "SLURM_ARRAY_JOB_ID": "7",
        "SLURM_ARRAY_TASK_ID": "2",
        "PATH": f"{tmp_path}/bin{os.pathsep}{os.environ['PATH']}",
    }
    done = subprocess.run(
        ["sh", DEPLOY / "slurm.sh"], cwd=tmp_path, env=os.environ | job, capture_output=True, text=True
    )
    asked, again = (tmp_path / "calls").read_text().splitlines()
    assert asked.startswith("srun rotary-batch generate two.jsonl --output answers-2.jsonl")
    assert (again, done.returncode, done.stderr) == ("scontrol requeue 7_2", 75, "")
