"""What `status` says while a drain runs, when none does, and after one was killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

CODE = {f"m{n}.py": f"def f{n}(a):\n    return a + {n}\n" for n in range(60)}


def rotary(*arguments: object) -> str:
    command = [sys.executable, "-m", "rotary_batch", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=200).stdout


def start_drain(root) -> subprocess.Popen:
    command = [sys.executable, "-m", "rotary_batch", "drain", str(root), "--max-batch", "2"]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True)


def wait_for_progress() -> dict:
    for _ in range(600):
        answer = json.loads(rotary("status", "--json"))
        if answer["running"] and answer["running"]["progress"]:
            return answer
        time.sleep(0.1)
    raise AssertionError(answer)


def test_a_running_drain_a_killed_one_and_none(make_repository):
    root = make_repository(CODE)
    rotary("index", root)
    assert "No drain is running." in rotary("status")
    child = start_drain(root)
    answer = wait_for_progress()
    running, progress = answer["running"], answer["running"]["progress"]
    assert (running["command"], answer["driver_pid"]) == ("drain", child.pid)
    assert set(progress) == {
        "share",
        "num_done",
        "num_items",
        "tokens_per_s",
        "bound_share",
        "left_s",
        "stops_in_s",
        "max_items",
    }
    assert 0 < progress["share"] < 1
    assert progress["num_items"] == 126  # 60 chunks, their files, the repository and 5 parts that it will need
    assert "leased" in json.dumps(answer["repositories"])
    text = rotary("status")
    assert f"A drain is running (process {child.pid}, since " in text
    assert "tok/s, " in text

    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    answer = json.loads(rotary("status", "--json"))
    assert (answer["running"], answer["driver_pid"], answer["last_run"]["outcome"]) == (None, None, "killed")
    assert "leased" not in json.dumps(answer["repositories"])
    (repository,) = answer["repositories"]
    assert sum(sum(states.values()) for states in repository["items"].values()) == repository["all"] == 126
    text = rotary("status")
    assert ("No drain is running." in text, "Last run: killed, started " in text) == (True, True)
