"""However a run ends, its last lines, its report and `status` say why, what is left and what to do."""

from __future__ import annotations

import json
import os
import pty
import re
import resource
import signal
import sqlite3
import struct
import subprocess
import sys
import termios
import time
from fcntl import ioctl
from pathlib import Path

import pytest

from rotary_batch.cli.report import print_report
from rotary_batch.commands.run_report import RunReport, from_dict, seconds_left

CODE = {
    "pkg/box.py": "def put(thing):\n    '''Put it in.'''\n    return wrap(thing)\n",
    "pkg/wrap.py": "def wrap(thing):\n    return [thing]\n",
    "notes.xyz": "no code\n",
}
NUM_ITEMS = 6  # two chunks, two files, the folder, the repository
MANY = {f"m{n}.py": f"def f{n}(a):\n    return a + {n}\n" for n in range(40)}
PROGRAM = [sys.executable, "-m", "rotary_batch"]
# The real program with another engine.
STUBBED = """
import os, sys
from dataclasses import replace
from rotary_batch import cli, testing
from rotary_batch.commands import engines
from rotary_batch.core import ErrorClass, Failure

class Engine(testing.FakeEngine):
    steps = 0
    def step(self):
        Engine.steps += 1
        {in_step}
        return super().step()

def open_engine(_pack, _options):
    {on_open}
    return Engine(answer_tokens=3)

engines.open_engine = open_engine
sys.argv = ["rotary-batch", *sys.argv[1:]]
cli.main()
"""
FAILING = """live = dict(self._live)
        if Engine.steps > 1:
            self._live = {}
            failures = tuple(Failure(request_id=one, error="the `engine` refused", error_class=ErrorClass.BAD_ITEM) for one in live)
            return replace(testing.FakeEngine().step(), failures=failures)"""


def stubbed(*, in_step: str = "pass", on_open: str = "pass") -> list[str]:
    return [sys.executable, "-c", STUBBED.format(in_step=in_step, on_open=on_open)]


def run(program: list[str], *arguments: object, code: int = 0, **options: object) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([*program, *map(str, arguments)], capture_output=True, text=True, timeout=200, **options)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    return done


