"""The report of a run, as plain data: one object for the terminal, Markdown, the JSON file and `report --json`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rotary_batch.commands.isolation import Failure, exit_code
from rotary_batch.commands.meter import ESTIMATE_FROM
from rotary_batch.pages.site import NOT_PAGES
from rotary_batch.work import counts
from rotary_batch.work.counts import ParkedFile, Tally
from rotary_batch.work.page_stamps import num_current
from rotary_batch.work.rows import RunRow
from rotary_batch.work.runs import ENDED, KILLED, RUNNING, killed
from rotary_batch.work.secrets import StoredSecret, num_secrets, secrets
from rotary_batch.work.store import WorkStore
from rotary_batch.work.verdicts import ModelScore, PageScore, by_model, lowest_pages

SCHEMA = 1
MAX_LISTED = 50  # pages, and files that failed; a report is for reading
_DERIVED = {"schema", "open", "exit_code"}
MAX_PAGES = 10  # with the lowest scores
_ROWS: Mapping[str, Callable[..., Any]] = {
    "parked_by_file": ParkedFile,
    "scores": ModelScore,
    "lowest_pages": PageScore,
    "secrets": StoredSecret,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """What a run did, why it ended, what is left.  Counts of items are those of its repositories at its end."""

    run: int
    command: str
    database: str
    model: str | None
    outcome: str
    reason: str | None = None  # why it failed or was stopped
    crash_file: str | None = None  # what to send to the project
    started_at: str
    ended_at: str | None = None
    seconds: float = 0.0
    repositories: Sequence[str] = ()
    docs: Sequence[str] = ()  # their docs folders
    items: int = 0
    answered: int = 0
    parked: int = 0
    tokens_left: int = 0
    seconds_left: float | None = None  # at the rate of this run; None = not known
    pages_current: int = 0
    pages_changed: int = 0
    pages: Sequence[str] = ()  # the first of those
    files_parked: int = 0  # files and folders with parked items, by reason
    parked_by_file: Sequence[ParkedFile] = ()  # the first of those
    failures: Sequence[Failure] = ()  # of repositories
    scores: Sequence[ModelScore] = ()  # how many sentences are shown, by model
    lowest_pages: Sequence[PageScore] = ()  # of whose sentences the smallest share is shown
    num_secrets: int = 0
    secrets: Sequence[StoredSecret] = ()  # the first of those
    notes: Sequence[str] = ()
    file: str | None = None  # this report as Markdown; the JSON is next to it
    stats: Mapping[str, Any] = field(default_factory=dict)  # of `run_stats.RunStats`

    @property
    def open(self) -> int:
        """How many items are neither answered nor parked."""
        return self.items - self.answered - self.parked

    @property
    def exit_code(self) -> int | None:
        """That of the command so far: of what failed, else 75 while work remains, 5 when items are parked, 0."""
        if self.outcome in {KILLED, RUNNING}:
            return None
        return exit_code([*(one.exit_code for one in self.failures), 75 if self.open else 5 if self.parked else 0])

    @property
    def did_nothing(self) -> bool:
        """Whether there was nothing to do."""
        done = (self.new_answers, self.stats.get("reused"), self.stats.get("parked_by_run"), self.pages_changed)
        return self.outcome == ENDED and not (self.open or self.failures or any(done))

    @property
    def new_answers(self) -> int:
        """Answers that the model gave in this run."""
        return int(self.stats.get("done", 0))

    def as_dict(self) -> dict[str, Any]:
        """Plain data; the figures of the run are at the top level."""
        own = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "stats"}
        own |= {
            **{name: [one._asdict() for one in getattr(self, name)] for name in _ROWS},
            "failures": [one.as_dict() for one in self.failures],
        }
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in own.items()}
        return {"schema": SCHEMA, **plain, "open": self.open, "exit_code": self.exit_code, **self.stats}

    def as_json(self) -> str:
        """As it is stored and written."""
        return json.dumps(self.as_dict(), indent=1)


def from_dict(data: Mapping[str, Any]) -> RunReport:
    """Read `as_dict` back."""
    names = {one.name for one in fields(RunReport)} - {"stats"}
    own = {name: value for name, value in data.items() if name in names}
    own |= {name: [row(**one) for one in own.get(name, ())] for name, row in _ROWS.items()}
    own["failures"] = [Failure(**one) for one in own["failures"]]
    own = {name: tuple(value) if isinstance(value, list) else value for name, value in own.items()}
    stats = {name: value for name, value in data.items() if name not in names | _DERIVED}
    return RunReport(**own, stats=stats)


def stored(store: WorkStore, run: RunRow, *, is_driver_alive: bool) -> RunReport:
    """The report of a run: as it was stored at its end, or of what is known of one that did not come to it."""
    if run.report is not None:
        return from_dict(json.loads(run.report))
    if run.outcome is None:
        run = replace(run, outcome=RUNNING) if is_driver_alive else killed(run)
    return of_run(store, run)


def of_run(store: WorkStore, run: RunRow) -> RunReport:
    """What the database knows of a run, which may still go on."""
    repositories = counts.roots_of_run(store, run.id)
    ids = list(repositories)
    tally = counts.tally(store, ids)
    tokens = counts.tokens_left(store, ids)
    num_files, parked = counts.parked_by_file(store, ids, MAX_LISTED)
    return RunReport(
        **_own(run, tally, store.db.path),
        repositories=tuple(root for root, _ in repositories.values()),
        docs=tuple(str(Path(root) / docs) for root, docs in repositories.values()),
        tokens_left=tokens,
        seconds_left=seconds_left(tokens, run.stats),
        pages_current=num_current(store, ids, NOT_PAGES),
        files_parked=num_files,
        parked_by_file=tuple(parked),
        scores=tuple(by_model(store, ids)),
        lowest_pages=tuple(lowest_pages(store, ids, MAX_PAGES)),
        num_secrets=num_secrets(store, ids),
        secrets=tuple(secrets(store, ids, MAX_LISTED)),
    )


def without_database(run: RunRow, database: Path) -> RunReport:
    """What is known of a run whose database cannot be read any more."""
    return RunReport(**_own(run, Tally(), database))


def _own(run: RunRow, tally: Tally, database: Path) -> dict[str, Any]:
    own_names = {one.name for one in fields(RunReport)}
    return {
        "run": run.id,
        "command": run.command,
        "database": str(database.absolute()),
        "model": run.model_name,
        "outcome": run.outcome or RUNNING,
        "reason": run.reason,
        "started_at": run.started_at,
        "ended_at": run.ended_at,
        "seconds": _seconds(run),
        "items": tally.items,
        "answered": tally.answered,
        "parked": tally.parked,
        "stats": {
            "parked_by_run": run.stats.get("parked", 0),
            **{name: value for name, value in run.stats.items() if name not in own_names | {"progress", "activity"}},
        },
    }


def _seconds(run: RunRow) -> float:
    end = datetime.now(UTC) if run.ended_at is None else datetime.fromisoformat(run.ended_at)
    return round((end - datetime.fromisoformat(run.started_at)).total_seconds(), 3)


def seconds_left(tokens: int, stats: Mapping[str, Any]) -> float | None:
    """How long that many tokens take at the rate of a run; None when it did less than 5 % of them, too few to tell."""
    done = stats.get("prefill_tokens", 0) + stats.get("decode_tokens", 0)
    if not tokens:
        return 0.0
    return tokens * stats["step_s"] / done if done >= ESTIMATE_FROM * (done + tokens) and stats.get("step_s") else None
