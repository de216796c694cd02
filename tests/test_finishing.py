"""The end of a run is told: metrics that Prometheus' own parser reads, and the user's command with the report on stdin."""

from __future__ import annotations

import json
import os
import shlex
import stat
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from rotary_batch import own_file
from rotary_batch.commands import finishing, prometheus
from rotary_batch.commands.database import writing
from rotary_batch.commands.finishing import Outlets
from rotary_batch.commands.run_report import RunReport
from rotary_batch.config import Settings, user_values
from rotary_batch.errors import ConfigError
from rotary_batch.window import Window

CODE = {"a.py": "def f(a):\n    return a + 1\n"}
REPORT = RunReport(
    run=3,
    command="drain",
    database="/nowhere/work.db",
    model='m"x\\y\nz',
    outcome="deadline",
    started_at="2026-11-27T23:00:00+00:00",
    ended_at="2026-11-28T06:00:00+00:00",
    seconds=25200.0,
    items=10,
    answered=6,
    parked=1,
    pages_changed=4,
    seconds_left=120.5,
    stats={
        "done": 5,
        "verdicts": {"shown": 3, "unfaithful": 2},
        "prefill_tokens": 7000,
        "decode_tokens": 900,
        "revolutions": 50,
        "step_s": 25000.5,
        "bound_s": 20000.25,
        "engine": {"bytes_moved": 181_000_000_000, "stall_s": 12.5},
    },
)


