"""SIGINT and SIGTERM at any moment: one line, the exit code of the contract, never a traceback, and nothing is lost."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.terminal_run import CTRL_C, TerminalRun

CODE = {f"pkg/m{n}.py": f'"""Part {n}."""\n\n\ndef f{n}(a):\n    return a + {n}\n' for n in range(12)}
GOES_ON = "continues from there"


def start(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "rotary_batch", *map(str, arguments)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while child.poll() is None and not is_caught(child.pid):  # until then it is the interpreter that starts
        time.sleep(0.001)
    return child


def is_caught(pid: int) -> bool:
    """Whether the process has a handler for SIGTERM, which the interpreter itself never has."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = next((line.split()[1] for line in status.splitlines() if line.startswith("SigCgt")), "0")
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


def ended(*arguments: object) -> tuple[int, str, str]:
    """The exit code, stdout and stderr of a command that nobody disturbs."""
    child = start(*arguments)
    stdout, stderr = child.communicate(timeout=600)
    return child.returncode, stdout, stderr


def interrupted(after_s: float, number: signal.Signals, *arguments: object) -> tuple[int, str]:
    """Send a signal to the whole process group, as a terminal does; the exit code and what stderr has."""
    child = start(*arguments)
    time.sleep(after_s)
    if child.poll() is None:
        os.killpg(child.pid, number)
    _, stderr = child.communicate(timeout=200)
    return child.returncode, stderr


def check_moment(after_s: float, number: signal.Signals, *arguments: object) -> int:
    code, stderr = interrupted(after_s, number, *arguments)
    assert code in {0, 75}, (after_s, number, arguments, code, stderr)
    assert "Traceback" not in stderr, (after_s, number, arguments, stderr)
    return code


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("command", [("--help",), ("run", "--help"), ("run", "{root}"), ("status",)])
def test_while_it_starts_it_stops_at_once_with_one_line(command, number, make_repository):
    root = make_repository({"a.py": "def f(): pass\n"})
    arguments = [argument.format(root=root) for argument in command]
    code, stderr = interrupted(0.0, number, *arguments)
    typed = " ".join(["rotary-batch", *arguments])
    line = f"rotary-batch: stopped before the work was done; `{typed}` {GOES_ON}\n"
    assert (code, stderr) == (75, line) or (code in {0, 3} and "Traceback" not in stderr), (code, stderr)


def test_a_few_moments_of_an_index(make_repository):
    root = make_repository(CODE)
    for number in (signal.SIGINT, signal.SIGTERM):
        check_moment(random.uniform(0.2, 1.5), number, "index", root)
    assert ended("index", root)[0] == 0


@pytest.mark.faults
def test_sixty_moments_of_a_run(make_repository):
    """At the end the pages are those of a run that nobody disturbed."""
    root, quiet = make_repository(CODE), make_repository(CODE, name="quiet")
    dice = random.Random(4)
    for _ in range(60):
        check_moment(dice.uniform(0.0, 12.0), dice.choice([signal.SIGINT, signal.SIGTERM]), "run", root)
        assert not leased(root)
    for repository in (root, quiet):
        assert ended("run", repository)[0] == 0
    assert pages(root) == pages(quiet)


@pytest.mark.faults
def test_forty_double_interrupts_of_a_run(make_repository):
    root = make_repository(CODE)
    dice = random.Random(5)
    for _ in range(40):
        child = start("run", root)
        time.sleep(dice.uniform(0.0, 8.0))
        for _ in range(2):
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGINT)
                time.sleep(dice.uniform(0.0, 0.3))
        _, stderr = child.communicate(timeout=200)
        assert (child.returncode in {0, 75, 130}, "Traceback" in stderr) == (True, False), (child.returncode, stderr)
        assert child.returncode != 130 or stderr.endswith(f"{GOES_ON}\n"), stderr
    assert ended("run", root)[0] == 0


def leased(root: Path) -> bool:
    code, stdout, stderr = ended("status", root, "--json")
    if code == 3:  # it was stopped before it had a database, or before the repository was in it
        return False
    assert code == 0, stderr
    return "leased" in stdout


def pages(root: Path) -> dict[str, bytes]:
    docs = root / "rotary-docs"
    named = {str(path.relative_to(docs)): path.read_bytes() for path in docs.rglob("*.md")}
    return {path: data.replace(root.name.encode(), b"NAME") for path, data in named.items()}


def test_ctrl_c_in_a_run_says_that_it_saves_and_leaves_no_lease(make_repository):
    root = make_repository(CODE | {f"q{n}.py": f"def g{n}(a):\n    return a - {n}\n" for n in range(60)})
    run = TerminalRun("run", root, "--max-batch", 2, columns=100)
    run.read_until("answering")
    run.press(CTRL_C)
    run.read_until("Finishing this step and saving.\r\nPress Ctrl-C again to quit now; nothing stored is lost.\r\n")
    assert run.end() == 75
    assert "Traceback" not in run.text
    assert not leased(root)


