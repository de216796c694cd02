"""A snapshot of the database for other programs: the index and its answers, without the queue or paths of this machine.

First the database is copied as it is, page by page; then the snapshot is filled from the copy.  With a rollback journal
a reader keeps a driver from committing, so the copy reads a few pages at a time and holds no lock in between.  When the
database changes meanwhile, SQLite begins again; the last try holds the lock, for about a second a GB.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rotary_batch.work.connection import explained
from rotary_batch.work.store import WorkStore

if TYPE_CHECKING:
    from sqlite_utils import Database

SNAPSHOT_ID = 0x726F7478  # "rotx", its application id
_PAGES_A_STEP = 2000  # 8 MB: a lock of about 10 ms
_PAUSE_S = 0.002  # between two steps
_TRIES = 3


class _Table(NamedTuple):
    """What of a table leaves the database; a table that is not named does not."""

    name: str
    columns: str  # "*" = all of them
    primary_key: Sequence[str] = ("id",)
    repository: str = "repository_id"  # the column that says whose a row is


_TABLES = (
    _Table("repository", "id, name, commit_id, worktree, model_name, job, link_template", repository="id"),
    _Table(
        "file",
        "repository_id, path, blob, nbytes, language, class, reason, docstring, fallback",
        ("repository_id", "path"),
    ),
    _Table("symbol", "*", ("repository_id", "path", "start_byte", "qualified_name")),
    _Table("call", "*"),
    _Table(
        "item",
        "id, repository_id, job, unit, subject, path, part_of, state, attempts, max_new_tokens, prompt_tokens, "
        "output_tokens, reused, error, error_class, verdict, shown_text, step_s, moved_nbytes, stall_s, energy_j",
    ),
    _Table("page", "repository_id, thing", ("repository_id", "thing")),
    _Table("search_entry", "id, repository_id, path, start_byte, kind, name, qualified_name, words, prose"),
)
# An error may name files of this machine.
_HIDE_PATHS = """update item set error = replace(replace(error,
    (select pack_dir from source.repository where id = repository_id), 'PACK'),
    (select root from source.repository where id = repository_id), 'REPO') where error is not null"""


class _ChangedError(Exception):
    """Another process changed the database between two steps of the copy."""


def copy_database(store: WorkStore, path: Path) -> None:
    """Copy the whole database to a path; its writer waits no longer than a step takes, or at worst one copy."""
    with closing(sqlite3.connect(path)) as target, explained(path):
        target.execute("pragma synchronous = off")
        for _ in range(_TRIES - 1):
            try:
                store.db.backup(target, pages=_PAGES_A_STEP, progress=_refuse_restart(), sleep=_PAUSE_S)
            except _ChangedError:
                continue
            return
        store.db.backup(target)


def _refuse_restart() -> Callable[[int, int, int], None]:
    least = float("inf")

    def progress(_status: int, remaining: int, _total: int) -> None:
        nonlocal least
        if remaining > least:
            raise _ChangedError
        least = remaining

    return progress


def write_snapshot(copy: Path, path: Path, repository_ids: Sequence[int]) -> None:
    """Fill an empty file from a copy of the database, with some of its repositories."""
    from sqlite_utils import Database  # here, because it imports numpy: 0.2 s

    # Autocommit: a table and its rows are more than one transaction, as nobody reads the file before it is whole.
    with closing(sqlite3.connect(path, isolation_level=None)) as connection, explained(path):
        connection.execute(f"pragma application_id = {SNAPSHOT_ID}")
        connection.execute("pragma journal_mode = off")
        connection.execute("pragma synchronous = off")
        connection.execute("attach ? as source", [f"{copy}"])
        db = Database(connection)
        for table in _TABLES:
            _copy_table(db, table, repository_ids)
        connection.execute(_HIDE_PATHS)
        (index,) = _scripts(connection, "name = 'search'")
        connection.execute(index)
        connection.execute("insert into search (search) values ('rebuild')")
        for view in _scripts(connection, "type = 'view'"):
            connection.execute(view)
        connection.execute("detach source")


def _copy_table(db: Database, table: _Table, repository_ids: Sequence[int]) -> None:
    """Make a table and fill it."""
    info = db.execute(f"select name, type from pragma_table_info('{table.name}', 'source')").fetchall()
    names = [name for name, _ in info] if table.columns == "*" else table.columns.split(", ")
    types = {"integer": int, "text": str, "real": float, "blob": bytes}
    is_part = table.repository != "id"
    db.table(table.name).create(
        {name: types[kind.lower()] for name, kind in info if name in names},
        pk=list(table.primary_key) if len(table.primary_key) > 1 else table.primary_key[0],
        foreign_keys=[("repository_id", "repository", "id")] if is_part else (),
    )
    listed = ", ".join(names)
    db.execute(
        f"""insert into main."{table.name}" ({listed}) select {listed} from source."{table.name}"
            where {table.repository} in (select value from json_each(?)) order by {", ".join(table.primary_key)}""",
        [json.dumps(list(repository_ids))],
    )


def _scripts(connection: sqlite3.Connection, which: str) -> list[str]:
    """The statements that made some tables or views."""
    return [sql for (sql,) in connection.execute(f"select sql from source.sqlite_master where {which} order by rowid")]
