"""Runs as Prometheus metrics: a text file for the textfile collector of node_exporter.

Format: https://prometheus.io/docs/instrumenting/exposition_formats/ (text, version 0.0.4).  The names are documented in
docs/reports.md.  No path, name or text of a repository is in it, only the name of the model.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from rotary_batch.commands.run_report import RunReport
from rotary_batch.core import Verdict

PREFIX = "rotary_batch_"
MODE = 0o644  # the collector is another user


class Metric(NamedTuple):
    """One line: a name, its labels and its value."""

    name: str
    value: float
    labels: tuple[tuple[str, str], ...] = ()


HELP = {
    "run_start_timestamp_seconds": "When the last run began.",
    "run_end_timestamp_seconds": "When the last run ended.",
    "run_outcome": "1 for how the last run ended: done, deadline, limit, interrupted, failed.",
    "run_exit_code": "The exit code of the last run.",
    "run_seconds": "How long the last run took.",
    "run_answers": "New answers of the last run, by whether they are shown.",
    "run_reused_answers": "Answers of the last run that earlier runs gave to equal prompts.",
    "run_prompt_tokens": "Prompt tokens that the last run read.",
    "run_generated_tokens": "Tokens that the last run generated.",
    "run_steps": "Steps of the engine in the last run.",
    "run_step_seconds": "Seconds of these steps.",
    "run_bound_seconds": "The least that these steps could have taken at the measured rates; 0 when none are known.",
    "run_moved_bytes": "Bytes of experts that were moved into device memory.",
    "run_stall_seconds": "Seconds in which the compute waited for experts.",
    "run_sentences": "Sentences of new answers that were held against the code.",
    "run_sentences_shown": "Those of them that are shown.",
    "run_pages_changed": "Pages that the last run wrote.",
    "items": "Items of the repositories of the last run, by state.",
    "seconds_left": "About how long the open items take, at the rate of the last run.",
    "wal_bytes": "The size of the write-ahead log of the database.",
    "last_success_timestamp_seconds": "When a run last ended without an error, work that remains or not.",
}


def text(reports: Sequence[RunReport], last_success: str | None) -> str:
    """The file: the metrics of all runs of a command, one for each model."""
    lines: list[str] = []
    metrics = [metric for report in reports for metric in _metrics(report)]
    if reports:
        metrics.append(Metric("wal_bytes", _wal_nbytes(Path(reports[0].database))))
    if last_success is not None:
        metrics.append(Metric("last_success_timestamp_seconds", _timestamp(last_success)))
    for name, words in HELP.items():
        found = [metric for metric in metrics if metric.name == name]
        if found:
            lines += [f"# HELP {PREFIX}{name} {words}", f"# TYPE {PREFIX}{name} gauge", *map(_line, found)]
    return "".join(f"{line}\n" for line in lines)


def _metrics(report: RunReport) -> Iterator[Metric]:
    stats, model = report.stats, (("model", report.model or ""),)
    engine, verdicts = stats.get("engine", {}), stats.get("verdicts", {})
    shown = verdicts.get(Verdict.SHOWN, 0)
    yield Metric("run_start_timestamp_seconds", _timestamp(report.started_at), model)
    if report.ended_at is not None:
        yield Metric("run_end_timestamp_seconds", _timestamp(report.ended_at), model)
    yield Metric("run_outcome", 1, (*model, ("outcome", report.outcome)))
    if report.exit_code is not None:
        yield Metric("run_exit_code", report.exit_code, model)
    yield Metric("run_answers", shown, (*model, ("shown", "true")))
    yield Metric("run_answers", report.new_answers - shown, (*model, ("shown", "false")))
    for name, value in (
        ("run_seconds", report.seconds),
        ("run_reused_answers", stats.get("reused", 0)),
        ("run_prompt_tokens", stats.get("prefill_tokens", 0)),
        ("run_generated_tokens", stats.get("decode_tokens", 0)),
        ("run_steps", stats.get("revolutions", 0)),
        ("run_step_seconds", stats.get("step_s", 0)),
        ("run_bound_seconds", stats.get("bound_s", 0)),
        ("run_moved_bytes", engine.get("bytes_moved", 0)),
        ("run_stall_seconds", engine.get("stall_s", 0)),
        ("run_sentences", stats.get("sentences", 0)),
        ("run_sentences_shown", stats.get("sentences_shown", 0)),
        ("run_pages_changed", report.pages_changed),
    ):
        yield Metric(name, value, model)
    for state, number in (("answered", report.answered), ("failed", report.parked), ("open", report.open)):
        yield Metric("items", number, (*model, ("state", state)))
    if report.seconds_left is not None:
        yield Metric("seconds_left", report.seconds_left, model)


def _timestamp(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()


def _wal_nbytes(database: Path) -> int:
    with suppress(OSError):
        return database.with_name(f"{database.name}-wal").stat().st_size
    return 0


def _line(metric: Metric) -> str:
    labels = ",".join(f'{name}="{_escaped(value)}"' for name, value in metric.labels)
    return f"{PREFIX}{metric.name}{f'{{{labels}}}' if labels else ''} {metric.value:.17g}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def write(path: Path, content: str) -> None:
    """Write the file whole or not at all: the collector may read it at any moment.  Raises OSError."""
    with tempfile.NamedTemporaryFile(
        "w", dir=path.parent, prefix=f".{path.name}-", delete=False, encoding="utf-8", errors="backslashreplace"
    ) as file:
        try:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), MODE)
            os.fsync(file.fileno())
            Path(file.name).replace(path)
        except OSError:
            with suppress(OSError):
                Path(file.name).unlink()
            raise
