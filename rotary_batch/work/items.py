"""What items there are and which are asked again: what is planned, and what was parked, each in one transaction.

Knows which items are new, stale or gone; what becomes of them afterwards is in `store.py`.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

from rotary_batch.core import ItemState
from rotary_batch.work.rows import PlanCounts, PlannedItem
from rotary_batch.work.store import WorkStore


def plan_items(
    store: WorkStore, repository_id: int, job: str, planned: Sequence[PlannedItem], changed_paths: set[str]
) -> PlanCounts:
    """Make the queue of one repository what is planned.

    `planned` has every roll-up, and the chunks of `changed_paths`; other chunks stay as they are.
    """
    with store.transaction():
        removed = _remove_unplanned(store, repository_id, job, planned, changed_paths)
        queued = sum(_plan_item(store, repository_id, job, item) for item in planned)
        _set_parents(store, repository_id, job, planned)
    return PlanCounts(queued=queued, unchanged=len(planned) - queued, removed=removed)


def _remove_unplanned(
    store: WorkStore, repository_id: int, job: str, planned: Sequence[PlannedItem], changed_paths: set[str]
) -> int:
    wanted = {(item.unit, item.subject) for item in planned}
    rows = store.db.execute(
        "select id, unit, subject, path from item where repository_id = ? and job = ? and part_of is null",
        [repository_id, job],
    ).fetchall()
    gone = [
        row["id"]
        for row in rows
        if (row["unit"], row["subject"]) not in wanted and (row["unit"] != "chunk" or row["path"] in changed_paths)
    ]
    store.db.executemany("delete from item where id = ?", [(item_id,) for item_id in gone])
    return len(gone)


def _plan_item(store: WorkStore, repository_id: int, job: str, item: PlannedItem) -> bool:
    """Insert or refresh one item; answer whether it has work to do now."""
    row = store.db.execute(
        "select id, key, state, error from item where repository_id = ? and job = ? and unit = ? and subject = ?",
        [repository_id, job, item.unit, item.subject],
    ).fetchone()
    if row is not None and not _is_stale(row, item):
        store.db.execute(
            "update item set priority = ?, position = ? where id = ?", [item.priority, item.position, row["id"]]
        )
        return False
    if row is not None:
        _drop_parts(store, row["id"])
        _drop_prompt(store, row["id"])
    state = ItemState.PARKED if item.error else ItemState.READY if item.key else ItemState.WAITING
    (item_id,) = store.db.execute(
        """insert into item (repository_id, job, unit, subject, path, position, state, key, priority,
                             max_new_tokens, max_sentences, prompt_tokens, num_markers, error)
           values (:repository_id, :job, :unit, :subject, :path, :position, :state, :key, :priority,
                   :max_new_tokens, :max_sentences, :prompt_tokens, :num_markers, :error)
           on conflict (repository_id, job, unit, subject) do update set
             path = excluded.path, position = excluded.position, state = excluded.state, key = excluded.key,
             priority = excluded.priority, max_new_tokens = excluded.max_new_tokens,
             max_sentences = excluded.max_sentences, ended = null, attempts = 0,
             prompt_tokens = excluded.prompt_tokens, num_markers = excluded.num_markers, error = excluded.error,
             epoch = epoch + 1, run_id = null, not_before = null, output_tokens = null, verdict = null,
             shown_text = null, reused = 0
           returning id""",
        {
            "repository_id": repository_id, "job": job, "unit": item.unit, "subject": item.subject,
            "path": item.path, "position": item.position, "state": state, "key": item.key,
            "priority": item.priority, "max_new_tokens": item.max_new_tokens, "error": item.error,
            "max_sentences": item.max_sentences,
            "prompt_tokens": len(item.prompt_ids) or None, "num_markers": item.num_markers,
        },
    ).fetchone()  # fmt: skip
    if item.key and not item.error:
        store.save_prompt(item_id, item.prompt_ids)
    return not item.error


def _is_stale(row: sqlite3.Row, item: PlannedItem) -> bool:
    """Whether an item has to be asked again; one that failed, and was parked for it, does not."""
    if item.unit != "chunk":
        return item.touched
    return item.key != row["key"] or item.error not in {None, row["error"]}


def _drop_prompt(store: WorkStore, item_id: int) -> None:
    """The prompt and what was begun of its answer, which may not be gone on with under another one."""
    for table in ("partial", "prompt"):
        store.db.execute(f"delete from {table} where item_id = ?", [item_id])


def _drop_parts(store: WorkStore, item_id: int) -> None:
    store.db.execute(
        """update item set parent_id = :id
           where part_of is null and parent_id in (select id from item where part_of = :id)""",
        {"id": item_id},
    )
    store.db.execute("delete from item where part_of = ?", [item_id])


def _set_parents(store: WorkStore, repository_id: int, job: str, planned: Sequence[PlannedItem]) -> None:
    rows = store.db.execute(
        "select id, unit, subject, parent_id from item where repository_id = ? and job = ?", [repository_id, job]
    ).fetchall()
    ids = {(row["unit"], row["subject"]): row["id"] for row in rows}
    has_parent = {row["id"] for row in rows if row["parent_id"] is not None}
    moves = [
        (ids[item.parent], ids[item.unit, item.subject])
        for item in planned
        if item.parent is not None and ids[item.unit, item.subject] not in has_parent
    ]
    store.db.executemany("update item set parent_id = ? where id = ?", moves)


def ask_again(store: WorkStore, repository_ids: Sequence[int]) -> int:
    """Put parked items back into the queue, and all that reads them; answer how many were parked.

    Chunks that no prompt could be made for stay: another job or model is what they need.
    """
    places = ",".join("?" * len(repository_ids))
    with store.transaction():
        rows = store.db.execute(
            f"""select id, unit, coalesce(part_of, id) as root from item
                where state = 'parked' and repository_id in ({places})
                and (unit <> 'chunk' or key is not null)""",
            list(repository_ids),
        ).fetchall()
        chunks = [row["id"] for row in rows if row["unit"] == "chunk"]
        store.db.executemany(
            "update item set state = 'ready', attempts = 0, not_before = null, error = null where id = ?",
            [(item_id,) for item_id in chunks],
        )
        readers = {row["root"] for row in rows if row["unit"] != "chunk"}
        for root in readers | _readers_of(store, [row["id"] for row in rows]):
            _wait_again(store, root)
    return len(rows)


def _readers_of(store: WorkStore, item_ids: Sequence[int]) -> set[int]:
    """The roll-ups above some items; what stands in a part's place is what it is a part of."""
    found: set[int] = set()
    below = list(item_ids)
    while below:
        rows = store.db.execute(
            """select distinct coalesce(parent.part_of, parent.id) as id from item
               join item as parent on parent.id = item.parent_id where item.id in (select value from json_each(?))""",
            [json.dumps(below)],
        ).fetchall()
        below = [row["id"] for row in rows if row["id"] not in found]
        found |= set(below)
    return found


def _wait_again(store: WorkStore, item_id: int) -> None:
    """Make a roll-up wait for what it reads."""
    _drop_parts(store, item_id)
    _drop_prompt(store, item_id)
    store.db.execute(
        """update item set state = 'waiting', key = null, epoch = epoch + 1, run_id = null, attempts = 0,
                  not_before = null, error = null, ended = null, output_tokens = null, verdict = null,
                  shown_text = null, reused = 0 where id = ?""",
        [item_id],
    )
