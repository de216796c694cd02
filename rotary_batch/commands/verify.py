"""`verify`: whether database, sources, pages and packs agree.  Nothing is written; the database is read from a copy."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rotary_batch.commands.database import copied_as_it_is
from rotary_batch.commands.facts import Fact, State
from rotary_batch.commands.repositories import select_repositories
from rotary_batch.commands.verify_pack import pack_facts
from rotary_batch.commands.verify_repository import repository_facts
from rotary_batch.errors import DatabaseError
from rotary_batch.window import Window
from rotary_batch.work.laws import damage, search_damage
from rotary_batch.work.lock import holder
from rotary_batch.work.patience import Connection
from rotary_batch.work.schema import MIGRATIONS
from rotary_batch.work.store import WorkStore

_PUT_BACK = "put back a copy, or move the file away and run `rotary-batch index` again"
_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
Progress = Callable[[str, int, int], None]


def verify(path: Path, roots: Sequence[Path], window: Window, progress: Progress) -> Iterator[Fact]:
    """The facts about a database and its repositories, all or some, as they are found.

    Raises StoppedError when the window closes, RepositoryError for a repository that is not indexed.
    """
    pid = holder(path)  # asked before the copy is made: what a driver did since is not in it
    try:
        with copied_as_it_is(path) as db:
            yield from _facts(db, path, roots, window, progress, pid)
    except (sqlite3.DatabaseError, DatabaseError) as error:
        if not _is_damage(error):
            raise
        yield Fact("database", str(path), State.DAMAGED, str(error.__cause__ or error), _PUT_BACK)


def _is_damage(error: BaseException) -> bool:
    cause = error.__cause__ or error
    return getattr(cause, "sqlite_errorcode", 0) & 0xFF in _DAMAGE


def _facts(
    db: Connection, path: Path, roots: Sequence[Path], window: Window, progress: Progress, pid: int | None
) -> Iterator[Fact]:
    progress("checking the database", 0, 0)
    whole = list(_database_facts(db, path))
    yield from whole
    if any(fact.state is not State.AGREES for fact in whole):
        return  # nothing that it says can be relied on, or read
    store = WorkStore(db)
    rows = select_repositories(store, roots)
    for row in rows:
        progress("comparing sources and pages", 0, 0)
        yield from repository_facts(store, row, window, pid)
    yield from pack_facts(rows, window, lambda done, total: progress("reading the model", done, total))


def _database_facts(db: Connection, path: Path) -> Iterator[Fact]:
    found = damage(db)
    version = 0 if found else db.execute("pragma user_version").fetchone()[0]
    if not found and version == len(MIGRATIONS):
        found = search_damage(db)
    if found:
        yield Fact("database", str(path), State.DAMAGED, "; ".join(found), _PUT_BACK)
        return
    yield Fact("database", str(path), State.AGREES, "SQLite finds no damage")
    words = f"version {version}"
    if version == len(MIGRATIONS):
        yield Fact("schema", str(path), State.AGREES, words)
    else:
        words += f", and this program knows {len(MIGRATIONS)}"
        mend = "`rotary-batch index REPO`" if version < len(MIGRATIONS) else "upgrade rotary-batch"
        yield Fact("schema", str(path), State.DIFFERS, words, mend)
