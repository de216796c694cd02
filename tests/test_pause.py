"""`pause` and `unpause` from another shell, with a real drain of the embedded model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rotary_batch.config import state_dir
from rotary_batch.work.control import Pause, pause, paused, unpause

CODE = {f"m{n}.py": f"def f{n}(a):\n    return a + {n}\n" for n in range(12)}
COMMAND = (sys.executable, "-m", "rotary_batch")


def rotary(*arguments: object, code: int = 0) -> str:
    done = subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stderr
    return done.stdout


def anonymous_nbytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))


def start_drain(root, *options: str) -> subprocess.Popen:
    command = [*COMMAND, "drain", str(root), "--max-batch", "2", *options]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)


def wait_for_progress() -> dict:
    for _ in range(1200):
        answer = json.loads(rotary("status", "--json"))
        if answer["running"] and answer["running"]["progress"]:
            return answer
        time.sleep(0.1)
    raise AssertionError(answer)


def test_a_drain_is_paused_frees_its_memory_and_goes_on(make_repository, tmp_path):
    root = make_repository(CODE)
    rotary("index", root)
    log = tmp_path / "log.jsonl"
    child = start_drain(root, "--log", str(log))
    wait_for_progress()
    used = anonymous_nbytes(child.pid)
    answer = json.loads(rotary("pause", "--json"))
    assert (answer["driver_pid"], answer["is_free"]) == (child.pid, True)
    freed = used - anonymous_nbytes(child.pid)
    status = json.loads(rotary("status", "--json"))
    assert freed > 15 * 10**6  # the weights and the KV cache of the demonstration model; 18 to 19 were seen with AMX
    assert status["paused"] == answer["paused"]
    assert (status["running"]["activity"]["state"], status["running"]["activity"]["share"]) == ("paused", 0.0)
    assert "leased" not in json.dumps(status["repositories"])
    text = rotary("status")
    assert "paused since" in text
    assert "`rotary-batch unpause` continues; its memory is free" in text
    assert rotary("unpause") == f"Process {child.pid} continues.\n"
    _, said = child.communicate(timeout=300)
    assert (child.returncode, "paused since" in said) == (0, True), said
    report = json.loads(rotary("report", "--json"))
    assert (report["open"], report["parked"], report["paused_s"] > 0) == (0, 0, True)
    paces = [event for event in map(json.loads, log.read_text().splitlines()) if event["event"] == "pace"]
    assert [event["state"] for event in paces] == ["paused", "working"]


def test_a_paused_database_keeps_a_run_waiting_until_it_is_stopped(make_repository):
    root = make_repository({"a.py": "def f():\n    return 1\n"})
    rotary("index", root)
    assert rotary("pause") == "Paused. No drain is running; the next one waits until `rotary-batch unpause`.\n"
    assert "No drain is running. The next one starts paused." in rotary("status")
    child = start_drain(root)
    assert any("paused since" in line for line in child.stderr)
    os.kill(child.pid, signal.SIGTERM)
    child.communicate(timeout=300)
    assert child.returncode == 75
    assert [rotary("unpause"), rotary("unpause")] == ["No longer paused.\n", "Nothing to do; it was not paused.\n"]


def test_a_pause_holds_for_every_name_of_a_database_until_its_end(tmp_path):
    database, link, other = tmp_path / "work.db", tmp_path / "link.db", tmp_path / "other.db"
    database.touch()
    link.symlink_to(database)
    assert paused(database) is None
    assert pause(link, until=2000.0, now=1000.0) == Pause(1000.0, 2000.0)
    assert (paused(database, 1999.0), paused(other, 1999.0)) == (Pause(1000.0, 2000.0), None)
    assert paused(database, 2000.0) is None
    assert pause(database, until=None, now=1500.0) == Pause(1000.0)  # it goes on
    (file,) = (tmp_path / "control").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    assert unpause(database)
    assert (paused(database), unpause(database)) == (None, False)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"since": "x", "until": 1}', b"\xff" * 5000])
def test_a_pause_that_cannot_be_read_is_one_without_an_end(tmp_path, content):
    database = tmp_path / "work.db"
    pause(database)
    (file,) = (tmp_path / "control").iterdir()
    file.write_bytes(content)
    assert paused(database) == Pause(file.stat().st_mtime)


def test_a_pause_for_some_time():
    rotary("pause", "--for", "2h")
    held = paused(state_dir(os.environ) / "work.db")
    assert held is not None
    assert held.until - held.since == pytest.approx(7200, abs=2)