def errors(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The lines of stderr that say what failed; the others say how far it is."""
    mark = "rotary-batch: "
    return [line.removeprefix(mark) for line in done.stderr.splitlines() if line.startswith(mark)]


def state() -> Path:
    return Path(os.environ["XDG_STATE_HOME"]) / "rotary-batch"


def last_report(*, is_stored: bool = True) -> dict:
    """The last report, which is the same in `report --json`, the file and the database, and round-trips."""
    report = json.loads(run(PROGRAM, "report", "--json").stdout)
    assert from_dict(report).as_dict() == report
    if is_stored:
        assert json.loads(Path(report["file"]).with_suffix(".json").read_text()) == report
        status = json.loads(run(PROGRAM, "status", "--json").stdout)["last_run"]
        assert (status["outcome"], status["reason"]) == (report["outcome"], report["reason"])
    return report


def calm(text: str, root: Path) -> list[str]:
    """Lines without what differs from run to run."""
    text = text.replace(str(state() / "reports"), "REPORTS").replace(str(root), "ROOT")
    text = re.sub(r"[0-9]{4}-[0-9]{2}-[0-9]{2}-[0-9]{6}(-[0-9]+)?", "MOMENT", text)
    text = re.sub(r"about (a minute|[0-9a-z ]+) more", "about TIME more", text)
    return re.sub(r"\b[0-9]{2}:[0-9]{2}\b", "HH:MM", text).splitlines()


PAGES = "Pages: ROOT/rotary-docs/index.md"
REPORT = "Report: REPORTS/MOMENT.md"


def answers(report: dict) -> str:
    """The line about answers, from the counts of the report."""
    words = {"low-confidence": "unsure", "unfaithful": "not borne out by the code", "empty": "empty"}
    counts = report["verdicts"]
    reasons = [(counts[name], word) for name, word in words.items() if counts.get(name)]
    why = reasons[0][1] if len(reasons) == 1 else ", ".join(f"{number} {word}" for number, word in reasons)
    shown = counts.get("shown", 0)
    withheld = f"{report['done'] - shown} withheld ({why})" if reasons else "none withheld"
    endings = [("length", "too long"), ("loop", "repetitive")]
    cut = ", ".join(f"{report['ended'][name]} {word}" for name, word in endings if report["ended"].get(name))
    tail = f" Cut short: {cut}." if cut else ""
    return f"New answers: {shown} shown, {withheld}.{tail}"


def test_a_limit_then_the_rest_then_nothing(make_repository):
    root = make_repository(CODE)
    read = [
        "Read 2 of 3 files: 2 symbols, 6 items queued. 6 pages written.",
        "Not read: 1 in no language that is read.",
    ]
    first = run(PROGRAM, "run", root, "--limit", 2, code=75)
    report = last_report()
    assert (report["outcome"], report["answered"], report["open"], report["reason"]) == ("limit", 2, 4, None)
    assert (report["exit_code"], report["seconds_left"] > 0, report["pages_changed"]) == (75, True, 6)
    assert [line for line in calm(first.stderr, root) if line in read] == read
    assert calm(first.stdout, root) == [
        "Stopped at HH:MM, at the limit of items. 2 of 6 answered, 0 failed; about TIME more.",
        answers(report),
        "Next: `rotary-batch run ROOT` continues from here.",
        PAGES,
        REPORT,
    ]
    second = run(PROGRAM, "run", root)
    assert calm(second.stdout, root) == [
        "Finished at HH:MM. 6 of 6 answered, 0 failed.",
        answers(last_report()),
        "Next: `rotary-batch site ROOT --serve` shows the pages in a browser.",
        PAGES,
        REPORT,
    ]
    third = run(PROGRAM, "run", root)
    assert third.stdout == "Nothing to do; 6 pages are current.\n"
    quiet = run(PROGRAM, "run", root, "--quiet")
    assert (quiet.stdout, quiet.stderr) == ("", "")
    assert calm(run(PROGRAM, "report").stdout, root)[1] == "Nothing to do; 6 pages are current."


def test_a_terminal_gets_ten_pages_from_the_docs_folder_on(capsys):
    """Fifty absolute paths pushed the outcome off the screen, and broke lines of 60 columns."""
    docs = "/home/me/src/app/rotary-docs"
    report = RunReport(
        run=1,
        command="run",
        database="/work.db",
        model=None,
        outcome="done",
        started_at="2026-11-27T23:00:03+00:00",
        ended_at="2026-11-28T06:00:01+00:00",
        docs=[docs],
        pages_changed=60,
        pages=[f"{docs}/{number}.md" for number in range(50)],
    )
    print_report(report)
    _, _, listed = capsys.readouterr().out.partition("Pages that changed\n")
    assert listed.splitlines()[:12] == [*(f"  rotary-docs/{number}.md" for number in range(10)), "  and 50 more", ""]


def test_index_ends_in_words(make_repository, git):
    root = make_repository(CODE | {"pic.png": b"\x89PNG\0", "lib.min.js": b"a=1;" * 9000})
    lines = calm(run(PROGRAM, "index", root).stdout, root)
    assert lines[0] == "Read 2 of 5 files: 2 symbols, 6 items queued. 6 pages written."
    assert lines[1] == "Not read: 2 in no language that is read and 1 minified."
    assert lines[3:] == [
        "Next: `rotary-batch run ROOT` lets the model write; `rotary-batch plan ROOT` estimates how long that takes.",
        PAGES,
    ]
    again = calm(run(PROGRAM, "index", root).stdout, root)
    assert again[0] == "Nothing has changed; 6 pages are current."
    (root / "pkg" / "wrap.py").write_text("def wrap(thing):\n    return (thing,)\n")
    git(root, "rm", "-q", "pkg/box.py")
    git(root, "commit", "-qam", "change")
    changed = calm(run(PROGRAM, "index", root).stdout, root)
    assert changed[0] == "Read 1 of 4 files: 1 symbol, 4 items queued. 5 pages written, 1 removed."
    assert run(PROGRAM, "index", root, "--quiet").stdout == ""
    assert "other files, not documented" in run(PROGRAM, "index", root, "--verbose").stdout


def test_what_fails_before_an_engine_opens_has_a_report(make_repository):
    root = make_repository(CODE)
    done = run(PROGRAM, "run", "--model", "/nowhere", root, code=3)
    why = "ROOT: /nowhere: no such folder; name the folder of a pack or of a checkpoint"
    assert calm("\n".join(errors(done)), root) == [why]
    assert calm(done.stdout, root) == [
        "Failed at HH:MM.",
        "Next: once that is fixed, `rotary-batch run ROOT` continues from here.",
        REPORT,
    ]
    report = last_report()
    assert (report["outcome"], report["exit_code"], report["reason"]) == ("failed", 3, why.replace("ROOT", str(root)))
    assert calm(run(PROGRAM, "report").stdout, root)[1:4] == [
        "Failed at HH:MM.",
        why,
        "Next: once that is fixed, `rotary-batch run ROOT` continues from here.",
    ]
    assert f"Reason: {report['reason']}\n" in run(PROGRAM, "status").stdout


def test_a_model_that_is_gone_and_a_device_that_is_too_small(make_repository):
    root = make_repository(CODE)
    run(PROGRAM, "index", root)
    done = run(PROGRAM, "drain", "--device-memory", "1MB", code=69)
    assert calm(done.stdout, root) == [
        "Failed at HH:MM. 0 of 6 answered, 0 failed.",
        "Next: once that is fixed, `rotary-batch drain ROOT` continues from here.",
        PAGES,
        REPORT,
    ]
    assert [last_report()["reason"]] == errors(done)
    with sqlite3.connect(state() / "work.db") as db:
        db.execute("update repository set pack_dir = '/gone', model_name = 'gone'")
    db.close()
    run(PROGRAM, "drain", code=3)
    assert "/gone" in last_report()["reason"]


def test_nothing_is_indexed(make_repository, git):
    root = make_repository(CODE)
    run(PROGRAM, "index", root)
    run(PROGRAM, "forget", root)
    assert run(PROGRAM, "drain").stdout.splitlines()[0] == "Nothing to do; nothing is indexed yet."
    run(PROGRAM, "drain", root, code=3)
    assert "not indexed yet" in last_report()["reason"]


def test_items_that_fail_are_named_with_their_reasons(make_repository):
    root = make_repository(CODE)
    run(PROGRAM, "index", root)
    done = run(stubbed(in_step=FAILING), "drain", code=5)
    report = last_report()
    parked = {(one["path"], one["unit"]): one["error"] for one in report["parked_by_file"]}
    assert (
        report["parked"]
        == report["items"] - report["answered"]
        == sum(one["num_items"] for one in report["parked_by_file"])
        > 0
    )
    assert set(parked.values()) == {"the `engine` refused"}
    assert calm(done.stdout, root) == [
        f"Finished at HH:MM. {report['answered']} of 6 answered, {report['parked']} failed.",
        *([answers(report)] if report["done"] else []),
        "Next: `rotary-batch report` says why they failed, `rotary-batch retry ROOT` queues them again.",
        PAGES,
        REPORT,
    ]
    text = calm(run(PROGRAM, "report").stdout, root)
    assert "Items that failed" in text
    assert "  pkg/: 1 item: the `engine` refused" in text
    markdown = Path(report["file"]).read_text()
    assert "- pkg/: 1 item: the `engine` refused\n" in markdown


@pytest.mark.parametrize(
    ("error", "code", "why"),
    [
        ('raise KeyError("no")', 70, "a bug: KeyError: 'no'"),
        ("raise MemoryError", 69, "not enough memory; allow more"),
        ('raise OSError(28, "No space left on device", "/d")', 74, "/d: No space left on device"),
        ('raise __import__("rotary_batch.errors").errors.DatabaseError("the disk is full")', 74, "the disk is full"),
    ],
)
def test_an_error_in_the_engine_is_the_reason(make_repository, error, code, why):
    root = make_repository(CODE)
    run(PROGRAM, "index", root)
    done = run(stubbed(in_step=f"if Engine.steps > 4: {error}"), "drain", "--max-batch", 1, code=code)
    (said,) = errors(done)
    report = last_report()
    assert (report["outcome"], report["exit_code"], report["answered"] > 0) == ("failed", code, True)
    assert why in report["reason"]
    if code == 70:
        assert report["crash_file"] in said
        assert "Traceback" in Path(report["crash_file"]).read_text()
        assert f"Next: report the bug with {report['crash_file']} " in run(PROGRAM, "report").stdout


def test_a_deadline(make_repository):
    root = make_repository(CODE)
    run(PROGRAM, "index", root)
    done = run(stubbed(in_step='__import__("time").sleep(0.3)'), "drain", "--for", "2s", "--max-batch", 1, code=75)
    report = last_report()
    left = "; about TIME more" if report["seconds_left"] else ""
    assert calm(done.stdout, root) == [
        f"Stopped at HH:MM. {report['answered']} of 6 answered, 0 failed{left}.",
        *([answers(report)] if report["done"] else []),
        "Next: `rotary-batch drain ROOT` continues from here.",
        PAGES,
        REPORT,
    ]
    assert (report["outcome"], report["exit_code"]) == ("deadline", 75)


def started(root: Path) -> subprocess.Popen[str]:
    """A drain of the embedded model that has answered something."""
    child = subprocess.Popen(
        [*PROGRAM, "drain", "--max-batch", "1", str(root)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    db = sqlite3.connect(f"{(state() / 'work.db').as_uri()}?mode=ro", uri=True)
    deadline = time.monotonic() + 100
    while not db.execute("select count(*) from item where state = 'done'").fetchone()[0]:
        assert child.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    db.close()
    return child


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal(make_repository, number):
    root = make_repository(MANY)
    run(PROGRAM, "index", root)
    child = started(root)
    child.send_signal(number)
    out, err = child.communicate(timeout=100)
    assert child.returncode == 75, err
    report = last_report()
    assert (report["outcome"], report["answered"] + report["open"]) == ("interrupted", report["items"])
    left = "; about TIME more" if report["seconds_left"] else ""
    assert calm(out, root) == [
        f"Interrupted at HH:MM. {report['answered']} of {report['items']} answered, 0 failed{left}.",
        answers(report),
        "Next: `rotary-batch drain ROOT` continues from here.",
        PAGES,
        REPORT,
    ]


def test_a_kill_is_reported_at_once_and_written_by_the_next_command(make_repository):
    root = make_repository(MANY)
    run(PROGRAM, "index", root)
    child = started(root)
    running = last_report(is_stored=False)
    assert (running["outcome"], running["ended_at"], running["exit_code"]) == ("still running", None, None)
    child.kill()
    child.communicate()
    report = last_report(is_stored=False)
    assert (report["outcome"], report["file"], report["answered"] > 0) == ("killed", None, True)
    assert report["reason"].startswith("It ended without a word: kill -9, a power cut")
    lines = calm(run(PROGRAM, "report").stdout, root)
    assert lines[1] == f"Killed at HH:MM or later. {report['answered']} of {report['items']} answered, 0 failed" + (
        "; about TIME more." if report["seconds_left"] else "."
    )
    assert [line for line in lines[2:] if line.startswith(("It ended", "Next"))] == [
        report["reason"],
        "Next: `rotary-batch drain ROOT` continues from here.",
    ]
    run(PROGRAM, "render", root)
    written = last_report()
    assert (written["outcome"], Path(written["file"]).is_file()) == ("killed", True)
    assert written | {"file": None} == report | {"pages_current": written["pages_current"]}


def test_a_disk_that_is_full(make_repository):
    """A limit of the size of files stands for it: the database cannot grow, what replaces bytes in it can be written."""
    root = make_repository(MANY)
    run(PROGRAM, "index", root)
    limit = (state() / "work.db").stat().st_size
    done = run(
        stubbed(), "drain", code=74, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    )
    report = last_report(is_stored=False)
    assert report["outcome"] in {"failed", "killed"}
    (file,) = (state() / "reports").glob("*.json")
    written = json.loads(file.read_text())
    assert (written["outcome"], written["exit_code"]) == ("failed", 74)
    assert [written["reason"]] == errors(done)


def test_a_database_that_is_lost(make_repository):
    root = make_repository(CODE)
    run(PROGRAM, "index", root)
    database = str(state() / "work.db")
    lost = f"if Engine.steps == 3: open({database!r}, 'wb').close()"
    done = run(stubbed(in_step=lost), "drain", "--max-batch", 1, code=74)
    (file,) = (state() / "reports").glob("*.json")
    written = json.loads(file.read_text())
    assert (written["outcome"], [written["reason"]]) == ("failed", errors(done))


def in_terminal(columns: int, *arguments: object, term: str = "xterm-256color") -> str:
    """What the program prints on a terminal of that width."""
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES"}}
    child = subprocess.Popen(
        [*PROGRAM, *map(str, arguments)], stdout=theirs, stderr=theirs, stdin=theirs, env=environment | {"TERM": term}
    )
    os.close(theirs)
    parts = []
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:
            break
        if not part:
            break
        parts.append(part)
    os.close(ours)
    child.wait(timeout=100)
    return b"".join(parts).decode().replace("\r\n", "\n")


LINK = re.compile(r"\x1b\]8;;([^\x1b]*)\x1b\\")


def test_a_narrow_terminal_breaks_lines_between_words_only(make_repository):
    root = make_repository(CODE, name="a \x1b[31m[b]")
    run(PROGRAM, "run", root, "--limit", 2, code=75)
    wide = run(PROGRAM, "report").stdout
    for columns in (60, 110):
        shown = in_terminal(columns, "report")
        targets = LINK.findall(shown)
        assert [target for target in targets if target][-3:] == [
            (root / "rotary-docs" / "index.md").as_uri(),
            Path(last_report()["file"]).as_uri(),
            Path(last_report()["file"]).with_suffix(".html").as_uri(),
        ]
        text = LINK.sub("", shown)
        assert text.replace("\n", "").isprintable()
        assert text.split() == wide.split()
        long = [line for line in text.splitlines() if len(line) > columns]
        assert all(str(root.parent) in line or "REPORTS" in line or str(state()) in line for line in long), long
    assert "\x1b" not in in_terminal(60, "report", term="dumb")


def test_the_documented_report_is_a_report(make_repository):
    text = (Path(__file__).parents[1] / "docs" / "reports.md").read_text()
    (example,) = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    report = json.loads(example)
    assert from_dict(report).as_dict() == report
    root = make_repository(CODE)
    run(PROGRAM, "run", root, "--limit", 2, code=75)
    real = last_report()
    assert list(real) == list(report)
    described = set(re.findall(r"^\| `([a-z_]+)`", text.partition("## JSON")[2], re.MULTILINE))
    assert described == set(real)


def test_no_time_left_is_told_by_the_first_few_tokens():
    done = {"prefill_tokens": 40, "decode_tokens": 9, "step_s": 7.0}
    assert seconds_left(951, done) is None  # less than 5 % is done
    assert seconds_left(931, done) == 931 / 49 * 7.0
    assert (seconds_left(0, {}), seconds_left(10, {})) == (0.0, None)
