"""How good the forecast of a night is: nights on several repositories, each forecast from the one before.

python -m benchmarks.forecast nights TRACE MINUTES FOLDER ...   index, plan and drain each folder with the embedded model
python -m benchmarks.forecast TRACE                             writes benchmarks/forecast.md

Three nights of an hour: `nights trace.jsonl 60 A B C D`.  The first only tells the pace, and is a third as long.  All
share one database, next to the trace.  A folder that is in no git repository is copied into one.  Every night is three
commands of the program, as a user types them.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.shapes import machine
from rotary_batch.commands.happened import at_moment

HERE = Path(__file__).parent
PROGRAM = [sys.executable, "-m", "rotary_batch"]
WORK_REMAINS = 75


def _program(*arguments: str) -> Any:
    done = subprocess.run([*PROGRAM, *arguments, "--json"], capture_output=True, text=True, check=False)
    if done.returncode not in {0, 5, WORK_REMAINS}:
        sys.exit(f"{arguments}: {done.stderr}")
    return json.loads(done.stdout)


def _repository(folder: Path, copies: Path) -> Path:
    """The folder, or a git repository with what is in it."""
    if (folder / ".git").exists():
        return folder
    root = copies / folder.name
    if not root.exists():
        shutil.copytree(folder, root, ignore=shutil.ignore_patterns("__pycache__", "*.so", "*.pyc"))
        for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "all"]):
            who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
            subprocess.run(["git", "-C", root, *who, *arguments], check=True)
    return root


def night(folder: Path, copies: Path, seconds: int) -> dict[str, Any]:
    """One night: what was forecast, and what happened."""
    root, db = str(_repository(folder, copies)), str(copies / "work.db")
    _program("index", root, "--db", db)
    (plan,) = _program("plan", root, "--for", f"{seconds}s", "--db", db)["models"]
    begun_s, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    (report,) = _program("drain", root, "--for", f"{seconds}s", "--db", db)
    after, wall_s = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic() - begun_s
    processor_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "name": folder.name,
        "seconds": seconds,
        "plan": plan.get("expected"),
        "report": report,
        "processors": processor_s / wall_s,
        "load": os.getloadavg()[1],
    }


def nights(trace: Path, minutes: float, folders: list[Path]) -> None:
    """The first folder tells the pace in a third of the time."""
    copies = trace.parent / f"{trace.stem}-nights"
    copies.mkdir(parents=True, exist_ok=True)
    for number, folder in enumerate(folders):
        found = night(folder, copies, round(minutes * 60 / (1 if number else 3)))
        with trace.open("a", encoding="utf-8") as file:
            file.write(json.dumps(found) + "\n")


def _ended(one: dict[str, Any]) -> int:
    report = one["report"]
    return int(report["done"] + report["reused"] + report["parked_by_run"])


def _error(_before: dict[str, Any], one: dict[str, Any]) -> float:
    return one["plan"]["items_by_deadline"] / _ended(one) - 1  # type: ignore[no-any-return]


def _error_at_equal_speed(before: dict[str, Any], one: dict[str, Any]) -> float:
    """That of the forecast, had the night before got as much of the processors as this one."""
    curve, gain = one["report"]["forecast"]["curve"], one["processors"] / before["processors"]
    return at_moment(curve, one["report"]["drain_s"] * gain) / _ended(one) - 1


def _worst(rows: list[dict[str, Any]], error: Callable[[dict[str, Any], dict[str, Any]], float]) -> float:
    return max((abs(error(before, one)) for before, one in pairwise(rows)), default=0.0)


def _row(before: dict[str, Any] | None, one: dict[str, Any]) -> str:
    report, is_first = one["report"], before is None
    tokens = report["prefill_tokens"] + report["decode_tokens"]
    cells = [
        one["name"],
        f"{one['seconds'] / 60:g} min",
        f"{report['items']:,}",
        "-" if is_first else f"{one['plan']['items_by_deadline']:,}",
        f"{_ended(one):,}",
        "-" if before is None else f"{_error(before, one):+.0%}",
        "-" if before is None else f"{_error_at_equal_speed(before, one):+.0%}",
        f"{tokens / report['step_s']:,.0f}",
        f"{one['processors']:.2f}",
        f"{one['load']:.1f}",
    ]
    return f"| {' | '.join(cells)} |"


def report(rows: list[dict[str, Any]]) -> str:
    """The Markdown file."""
    table = "\n".join(map(_row, [None, *rows[:-1]], rows))
    return f"""# The forecast of a night

Machine: {machine()}.
Command: `python -m benchmarks.forecast nights TRACE MINUTES FOLDER ...`, then `python -m benchmarks.forecast TRACE`.

Packages of Python, each in a git repository, worked on with the embedded model until a deadline. Before each night `plan --for`
said how many items would have ended by then, at the pace of the night before; the first night only told the pace. The error
is that of the forecast, as a share of what ended. "At equal speed" is the error of the same forecast for as much processor time
as the drain then got. "Processors" is that time, as a share of the time on the wall; "load" is the mean number of programs
that wanted a processor during the last five minutes of the night.

| Night | Time | Items in all | Forecast | Ended | Error | At equal speed | Tokens/s | Processors | Load |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
{table}

The goal is 15 % on three nights of an hour each. Here the worst error is {_worst(rows, _error):.0%}, and at equal speed \
{_worst(rows, _error_at_equal_speed):.0%}.
"""


def main() -> None:
    if sys.argv[1] == "nights":
        nights(Path(sys.argv[2]).resolve(), float(sys.argv[3]), [Path(name).resolve() for name in sys.argv[4:]])
    else:
        rows = [json.loads(line) for line in Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()]
        (HERE / "forecast.md").write_text(report(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
