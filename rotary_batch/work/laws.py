"""What holds in every database: what SQLite can check, and the laws of the queue.  Read-only questions of `verify`."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import NamedTuple

from rotary_batch.work.store import WorkStore

MAX_FOUND = 5  # faults that are named


class Law(NamedTuple):
    """Something that holds for every repository."""

    holds: str
    broken: str  # what is said of the items for which it does not hold
    mend: str  # the commands after which it does; {root} is the repository
    query: str  # how many such items a repository has; `:root`, and `:is_driven`: whether a driver is at work


_ASK_AGAIN = "`rotary-batch forget {root}`, then `rotary-batch run {root}` asks again"
_OF_ROOT = "item join repository on repository.id = repository_id where root = :root"
_COUNTED = """
  select unit, state, coalesce(verdict, ''), count(*) from item
    where repository_id = (select id from repository where root = :root) group by 1, 2, 3"""
_COUNTERS = """
  select unit, state, verdict, n from item_count
    where repository_id = (select id from repository where root = :root) and n <> 0"""

LAWS = (
    Law(
        "every answered item has its answer",
        "answered without an answer that is stored",
        _ASK_AGAIN,
        f"""select count(*) from {_OF_ROOT} and state = 'done'
              and not exists (select 1 from result where result.key = item.key)""",
    ),
    Law(
        "every item to be asked has its prompt",
        "to be asked without a prompt",
        _ASK_AGAIN,
        f"""select count(*) from {_OF_ROOT} and state in ('ready', 'leased')
              and not exists (select 1 from prompt where item_id = item.id)""",
    ),
    Law(
        "no run that is gone holds an item",
        "held by a run that is gone",
        "the next `rotary-batch drain {root}` takes them",
        f"""select count(*) from {_OF_ROOT} and state = 'leased'
              and not (:is_driven and run_id in (select id from run where ended_at is null))""",
    ),
    Law(
        "the counters are right",
        "counted wrongly",
        _ASK_AGAIN,
        f"""select (select count(*) from ({_COUNTED} except {_COUNTERS}))
                 + (select count(*) from ({_COUNTERS} except {_COUNTED}))""",
    ),
)


def num_broken(store: WorkStore, law: Law, root: str, *, is_driven: bool) -> int:
    """For how many items of a repository a law does not hold."""
    return int(store.db.execute(law.query, {"root": root, "is_driven": is_driven}).fetchone()[0])


def damage(db: sqlite3.Connection) -> list[str]:
    """What SQLite finds wrong with the tables and their indexes, the first few; empty when all is well."""
    try:
        return list(_damage(db))[:MAX_FOUND]
    except sqlite3.DatabaseError as error:
        return [str(error)]


def _damage(db: sqlite3.Connection) -> Iterator[str]:
    for (found,) in db.execute(f"pragma integrity_check({MAX_FOUND})").fetchall():
        if found != "ok":
            yield found.replace("\n", " ")
    for table, _, parent, _ in db.execute("pragma foreign_key_check").fetchall():
        yield f"a row of {table} without its {parent}"


def search_damage(db: sqlite3.Connection) -> list[str]:
    """Whether the search index has other words than its texts; the database must be one that may be written."""
    try:
        db.execute("insert into search (search, rank) values ('integrity-check', 1)")
    except sqlite3.DatabaseError as error:
        return [f"the search index is not that of its texts: {error}"]
    return []
