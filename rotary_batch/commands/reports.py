"""The reports of a command that drains: JSON and Markdown, in a folder beside the database."""

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
    """One report an outcome.  All are written anew when there is more to say, so a kill leaves what there was."""

    def __init__(self, database: Path) -> None:
        self._folder = database.parent / "reports"
        self.paths: list[Path] = []  # the Markdown files, one an outcome

    def save(self, found: Sequence[DrainOutcome | Failure]) -> None:
        """Write what is known by now.  Raises OSError."""
        outcomes = [one for one in found if isinstance(one, DrainOutcome)]
        for number, outcome in enumerate(outcomes):
            if number == len(self.paths):
                self.paths.append(self._new_path())
            _write(outcome, failures(found), self.paths[number])

    def _new_path(self) -> Path:
        moment = datetime.now().astimezone().strftime("%Y-%m-%d-%H%M%S")
        names = chain([moment], (f"{moment}-{number}" for number in count(2)))  # another model's part of the same run
        paths = (self._folder / f"{name}.md" for name in names)
        return next(path for path in paths if path not in self.paths and not path.with_suffix(".json").exists())


def _write(outcome: DrainOutcome, failed: Sequence[Failure], path: Path) -> None:
    found = outcome.as_dict() | {"failures": [failure.as_dict() for failure in failed]}
    private_file.write(path.with_suffix(".json"), json.dumps(found, indent=1) + "\n")
    plain = {key: value for key, value in outcome.as_dict().items() if not isinstance(value, dict | list)}
    rows = [f"| {key} | {round(value, 1) if isinstance(value, float) else value} |" for key, value in plain.items()]
    rows += [f"| docs | {inline(str(folder))} |" for folder in outcome.docs]
    rows += [f"| not written | {inline(f'{page}: {reason}')} |" for page, reason in outcome.tally.pages_failed]
    rows += [f"| note | {inline(note)} |" for note in outcome.notes]
    rows += [f"| failed | {inline(str(failure))} |" for failure in failed]
    rows += [f"| {key} | {value} |" for key, value in outcome.tally.verdicts.items()]
    rows += [f"| ended: {key} | {value} |" for key, value in outcome.tally.ended.items()]
    text = "\n".join([f"# Run of {path.stem}", "", "| Figure | Value |", "| --- | --- |", *rows]) + "\n"
    private_file.write(path, text)
