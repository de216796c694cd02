"""Rows that no item needs any more, deleted in small transactions: a kill loses nothing, and time is bounded.

Rows about a file are deleted with it.  What is left to `gc` is what may be needed once more, and what an interrupted
run or an earlier version left.  Nothing that a page shows or that the queue waits for is among it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from rotary_batch.work.store import WorkStore

BATCH_ROWS = 1000  # of a transaction: about 1 MB of answers
MAX_LOOKED_UP = 100_000  # keys in memory, 10 MB
KEPT_RUNS = 365  # a year of nights


class Unneeded(NamedTuple):
    """Rows of one table."""

    what: str
    table: str
    key: tuple[str, ...]
    nbytes: str  # of the content of a row, in SQL
    where: str  # `:before` is the moment since which what goes was not used


_IN_USE = "select key from item where key is not null"
_ANSWERED = "item_id in (select id from item where state = 'done')"
# The thing of a page is the path of a file, that of a folder with a slash behind it, or begins with a slash.
_NO_THING = """thing not glob '/*' and not exists (
  select 1 from file where file.repository_id = written_page.repository_id and (path = thing or
    (thing glob '*/' and path > thing and path < rtrim(thing, '/') || '0')))"""
_SUCCESS = "outcome in ('done', 'deadline', 'limit', 'interrupted')"
_OLD_RUN = f"""ended_at is not null and id not in (select id from run order by id desc limit {KEPT_RUNS})
  and id not in (select max(run_id) from run_repository group by repository_id)
  and id is not (select max(id) from run where {_SUCCESS})"""
OLD_RUNS = Unneeded("records of old runs", "run", ("id",), "length(tally) + coalesce(length(report), 0)", _OLD_RUN)

UNNEEDED = (
    Unneeded(
        "answers that nothing uses",
        "result",
        ("key",),
        "length(token_ids) + length(text) + length(provenance)",
        f"unused_since <= :before and key not in ({_IN_USE})",
    ),
    Unneeded("begun answers of answered items", "partial", ("item_id", "position"), "length(token_ids)", _ANSWERED),
    Unneeded("prompts of answered items", "prompt", ("item_id",), "length(token_ids)", _ANSWERED),
    Unneeded(
        "drafts of files that are gone",
        "draft",
        ("repository_id", "path", "start_byte"),
        "length(text)",
        "not exists (select 1 from file where file.repository_id = draft.repository_id and file.path = draft.path)",
    ),
    Unneeded("records of pages that are gone", "written_page", ("repository_id", "thing"), "length(digest)", _NO_THING),
)


def found(store: WorkStore, kind: Unneeded, before: float) -> tuple[int, int]:
    """How many rows of a kind there are, and the bytes of their content."""
    query = f"select count(*), coalesce(sum({kind.nbytes}), 0) from {kind.table} where {kind.where}"
    rows, nbytes = store.db.execute(query, _given(kind, before)).fetchone()
    return int(rows), int(nbytes)


def delete(store: WorkStore, kind: Unneeded, before: float, should_stop: Callable[[], bool]) -> tuple[int, int]:
    """Delete a batch of a kind, and more until there are none or it is time to stop; returns what `found` does."""
    columns = ", ".join(kind.key)
    query = f"select {columns}, {kind.nbytes} from {kind.table} where {kind.where} limit {MAX_LOOKED_UP}"
    remove = f"delete from {kind.table} where ({columns}) = ({', '.join('?' * len(kind.key))})"
    num_rows = nbytes = 0
    while rows := store.db.execute(query, _given(kind, before)).fetchall():
        done = in_batches(store, remove, [tuple(row) for row in rows], should_stop)
        num_rows, nbytes = num_rows + len(done), nbytes + sum(row[-1] for row in done)
        if should_stop():
            break
    return num_rows, nbytes


def in_batches(
    store: WorkStore, statement: str, rows: Sequence[tuple[Any, ...]], should_stop: Callable[[], bool]
) -> Sequence[tuple[Any, ...]]:
    """Execute a statement for rows, whose last value it does not take; returns those for which there was time.

    The first batch is always done.  Otherwise a window that is shorter than the search for rows would never delete one.
    """
    for start in range(0, len(rows), BATCH_ROWS):
        if start and should_stop():
            return rows[:start]
        with store.transaction():
            store.db.executemany(statement, [row[:-1] for row in rows[start : start + BATCH_ROWS]])
    return rows


def note_unused(store: WorkStore, now: float, should_stop: Callable[[], bool]) -> None:
    """Begin the time of answers that nothing uses since an earlier version, which did not note when."""
    query = f"select ?, key, 0 from result where unused_since is null and key not in ({_IN_USE}) limit ?"
    rows = [tuple(row) for row in store.db.execute(query, [int(now), MAX_LOOKED_UP]).fetchall()]
    in_batches(store, "update result set unused_since = ? where key = ?", rows, should_stop)


def old_reports(store: WorkStore) -> list[str]:
    """The files that the records of old runs name."""
    query = f"select case when json_valid(report) then report ->> 'file' end as file from run where {OLD_RUNS.where}"
    return [str(row["file"]) for row in store.db.execute(query) if row["file"]]


def _given(kind: Unneeded, before: float) -> dict[str, float]:
    return {"before": before} if ":before" in kind.where else {}
