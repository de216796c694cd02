"""Items that are asked for their own sake, and their answers: what calibrating a model needs of the queue."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import NamedTuple

from rotary_batch.core import Subject, Verdict
from rotary_batch.work.store import WorkStore


class Judged(NamedTuple):
    """An answer with its confidence and its verdict."""

    subject: Subject
    text: str  # as the model wrote it
    shown_text: str | None
    mean_logprob: float
    is_shown: bool
    ended: str  # what ended it, as `core.Reason`
    reasons: tuple[str, ...]  # why some of it, or all, is not shown


def asked_subjects(store: WorkStore, repository_id: int) -> list[Subject]:
    """The chunks and symbols of a repository that are asked about."""
    rows = store.db.execute(
        """select unit, path, subject from item where repository_id = ? and key is not null and part_of is null
           order by id""",
        [repository_id],
    )
    subjects = (Subject.parse(row["unit"], row["path"], row["subject"]) for row in rows)
    return [subject for subject in subjects if subject.span is not None]


def keep_only(store: WorkStore, repository_id: int, subjects: Collection[Subject]) -> None:
    """Delete all other items."""
    wanted = {subject.identity for subject in subjects}
    with store.transaction():
        query = "select id, unit, subject from item where repository_id = ?"
        rows = store.db.execute(query, [repository_id]).fetchall()
        gone = [(row["id"],) for row in rows if (row["unit"], row["subject"]) not in wanted]
        store.db.executemany("delete from item where id = ?", gone)


def judged(store: WorkStore, repository_id: int) -> list[Judged]:
    """The answers so far."""
    rows = store.db.execute(
        """select unit, path, subject, verdict, shown_text, text, logprob_sum, num_scored, reasons, ended
           from item join result on result.key = item.key
           where repository_id = ? and state = 'done' order by item.id""",
        [repository_id],
    )
    return [
        Judged(
            subject=Subject.parse(row["unit"], row["path"], row["subject"]),
            text=row["text"],
            shown_text=row["shown_text"],
            mean_logprob=row["logprob_sum"] / max(1, row["num_scored"]),
            is_shown=row["verdict"] == Verdict.SHOWN,
            ended=row["ended"],
            reasons=tuple(json.loads(row["reasons"])),
        )
        for row in rows
    ]
