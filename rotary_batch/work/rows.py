"""The values that go into the store and come out of it."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from rotary_batch.core import Completion, ErrorClass, Lease, Request, Subject, Unit, ValidationResult, Verdict, WorkItem


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryRow:
    """One indexed repository, and the settings that it was indexed with."""

    id: int = 0
    root: str
    name: str
    commit_id: str | None
    worktree: bool
    docs_dir: str
    model_name: str
    pack_dir: str
    plan_key: str
    link_template: str | None
    job: str
    job_by_name: bool = False  # named by the user, not the default of the model
    demonstration: bool = False  # pages say that its model is one
    model_digest: str | None = None  # of weights and tokenizer; None = an earlier version indexed it
    model_by_flag: bool = True  # named by --model, not by a setting or by default
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedItem:
    """One item as planned.  Chunks and symbols have prompts; a roll-up gets one when its inputs are complete."""

    subject: Subject
    parent: Subject | None  # of the item that reads this one
    position: int = 0  # among its siblings
    priority: int = 0
    max_new_tokens: int
    max_sentences: int | None = None
    at_line_end: bool = False  # where the answer ends
    label: str | None = None  # what it is called in the prompt of its chunk
    chunk_start: int | None = None  # the first byte of that chunk
    is_draft: bool = False  # its prompt is made once all files are known
    key: str | None = None
    shared_ids: tuple[int, ...] = ()  # with which the prompts of its siblings begin too
    prompt_ids: tuple[int, ...] = ()  # the rest
    is_first: bool = True  # of its siblings, whose shared ids are read once
    num_markers: int = 0
    note_chars: int | None = None  # of the note on a chunk, about, by its structure
    error: str | None = None  # why it has no prompt; parks it
    touched: bool = True  # of a roll-up: whether any of its inputs may have changed


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedItem:
    """An item on a symbol or a chunk, as it is stored."""

    id: int
    subject: Subject
    label: str
    chunk_start: int
    priority: int
    is_open: bool  # neither answered nor parked
    is_waiting: bool


class AskedPlace(NamedTuple):
    """Where an item on a symbol or a chunk is asked; a few of the columns, as there are millions."""

    id: int
    path: str
    chunk_start: int
    symbol_start: int | None  # None when it is not about a symbol
    is_open: bool
    is_waiting: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanCounts:
    """What planning did to the queue."""

    queued: int = 0
    unchanged: int = 0
    removed: int = 0

    def __add__(self, other: PlanCounts) -> PlanCounts:
        return PlanCounts(
            queued=self.queued + other.queued,
            unchanged=self.unchanged + other.unchanged,
            removed=self.removed + other.removed,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredResult:
    """The answer that is stored under a key."""

    text: str
    completion: Completion


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A leased item, and the request for the engine."""

    lease: Lease
    item: WorkItem
    request: Request
    read_tokens: int  # of its prompt, those that no sibling before it reads


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """An item with its answer."""

    claim: Claim
    completion: Completion
    text: str  # all of it, as the model wrote it
    validation: ValidationResult
    provenance: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """An item whose attempt failed; without `retry_at` it is parked."""

    claim: Claim
    error: str
    retry_at: float | None
    error_class: ErrorClass = ErrorClass.BAD_ITEM


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The answer of an item, for pages and roll-ups."""

    subject: Subject
    state: str
    verdict: Verdict | None
    shown_text: str | None
    label: str | None = None  # what its subject is called in the prompt of its chunk


def answer_of_row(row: sqlite3.Row) -> Answer:
    """An answer from a row that has its columns."""
    verdict = None if row["verdict"] is None else Verdict(row["verdict"])
    subject = Subject.parse(row["unit"], row["path"], row["subject"])
    return Answer(
        subject=subject, state=row["state"], verdict=verdict, shown_text=row["shown_text"], label=row["label"]
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitWork:
    """How much of one unit is open, and what is known of its prompts and answers.  Expected parts count as open."""

    unit: Unit
    num_open: int
    unknown_tokens: float  # expected, of the prompts of open ones that have none yet
    prompt_tokens: int  # of the open ones that have one; what several begin with counts once
    known_tokens: int  # of all prompts that are known, those of items that are done included
    num_done: int  # answered
    num_parked: int
    output_tokens: int  # of the answers
    output_squares: int  # sum of the squares of their lengths
    max_new_tokens: float  # of one, on average
    num_levels: int  # of open folders inside each other; 1 for another roll-up, 0 for what is no roll-up


class Speed(NamedTuple):
    """How fast a run was."""

    at: str  # when it ended
    tokens_per_s: float  # prompt and generated tokens per second of steps


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """The record of one run."""

    id: int
    started_at: str
    ended_at: str | None
    pid: int
    command: str
    model_name: str | None
    outcome: str | None
    stats: dict[str, Any]
    reason: str | None = None  # why it failed or was stopped
    saved_at: str | None = None  # when `stats` were stored last
    report: str | None = None  # JSON; None until it has ended
