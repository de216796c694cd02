"""What leaves the queue for another runner, and what comes back: open prompts by key, and answers under their keys."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from rotary_batch.core import StopCriteria, Verdict
from rotary_batch.work.store import WorkStore


class OpenPrompt(NamedTuple):
    """An item that has its prompt and no answer."""

    item_id: int
    key: str
    siblings: int | None  # the same for all prompts that begin with that of one chunk
    max_new_tokens: int
    stop: StopCriteria


def open_prompts(store: WorkStore, repository_id: int) -> Iterator[OpenPrompt]:
    """Those of one repository, in the order of claims: siblings come one after the other.  Leases are not looked at.

    Several items may have one key.  All rows are read at once, because with a rollback journal a query that is open
    keeps a driver from committing; a prompt may be gone when its ids are asked for.
    """
    rows = store.db.execute(
        """select item.id, key, shared_id, max_new_tokens, max_sentences, at_line_end from item
           join prompt on prompt.item_id = item.id
           where repository_id = ? and state in ('ready', 'leased') and key is not null
           order by priority desc, position, item.id""",
        [repository_id],
    ).fetchall()
    for item_id, key, siblings, max_new_tokens, max_sentences, at_line_end in rows:
        stop = StopCriteria(max_sentences, stops_loops=True, at_line_end=bool(at_line_end))
        yield OpenPrompt(item_id, key, siblings, max_new_tokens, stop)


def answered_keys(store: WorkStore, repository_ids: Sequence[int]) -> Iterator[str]:
    """The keys of all answers of some repositories, each once; read as by `open_prompts`."""
    rows = store.db.execute(
        """select distinct item.key from item join result on result.key = item.key
           where item.state = 'done' and repository_id in (select value from json_each(?)) order by item.key""",
        [json.dumps(list(repository_ids))],
    ).fetchall()
    for row in rows:
        yield row["key"]


def provenance_of(store: WorkStore, key: str) -> dict[str, Any]:
    """Where a stored answer comes from; empty when there is none."""
    row = store.db.execute("select provenance from result where key = ?", [key]).fetchone()
    return dict(json.loads(row["provenance"])) if row else {}


def num_shown(store: WorkStore, item_ids: Sequence[int]) -> int:
    """How many of some answered items show their answer."""
    query = "select count(*) as n from item where id in (select value from json_each(?)) and verdict = ?"
    return int(store.db.execute(query, [json.dumps(list(item_ids)), Verdict.SHOWN]).fetchone()["n"])
