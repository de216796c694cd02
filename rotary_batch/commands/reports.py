"""The reports of a command that drains: JSON and Markdown, in the folder of the database."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from itertools import chain, count
from pathlib import Path

from rotary_batch import private_file
from rotary_batch.commands.drain import DrainOutcome
from rotary_batch.commands.isolation import Failure, failures
from rotary_batch.pages.sanitise import inline


class Reports:
    """One report for each run.  All are rewritten after every outcome, so a kill leaves what is known by then."""

    def __init__(self, database: Path) -> None:
        self._folder = database.parent / "reports"
        self.paths: list[Path] = []  # the Markdown files, in the order of the outcomes

    def save(self, outcomes: Sequence[DrainOutcome | Failure]) -> None:
        """Write a report for each run; every report names all failures.  Raises OSError."""
        runs = [outcome for outcome in outcomes if isinstance(outcome, DrainOutcome)]
        for number, run in enumerate(runs):
            if number == len(self.paths):
                self.paths.append(self._new_path())
            _write(run, failures(outcomes), self.paths[number])

    def _new_path(self) -> Path:
        moment = datetime.now().astimezone().strftime("%Y-%m-%d-%H%M%S")
        names = chain([moment], (f"{moment}-{number}" for number in count(2)))  # another model's part of the same run
        paths = (self._folder / f"{name}.md" for name in names)
        return next(path for path in paths if path not in self.paths and not path.with_suffix(".json").exists())


def _write(outcome: DrainOutcome, failed: Sequence[Failure], path: Path) -> None:
    report = outcome.as_dict() | {"failures": [failure.as_dict() for failure in failed]}
    private_file.write(path.with_suffix(".json"), json.dumps(report, indent=1) + "\n")
    plain = {key: value for key, value in outcome.as_dict().items() if not isinstance(value, dict | list)}
    rows = [f"| {key} | {round(value, 1) if isinstance(value, float) else value} |" for key, value in plain.items()]
    rows += [f"| docs | {inline(str(folder))} |" for folder in outcome.docs]
    rows += [f"| not written | {inline(f'{page}: {reason}')} |" for page, reason in outcome.stats.pages_failed]
    rows += [f"| note | {inline(note)} |" for note in outcome.notes]
    rows += [f"| failed | {inline(str(failure))} |" for failure in failed]
    rows += [f"| {key} | {value} |" for key, value in outcome.stats.verdicts.items()]
    rows += [f"| ended: {key} | {value} |" for key, value in outcome.stats.ended.items()]
    text = "\n".join([f"# Run of {path.stem}", "", "| Figure | Value |", "| --- | --- |", *rows]) + "\n"
    private_file.write(path, text)
