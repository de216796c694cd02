"""How good the time left is that a run shows: real runs with the embedded model, and what each would have shown.

python -m benchmarks.time_left record REPOSITORY TRACE     index and drain a git repository, write down every step
python -m benchmarks.time_left TRACE ...                   writes benchmarks/time_left.md

A trace has what the meter got, so that a changed meter can be tried on an old run.  There are two clocks: the one on the
wall, on which other programs slow the run down as they come and go, and the processor time of the run, which is what a
run with one thread (`OMP_NUM_THREADS=1`) would take on a processor of its own.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.shapes import machine
from rotary_batch.commands import drain, engines, watching
from rotary_batch.commands.configuration import configure
from rotary_batch.commands.database import writing
from rotary_batch.commands.index import IndexRequest, index, index_views
from rotary_batch.commands.meter import Meter
from rotary_batch.commands.recording import recording
from rotary_batch.commands.repositories import select_repositories
from rotary_batch.commands.run_report import RunReport
from rotary_batch.commands.step_costs import StepWork
from rotary_batch.core import Unit
from rotary_batch.window import Window
from rotary_batch.work.rows import UnitWork

HERE = Path(__file__).parent
CLOCKS = ("processor", "wall")
MARKS = (0.1, 0.25, 0.5, 0.75, 0.9)  # shares of the time of a run


class Recorder(Meter):
    """A meter that writes down what it gets."""

    rows: list[dict[str, Any]] = []  # noqa: RUF012 - one run in one process
    processor_s: float | None = None  # of this process, until the last step

    def add(self, step: StepWork) -> None:
        now_s = time.process_time()
        before_s = now_s - step.seconds if self.processor_s is None else self.processor_s
        Recorder.processor_s = now_s
        self.rows.append({"step": step._asdict(), "processor_s": now_s - before_s})
        super().add(step)

    def renew(self, work: list[UnitWork]) -> None:
        self.rows[-1]["work"] = [asdict(one) for one in work]
        super().renew(work)


def record(root: Path, trace: Path) -> None:
    """Index and drain in this process."""
    watching.Meter = Recorder  # type: ignore[misc]
    with tempfile.TemporaryDirectory() as folder:
        configured = configure(None, [root], {"db": Path(folder) / "work.db", "engine": "in-process"})
        with writing(configured.for_command().settings) as store:
            views = index_views(store)
            index(
                IndexRequest(
                    store=store,
                    settings_of=configured.for_repository,
                    window=Window(),
                    views=views,
                    progress=lambda *_: None,
                ),
                [root],
            )
            window = Window()
            with recording(store, "drain", window) as recorder:
                request = drain.DrainRequest(
                    store=store,
                    settings_of=configured.for_indexed,
                    window=window,
                    open_engine=engines.open_engine,
                    recorder=recorder,
                    views=views,
                )
                (outcome,) = drain.drain(request, select_repositories(store, [root]))
    assert isinstance(outcome, RunReport), str(outcome)
    trace.write_text("".join(f"{json.dumps(row)}\n" for row in Recorder.rows), encoding="utf-8")


class Shown(NamedTuple):
    """What a run showed after a step."""

    past_s: float
    left_s: float | None


def replay(trace: Path, clock: str) -> list[Shown]:
    """What the meter of today shows in an earlier run, on one of its clocks."""
    rows = [json.loads(line) for line in trace.read_text(encoding="utf-8").splitlines()]
    meter, shown, past_s = Meter(_work(rows[0])), [], 0.0
    for row in rows:
        step = _step(row)
        if clock == "processor":
            step = step._replace(seconds=row["processor_s"])
        meter.add(step)
        if "work" in row:
            meter.renew(_work(row))
        past_s += step.seconds
        shown.append(Shown(past_s, meter.left_s()))
    return shown


def _step(row: dict[str, Any]) -> StepWork:
    step = dict(row["step"])
    for name in ("generated", "prompts"):
        step[name] = {int(item): count for item, count in step[name].items()}
    return StepWork(**step)


def _work(row: dict[str, Any]) -> list[UnitWork]:
    return [UnitWork(**one | {"unit": Unit(one["unit"])}) for one in row["work"]]


def errors(shown: list[Shown]) -> Iterator[tuple[float, float]]:
    """(share of the time that is past, error of the time left as a share of it), where something was shown."""
    total_s = shown[-1].past_s
    for one in shown:
        if one.left_s is not None and one.past_s < total_s:
            yield one.past_s / total_s, one.left_s / (total_s - one.past_s) - 1


def _row(trace: Path, clock: str) -> str:
    shown = replay(trace, clock)
    found = list(errors(shown))
    at = [min(found, key=lambda one: abs(one[0] - mark))[1] for mark in MARKS]
    worst = max((abs(error) for share, error in found if MARKS[0] <= share <= MARKS[-1]), default=0.0)
    cells = [trace.stem, clock, f"{shown[-1].past_s:,.0f} s", *(f"{error:+.0%}" for error in at), f"{worst:.0%}"]
    return f"| {' | '.join(cells)} |"


def report(traces: list[Path]) -> str:
    """The Markdown file."""
    rows = [_row(trace, clock) for trace in traces for clock in CLOCKS]
    marks = " | ".join(f"At {mark:.0%}" for mark in MARKS)
    return f"""# The time left that a run shows

Machine: {machine()}.
Command: `python -m benchmarks.time_left TRACE ...`, after `record` for each.

Packages of Python, each in a git repository, drained once with the embedded model. The error is that of the time left, as a
share of the time that was really left when so much of the time was past. The goal is 25% from 10% of the work on, in runs of
at least five minutes. On the clock `processor` a step takes its processor time, as on a processor that nothing else uses; `wall`
is the clock on the wall.

| Run | Clock | Took | {marks} | Worst from {MARKS[0]:.0%} to {MARKS[-1]:.0%} |
| {" | ".join(["---"] * (len(MARKS) + 4))} |
{chr(10).join(rows)}
"""


def main() -> None:
    if sys.argv[1] == "record":
        record(Path(sys.argv[2]).resolve(), Path(sys.argv[3]))
    else:
        (HERE / "time_left.md").write_text(report([Path(name) for name in sys.argv[1:]]), encoding="utf-8")


if __name__ == "__main__":
    main()