def test_a_second_ctrl_c_quits_with_the_command_that_goes_on(make_repository):
    root = make_repository(CODE | {f"q{n}.py": f"def g{n}(a):\n    return a - {n}\n" for n in range(60)})
    run = TerminalRun("run", root, "--max-batch", 2, columns=100)
    run.read_until("answering")
    run.press(CTRL_C)
    run.read_until("Finishing this step")
    run.press(CTRL_C)
    code = run.end()
    assert code in {130, 75}  # the step may be over before the second
    if code == 130:
        assert f"nothing stored is lost, and `rotary-batch run {root} --max-batch 2` {GOES_ON}" in run.text
    assert not leased(root)
    assert json.loads(ended("status", root, "--json")[1])["running"] is None


@pytest.mark.parametrize("columns", [60, 110])
def test_the_bar_never_wraps_and_leaves_room_for_the_echo_of_ctrl_c(columns, make_repository):
    root = make_repository(CODE)
    run = TerminalRun("run", root, "--until", "07:00", columns=columns)
    assert run.end() == 0
    said = [line for line in run.lines if line.startswith(("reading files", "opening the model", "answering"))]
    assert {line.split("━")[0].strip(" ╸╺") for line in said} >= {"opening the model", "answering"}
    assert all(len(line.rstrip() + "^C") < columns for line in said), said
    assert f"The pages can be read already: {root}/rotary-docs/index.md" in run.text


def test_without_a_terminal_the_first_line_comes_at_once_and_quiet_is_quiet(make_repository):
    root = make_repository(CODE)
    child = start("run", root, "--limit", 3)
    first = child.stderr.readline()
    _, rest = child.communicate(timeout=200)
    assert first[5:] == " reading files\n"
    assert f"The pages can be read already: {root}/rotary-docs/index.md\n" in rest
    lines = [line[5:] for line in rest.splitlines()]
    assert any(line.endswith(" % 0/26, estimating, stops after 3 items") for line in lines), rest


def test_watch_needs_a_terminal_and_ctrl_c_ends_it(make_repository):
    root = make_repository(CODE)
    assert ended("index", root)[0] == 0
    code, _, stderr = ended("status", "--watch")
    assert (code, stderr.startswith("rotary-batch: --watch needs a terminal")) == (2, True)
    run = TerminalRun("status", "--watch", columns=80)
    run.read_until("No drain is running.")
    run.press(CTRL_C)
    assert run.end() == 0
    assert "Traceback" not in run.text


def test_the_end_of_the_terminal_saves_as_sigterm_does(make_repository):
    root = make_repository(CODE | {f"q{n}.py": f"def g{n}(a):\n    return a - {n}\n" for n in range(60)})
    run = TerminalRun("run", root, "--max-batch", 2, columns=100)
    run.read_until("answering")
    run.hang_up()
    assert run.process.wait(60) == 75
    assert json.loads(ended("report", "--json")[1])["outcome"] == "interrupted"
    assert not leased(root)


GONE = """
import os, pty
ours, theirs = pty.openpty()
os.dup2(theirs, 1)
os.close(theirs)
from rotary_batch import process
process._open_streams()
os.close(ours)
print("nobody reads this", flush=True)
print("nor this", flush=True)
os.write(2, b"goes on")
"""


def test_what_is_printed_to_a_terminal_that_is_gone_ends_nothing():
    """A write may fail before the signal is handled that says so."""
    done = subprocess.run([sys.executable, "-c", GONE], stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (0, "goes on")


def test_nohup_is_obeyed(make_repository):
    root = make_repository(CODE)
    command = ["nohup", sys.executable, "-m", "rotary_batch", "run", str(root)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while not child.stderr.readline()[5:].startswith(" opening the model"):
        os.killpg(child.pid, signal.SIGHUP)
    os.killpg(child.pid, signal.SIGHUP)
    _, stderr = child.communicate(timeout=200)
    assert child.returncode == 0, stderr


TWICE = """
import os, signal
from rotary_batch import interrupts, process
from rotary_batch.errors import UsageError
from rotary_batch.window import Window, stop_on_signals

def command():
    interrupts.unwind()
    with stop_on_signals(Window()):
        os.kill(os.getpid(), signal.SIGINT)

explain = process._explain
process._explain = lambda error: (os.kill(os.getpid(), signal.SIGINT), explain(error))[1]
process.guarded(command)
"""


def test_a_second_interrupt_while_the_first_is_explained_is_no_crash():
    done = subprocess.run([sys.executable, "-c", TWICE], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr.count("\n"), "quit at once" in done.stderr) == (130, 1, True), done.stderr


def test_an_interrupt_while_an_error_is_explained_is_no_crash():
    raised = TWICE.replace(
        "with stop_on_signals(Window()):\n        os.kill(os.getpid(), signal.SIGINT)", "raise UsageError('no')"
    )
    done = subprocess.run([sys.executable, "-c", raised], capture_output=True, text=True, timeout=60)
    assert (done.returncode, GOES_ON in done.stderr, "Traceback" in done.stderr) == (75, True, False), done.stderr