def rotary(*arguments: object, code: int = 0, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "rotary_batch", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=200,
        env=os.environ | (env or {}),
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    return done


def parsed(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample, by name and labels."""
    families = list(text_string_to_metric_families(text))
    assert all(family.type == "gauge" and family.documentation for family in families)
    return {
        (sample.name.removeprefix("rotary_batch_"), tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def test_prometheus_own_parser_reads_every_figure_of_the_report():
    model = ("model", REPORT.model)
    assert parsed(prometheus.text([REPORT], "2026-11-28T06:00:00+00:00")) == {
        ("run_start_timestamp_seconds", (model,)): 1795820400.0,
        ("run_end_timestamp_seconds", (model,)): 1795845600.0,
        ("run_outcome", (model, ("outcome", "deadline"))): 1,
        ("run_exit_code", (model,)): 75,
        ("run_seconds", (model,)): 25200.0,
        ("run_answers", (model, ("shown", "true"))): 3,
        ("run_answers", (model, ("shown", "false"))): 2,
        ("run_reused_answers", (model,)): 0,
        ("run_prompt_tokens", (model,)): 7000,
        ("run_generated_tokens", (model,)): 900,
        ("run_steps", (model,)): 50,
        ("run_step_seconds", (model,)): 25000.5,
        ("run_bound_seconds", (model,)): 20000.25,
        ("run_moved_bytes", (model,)): 181_000_000_000,
        ("run_stall_seconds", (model,)): 12.5,
        ("run_sentences", (model,)): 0,
        ("run_sentences_shown", (model,)): 0,
        ("run_pages_changed", (model,)): 4,
        ("items", (model, ("state", "answered"))): 6,
        ("items", (model, ("state", "failed"))): 1,
        ("items", (model, ("state", "open"))): 3,
        ("seconds_left", (model,)): 120.5,
        ("wal_bytes", ()): 0,
        ("last_success_timestamp_seconds", ()): 1795845600.0,
    }


def test_every_metric_is_documented():
    page = (Path(__file__).parents[1] / "docs" / "reports.md").read_text()
    assert [name for name in prometheus.HELP if f"`rotary_batch_{name}`" not in page] == []


def test_two_models_are_two_series_and_none_is_an_empty_file():
    other = replace(REPORT, model="other", outcome="failed", ended_at=None)
    found = parsed(prometheus.text([REPORT, other], None))
    assert found["run_outcome", (("model", "other"), ("outcome", "failed"))] == 1
    assert ("run_end_timestamp_seconds", (("model", "other"),)) not in found
    assert prometheus.text([], None) == ""


def test_the_file_is_replaced_whole_and_others_may_read_it(tmp_path):
    path = tmp_path / "r.prom"
    path.write_text("old")
    before = path.open()
    prometheus.write(path, "new\n")
    assert (before.read(), path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("old", "new\n", 0o644)
    before.close()
    assert [one.name for one in tmp_path.iterdir()] == ["r.prom"]


def test_a_run_is_told_to_both_and_the_exit_code_is_its_own(make_repository, tmp_path):
    root = make_repository(CODE)
    heard, metrics = tmp_path / "heard.json", tmp_path / "r.prom"
    save = f"import sys, pathlib; pathlib.Path({str(heard)!r}).write_text(sys.stdin.read()); print('heard it')"
    command = shlex.join([sys.executable, "-c", save])
    done = rotary("run", root, "--limit", 1, "--on-finish", command, "--prometheus", metrics, "--json", code=75)
    (report,) = json.loads(done.stdout)
    assert json.loads(heard.read_text()) == report
    assert "heard it" in done.stderr
    found = parsed(metrics.read_text())
    assert found["run_exit_code", (("model", report["model"]),)] == 75
    assert found["items", (("model", report["model"]), ("state", "open"))] == report["open"]


def test_what_fails_is_said_and_changes_no_exit_code(make_repository, tmp_path):
    root = make_repository(CODE)
    rotary("index", root)
    for command, why in (("false", "exit code 1"), ("/nowhere/tool x", "No such file or directory")):
        done = rotary("drain", root, "--limit", 1, "--on-finish", command, "--quiet", code=75)
        assert done.stderr == f"warning: --on-finish: {command}: {why}; the run itself is not changed by that\n"
    missing = tmp_path / "no" / "r.prom"
    done = rotary("drain", root, "--prometheus", missing, "--quiet")
    assert done.stderr == f"warning: --prometheus: {missing}: No such file or directory\n"


def test_a_run_that_fails_before_its_engine_opens_is_told_too(make_repository, tmp_path):
    root = make_repository(CODE)
    heard = tmp_path / "heard.json"
    done = rotary("run", root, "--model", "/nowhere", "--on-finish", f"tee {heard}", code=3)
    report = json.loads(heard.read_text())
    assert (report["outcome"], report["exit_code"]) == ("failed", 3)
    assert report["reason"] in done.stderr


def told(tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch, seconds: float = 100.0) -> list[str]:
    said: list[str] = []
    monkeypatch.setattr(finishing, "TIMEOUT_S", seconds)
    outlets = Outlets(on_finish=command, say=said.append)
    with outlets.telling(Window()), writing(Settings(db=tmp_path / "work.db")) as store:
        outlets.tell(store, [REPORT])
    return said


def test_a_command_that_does_not_end_is_ended_with_what_it_started(tmp_path, monkeypatch):
    pid = tmp_path / "pid"
    script = f"sleep 300 & echo $! > {pid}; wait"
    (why,) = told(tmp_path, shlex.join(["sh", "-c", script]), monkeypatch, seconds=3.0)
    assert "ended after 3 s, which is the most it may take" in why
    grandchild = int(pid.read_text())
    deadline = time.monotonic() + 60
    while lives(grandchild):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def lives(pid: int) -> bool:
    """Whether a process runs: one that ended is a zombie until somebody reaps it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_no_shell_sees_the_command(tmp_path, monkeypatch):
    trap = tmp_path / "trap"
    assert told(tmp_path, f"true ; touch {trap}", monkeypatch) == []
    assert told(tmp_path, f"true $(touch {trap}) `touch {trap}` > {trap}", monkeypatch) == []
    assert not trap.exists()


def test_the_command_can_work_with_the_database(tmp_path, monkeypatch):
    """It was refused: the run still held the lock."""
    look = (
        "import pathlib, sys; from rotary_batch.work.lock import holder; "
        "sys.exit(holder(pathlib.Path(sys.argv[1])) is not None)"
    )
    command = shlex.join([sys.executable, "-c", look, str(tmp_path / "work.db")])
    assert told(tmp_path, command, monkeypatch) == []


def test_a_command_that_does_not_read_is_no_error(tmp_path, monkeypatch):
    assert told(tmp_path, "true", monkeypatch) == []


def test_a_command_without_its_quotation_mark_is_refused():
    with pytest.raises(ConfigError, match=r"ROTARY_BATCH_ON_FINISH: .* is not a command: No closing quotation"):
        user_values(flags={}, environment={"ROTARY_BATCH_ON_FINISH": "mail 'x"}, folders=[], config=None)


def test_no_repository_sets_them_not_even_a_trusted_one(make_repository, tmp_path):
    trap = tmp_path / "trap"
    own = f'on_finish = "touch {trap}"\nprometheus = "{trap}"\nmax_batch = 3\n'
    root = make_repository(CODE | {"rotary.toml": own})
    found = own_file.trust(root, os.environ)
    assert found.values == {"max_batch": 3}
    assert [note.partition(": ")[2] for note in found.notes] == [
        f"{name}: ignored: it applies in your own settings only" for name in ("prometheus", "on_finish")
    ]
    rotary("run", root)
    assert not trap.exists()
