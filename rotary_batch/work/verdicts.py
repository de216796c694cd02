"""Verdicts on answers: by which rules they were given, and how many sentences they let through."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from rotary_batch.work.store import WorkStore


def require_check(store: WorkStore, repository_id: int, check_key: str) -> None:
    """When the verdicts of a repository were given by other rules: have them given anew.

    Its answers become stale, so planning puts them into the queue, and their stored results complete them at once.
    """
    with store.transaction():
        query = "select 1 from repository where id = ? and check_key is ?"
        if store.db.execute(query, [repository_id, check_key]).fetchone() is None:
            store.db.execute(
                "update item set unchecked = 1 where repository_id = ? and state = 'done'", [repository_id]
            )
            store.db.execute("update repository set check_key = ? where id = ?", [check_key, repository_id])


class Sentences(NamedTuple):
    """How many sentences of some answers were looked at, and how many are shown."""

    looked_at: int
    shown: int


class PageScore(NamedTuple):
    """The sentences of one file or folder."""

    root: str
    path: str
    looked_at: int
    shown: int


class ModelScore(NamedTuple):
    """The sentences of the repositories that have answers of one model."""

    model: str
    looked_at: int
    shown: int
    reasons: dict[str, int]  # kind -> answers that it was found in


def lowest_pages(store: WorkStore, repository_ids: Sequence[int], limit: int) -> list[PageScore]:
    """The files and folders of whose sentences the smallest share is shown, those with the most withheld first."""
    places = ",".join("?" * len(repository_ids))
    rows = store.db.execute(
        f"""select root, path, sum(num_sentences) as n, sum(num_kept) as kept from item
            join repository on repository.id = repository_id
            where repository_id in ({places}) and state = 'done' and num_sentences > 0
            group by root, path having kept < n order by 1.0 * kept / n, n desc, root, path limit ?""",
        [*repository_ids, limit],
    )
    return [PageScore(*row) for row in rows]


def by_model(store: WorkStore, repository_ids: Sequence[int]) -> list[ModelScore]:
    """The score of each model over these repositories."""
    places = ",".join("?" * len(repository_ids))
    rows = store.db.execute(
        f"""select model_name, sum(num_sentences) as n, sum(num_kept) as kept from item
            join repository on repository.id = repository_id
            where repository_id in ({places}) and state = 'done'
            group by model_name having n > 0 order by model_name""",
        list(repository_ids),
    ).fetchall()
    reasons = _reasons(store, repository_ids)
    return [ModelScore(row[0], row[1], row[2], dict(reasons.get(row[0], {}))) for row in rows]


def _reasons(store: WorkStore, repository_ids: Sequence[int]) -> dict[str, Counter[str]]:
    """Model -> kind of reason -> number of answers that it was found in."""
    places = ",".join("?" * len(repository_ids))
    found: dict[str, Counter[str]] = {}
    for model, reasons in store.db.execute(
        f"""select model_name, reasons from item join repository on repository.id = repository_id
            where repository_id in ({places}) and state = 'done' and reasons <> '[]'""",
        list(repository_ids),
    ):
        found.setdefault(model, Counter()).update({kind_of(reason) for reason in json.loads(reasons)})
    return found


def kind_of(reason: str) -> str:
    """The kind of a reason, without what was found."""
    return reason.partition(":")[0]
