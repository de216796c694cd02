"""Which items exist: planning inserts, refreshes and removes them, `retry` sends parked ones back.

What becomes of them in a run is in `store.py`.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence

from rotary_batch.core import ErrorClass, ItemState, Subject, Unit
from rotary_batch.work.rows import AskedItem, AskedPlace, PlanCounts, PlannedItem
from rotary_batch.work.store import WorkStore

# Another plan of an item begins it anew: nothing of its answer or of its attempts remains.
_UPSERT = """
  insert into item (repository_id, job, unit, subject, path, position, state, key, priority, max_new_tokens,
                    max_sentences, at_line_end, label, chunk_start, prompt_tokens, read_tokens, num_markers,
                    note_chars, error, error_class)
  values (:repository_id, :job, :unit, :subject, :path, :position, :state, :key, :priority, :max_new_tokens,
          :max_sentences, :at_line_end, :label, :chunk_start, :prompt_tokens, :read_tokens, :num_markers,
          :note_chars, :error, :error_class)
  on conflict (repository_id, job, unit, subject) do update set
    path = excluded.path, position = excluded.position, state = excluded.state, key = excluded.key,
    priority = excluded.priority, max_new_tokens = excluded.max_new_tokens, max_sentences = excluded.max_sentences,
    at_line_end = excluded.at_line_end, label = excluded.label, chunk_start = excluded.chunk_start,
    prompt_tokens = excluded.prompt_tokens, read_tokens = excluded.read_tokens, num_markers = excluded.num_markers,
    note_chars = excluded.note_chars, error = excluded.error,
    error_class = excluded.error_class,
    ended = null, attempts = 0, epoch = epoch + 1, run_id = null, not_before = null, output_tokens = null,
    verdict = null, shown_text = null, reused = 0, num_sentences = 0, num_kept = 0, reasons = '[]', unchecked = 0
  returning id"""

_OF_SOURCE = "unit in ('chunk', 'symbol', 'detail')"
_ROLLUPS = f"where repository_id = ? and job = ? and part_of is null and not {_OF_SOURCE}"


def plan_chunks(
    store: WorkStore, repository_id: int, job: str, path: str, planned: Sequence[PlannedItem]
) -> PlanCounts:
    """Within a transaction: make the chunks and symbols of one file what is planned.  `plan_rollups` sets parents.

    Siblings come one after the other, as they are claimed.
    """
    wanted = {item.subject.identity for item in planned}
    rows = store.db.execute(
        # The plus signs keep SQLite to the index by path: it would use the one by job and unit and read all chunks for
        # every file.
        f"select id, unit, subject from item where repository_id = ? and path = ? and +job = ? and +{_OF_SOURCE}",
        [repository_id, path, job],
    )
    removed = _remove(store, [row["id"] for row in rows if (row["unit"], row["subject"]) not in wanted])
    queued = sum(plan_item(store, repository_id, job, item) for item in planned)
    return PlanCounts(queued=queued, unchanged=len(planned) - queued, removed=removed)


def plan_rollups(store: WorkStore, repository_id: int, job: str, planned: Sequence[PlannedItem]) -> PlanCounts:
    """Within a transaction: make the roll-ups what is planned, and set all missing parents."""
    wanted = {item.subject.identity: item for item in planned}
    removed: list[int] = []
    settled: set[tuple[str, str]] = set()
    for item_id, unit, subject, priority, position in store.db.execute(
        f"select id, unit, subject, priority, position from item {_ROLLUPS}", [repository_id, job]
    ):
        item = wanted.get((unit, subject))
        if item is None:
            removed.append(item_id)
        elif not item.touched and (priority, position) == (item.priority, item.position):
            settled.add(item.subject.identity)
    _remove(store, removed)
    queued = sum(plan_item(store, repository_id, job, item) for item in planned if item.subject.identity not in settled)
    _set_parents(store, repository_id, job, wanted)
    return PlanCounts(queued=queued, unchanged=len(planned) - queued, removed=len(removed))


def drop_other_jobs(store: WorkStore, repository_id: int, job: str) -> PlanCounts:
    """Within a transaction: delete items of other jobs, as a repository has one at a time.  Their results are kept."""
    deleted = store.db.execute("delete from item where repository_id = ? and job <> ?", [repository_id, job])
    return PlanCounts(removed=deleted.rowcount)


def num_items(store: WorkStore, repository_id: int, job: str) -> int:
    """The number of items, without the parts of roll-ups."""
    query = "select count(*) as n from item where repository_id = ? and job = ? and part_of is null"
    return int(store.db.execute(query, [repository_id, job]).fetchone()["n"])


def _remove(store: WorkStore, item_ids: Sequence[int]) -> int:
    store.db.executemany("delete from item where id = ?", [(item_id,) for item_id in item_ids])
    return len(item_ids)


def plan_item(store: WorkStore, repository_id: int, job: str, item: PlannedItem) -> bool:
    """Within a transaction: insert or refresh one item; returns whether it has work to do now."""
    row = store.db.execute(
        """select id, key, state, error, unchecked from item
           where repository_id = ? and job = ? and unit = ? and subject = ?""",
        [repository_id, job, *item.subject.identity],
    ).fetchone()
    if row is not None and not _is_stale(row, item):
        store.db.execute(
            "update item set priority = ?, position = ?, label = ?, chunk_start = ? where id = ?",
            [item.priority, item.position, item.label, item.chunk_start, row["id"]],
        )
        return False
    if row is not None:
        _drop_parts(store, row["id"])
        _drop_prompt(store, row["id"])
    (item_id,) = store.db.execute(_UPSERT, _columns(repository_id, job, item)).fetchone()
    if item.key and not item.error:
        store.save_prompt(item_id, item.prompt_ids, item.shared_ids)
    return not item.error and not item.is_draft


def _columns(repository_id: int, job: str, item: PlannedItem) -> dict[str, object]:
    state = ItemState.PARKED if item.error else ItemState.READY if item.key else ItemState.WAITING
    return {
        "repository_id": repository_id,
        "job": job,
        "unit": item.subject.unit,
        "subject": item.subject.text,
        "path": item.subject.path,
        "position": item.position,
        "state": state,
        "key": item.key,
        "priority": item.priority,
        "max_new_tokens": item.max_new_tokens,
        "max_sentences": item.max_sentences,
        "at_line_end": item.at_line_end,
        "label": item.label,
        "chunk_start": item.chunk_start,
        "prompt_tokens": len(item.shared_ids) + len(item.prompt_ids) or None,
        "read_tokens": len(item.shared_ids) * item.is_first + len(item.prompt_ids) or None,
        "num_markers": item.num_markers,
        "note_chars": item.note_chars,
        "error": item.error,
        "error_class": ErrorClass.BAD_ITEM if item.error else None,
    }


def _is_stale(row: sqlite3.Row, item: PlannedItem) -> bool:
    """Whether an item must be begun anew.  An item that was parked because it failed stays parked."""
    if item.subject.unit.is_rollup:
        return item.touched
    if item.is_draft:  # its prompt tells
        return False
    return item.key != row["key"] or bool(row["unchecked"]) or item.error not in {None, row["error"]}


def _drop_prompt(store: WorkStore, item_id: int) -> None:
    """Delete the prompt and what was generated for it, which another prompt must not continue."""
    for table in ("partial", "prompt"):
        store.db.execute(f"delete from {table} where item_id = ?", [item_id])


def _drop_parts(store: WorkStore, item_id: int) -> None:
    store.db.execute(
        """update item set parent_id = :id
           where part_of is null and parent_id in (select id from item where part_of = :id)""",
        {"id": item_id},
    )
    store.db.execute("delete from item where part_of = ?", [item_id])


def _set_parents(
    store: WorkStore, repository_id: int, job: str, planned: Mapping[tuple[str, str], PlannedItem]
) -> None:
    """Set parents where they are missing; others stay, as they may be parts."""
    orphans = store.db.execute(
        f"select id, unit, subject from item {_ROLLUPS} and parent_id is null", [repository_id, job]
    )
    parents = ((planned[unit, subject].parent, item_id) for item_id, unit, subject in orphans.fetchall())
    store.db.executemany(
        """update item set parent_id =
             (select id from item where repository_id = ? and job = ? and unit = ? and subject = ?) where id = ?""",
        [(repository_id, job, *parent.identity, item_id) for parent, item_id in parents if parent is not None],
    )
    store.db.execute(
        f"""update item set parent_id = (select id from item as reader where reader.repository_id = item.repository_id
                                        and reader.job = item.job and reader.unit = 'file'
                                        and reader.subject = item.path)
           where repository_id = ? and job = ? and {_OF_SOURCE} and +unit <> 'detail' and +parent_id is null""",
        [repository_id, job],
    )


def rank_chunks(store: WorkStore, repository_id: int, job: str, ranks: Mapping[str, int]) -> None:
    """Within a transaction: set the priority of the chunks and symbols of every path."""
    store.db.executemany(
        f"""update item set priority = ?
           where repository_id = ? and path = ? and +job = ? and +{_OF_SOURCE} and priority <> ?""",
        [(rank, repository_id, path, job, rank) for path, rank in ranks.items()],
    )


def ask_again(store: WorkStore, repository_ids: Sequence[int], error_class: ErrorClass | None = None) -> int:
    """Put parked items back into the queue, and all that reads them; returns how many were parked.

    With `error_class`, only those that failed for it; what reads them may have been parked for any reason.
    Chunks and symbols without a prompt stay parked: they need another job or model.
    """
    places = ",".join("?" * len(repository_ids))
    with store.transaction():
        rows = store.db.execute(
            f"""select id, unit, coalesce(part_of, id) as root from item
                where state = 'parked' and repository_id in ({places})
                and (not {_OF_SOURCE} or key is not null) and coalesce(error_class = ?, true)""",
            [*repository_ids, error_class],
        ).fetchall()
        of_source = [row["id"] for row in rows if not Unit(row["unit"]).is_rollup]
        store.db.executemany(
            """update item set state = 'ready', attempts = 0, not_before = null, error = null, error_class = null
               where id = ?""",
            [(item_id,) for item_id in of_source],
        )
        readers = {row["root"] for row in rows if Unit(row["unit"]).is_rollup}
        for root in readers | _readers_of(store, [row["id"] for row in rows]):
            _wait_again(store, root)
    return len(rows)


def _readers_of(store: WorkStore, item_ids: Sequence[int]) -> set[int]:
    """The roll-ups that read some items, directly or not; instead of a part, the roll-up that it is a part of."""
    readers: set[int] = set()
    below = list(item_ids)
    while below:
        rows = store.db.execute(
            """select distinct coalesce(parent.part_of, parent.id) as id from item
               join item as parent on parent.id = item.parent_id where item.id in (select value from json_each(:below))
               union select topic.id from need join item as topic on topic.repository_id = need.repository_id
                 and topic.path = need.path and topic.chunk_start = need.start_byte and topic.unit = 'topic'
               where need.item_id in (select value from json_each(:below))""",
            {"below": json.dumps(below)},
        ).fetchall()
        below = [row["id"] for row in rows if row["id"] not in readers]
        readers |= set(below)
    return readers


def item_id_of(store: WorkStore, repository_id: int, job: str, subject: Subject) -> int | None:
    """The item on a subject, if there is one."""
    query = "select id from item where repository_id = ? and job = ? and unit = ? and subject = ?"
    row = store.db.execute(query, [repository_id, job, *subject.identity]).fetchone()
    return None if row is None else int(row["id"])


def wait_again_for(store: WorkStore, item_ids: Sequence[int]) -> None:
    """Within a transaction: make the roll-ups wait that read some items, directly or not."""
    for reader in _readers_of(store, item_ids):
        row = store.db.execute("select state from item where id = ?", [reader]).fetchone()
        if row["state"] != ItemState.WAITING:
            _wait_again(store, reader)


def asked_items(store: WorkStore, repository_id: int, item_ids: Collection[int]) -> Iterator[AskedItem]:
    """Some of the items on symbols and chunks whose prompts begin with that of their chunk, in file order."""
    rows = store.db.execute(
        """select item.id, unit, item.path, subject, label, chunk_start, priority, state
           from json_each(?) as one cross join item on item.id = one.value
           where repository_id = ? and chunk_start is not null and unit <> 'topic'
           order by item.path, position, item.id""",
        [json.dumps(list(item_ids)), repository_id],
    )
    for row in rows:
        yield AskedItem(
            id=row["id"],
            subject=Subject.parse(row["unit"], row["path"], row["subject"]),
            label=row["label"],
            chunk_start=row["chunk_start"],
            priority=row["priority"],
            is_open=row["state"] not in {ItemState.DONE, ItemState.PARKED},
            is_waiting=row["state"] == ItemState.WAITING,
        )


def count_needed(store: WorkStore, topic_id: int) -> None:
    """Within a transaction: let a topic that waits begin when the answers that it needs are there; no other item."""
    store.db.execute(
        """update item set blockers =
             (select count(*) from need join item as needed on needed.id = need.item_id
              where need.repository_id = item.repository_id and need.path = item.path
                and need.start_byte = item.chunk_start and needed.state not in ('done', 'parked'))
           where id = ? and unit = 'topic' and state = 'waiting'""",
        [topic_id],
    )


def asked_places(store: WorkStore, repository_id: int) -> Iterator[AskedPlace]:
    """Where the items on symbols and chunks are asked, in file order."""
    rows = store.db.execute(
        """select id, path, chunk_start,
                  case unit when 'symbol' then cast(substr(subject, length(path) + 2) as integer) end,
                  state not in ('done', 'parked'), state = 'waiting'
           from item where repository_id = ? and chunk_start is not null and unit <> 'topic'
           order by path, position, id""",
        [repository_id],
    )
    return (AskedPlace(row[0], row[1], row[2], row[3], bool(row[4]), bool(row[5])) for row in rows)


def _wait_again(store: WorkStore, item_id: int) -> None:
    """Make a roll-up wait for its inputs again."""
    _drop_parts(store, item_id)
    _drop_prompt(store, item_id)
    store.db.execute(
        """update item set state = 'waiting', key = null, epoch = epoch + 1, run_id = null, attempts = 0,
                  not_before = null, error = null, error_class = null, ended = null, output_tokens = null,
                  verdict = null, shown_text = null, reused = 0 where id = ?""",
        [item_id],
    )
    count_needed(store, item_id)
