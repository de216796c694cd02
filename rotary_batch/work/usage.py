"""How the parts of a repository use each other, from the stored calls."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cached_property

from rotary_batch.core import Symbol, SymbolId
from rotary_batch.work.index import stored_symbols
from rotary_batch.work.store import WorkStore


class FolderUses(Mapping[str, Mapping[tuple[str, str], int]]):
    """Folder -> (user, used) -> number of calls, between the folders and files that are directly in it.

    Each call counts in one folder, the deepest that holds both files.  All calls are read once, at the first access,
    into a private temporary database: a query for each of many nested folders would read them again each time.
    """

    def __init__(self, store: WorkStore, repository_id: int, folders: Collection[str]) -> None:
        self._store = store
        self._repository_id = repository_id
        self._folders = folders

    @cached_property
    def _db(self) -> sqlite3.Connection:
        rows = self._store.db.execute(
            """select path, callee_path, count(*) from call where repository_id = ? and path <> callee_path
               group by path, callee_path""",
            [self._repository_id],
        )
        db = sqlite3.connect("")  # on disk when it is large, and gone with the connection
        db.execute("create table uses (folder text, user text, used text, number integer)")
        db.executemany("insert into uses values (?, ?, ?, ?)", (_use(*row) for row in rows))
        db.execute("create index by_folder on uses (folder)")
        return db

    def __getitem__(self, folder: str) -> Mapping[tuple[str, str], int]:
        query = "select user, used, sum(number) from uses where folder = ? group by user, used"
        return {(row[0], row[1]): row[2] for row in self._db.execute(query, [folder])}

    def __iter__(self) -> Iterator[str]:
        return iter(self._folders)

    def __len__(self) -> int:
        return len(self._folders)


def _use(path: str, callee_path: str, number: int) -> tuple[str, str, str, int]:
    """(folder that holds both, part of it that calls, part that is called, number)."""
    caller, callee, shared = path.split("/"), callee_path.split("/"), 0
    while shared < min(len(caller), len(callee)) - 1 and caller[shared] == callee[shared]:
        shared += 1
    return "/".join(caller[:shared]), caller[shared], callee[shared], number


def most_used(store: WorkStore, repository_id: int, limit: int) -> Iterator[tuple[Symbol, int]]:
    """The symbols that most others use, and how many do."""
    rows = store.db.execute(
        """select callee_path, callee_start_byte, count(*) from call where repository_id = ?
           group by callee_path, callee_start_byte order by 3 desc, 1, 2 limit ?""",
        [repository_id, limit],
    ).fetchall()
    symbols = _symbols(store, repository_id, [SymbolId(row[0], row[1]) for row in rows])
    return ((symbols[SymbolId(*row[:2])], row[2]) for row in rows if SymbolId(*row[:2]) in symbols)


def most_used_files(store: WorkStore, repository_id: int, limit: int) -> list[str]:
    """The files that other files use most."""
    rows = store.db.execute(
        """select callee_path from call where repository_id = ? and path <> callee_path
           group by callee_path order by count(*) desc, callee_path limit ?""",
        [repository_id, limit],
    )
    return [row[0] for row in rows]


def main_functions(store: WorkStore, repository_id: int, limit: int) -> list[Symbol]:
    """The functions at which programs begin, by their name."""
    rows = store.db.execute(
        """select path, start_byte from symbol where repository_id = ? and kind in ('function', 'method')
           and name in ('main', 'Main') order by path, start_byte limit ?""",
        [repository_id, limit],
    ).fetchall()
    return list(_symbols(store, repository_id, [SymbolId(*row) for row in rows]).values())


def symbol_counts(store: WorkStore, repository_id: int) -> tuple[int, int]:
    """(symbols of code, those with words of their author)."""
    row = store.db.execute(
        """select count(*), count(docstring) from symbol
           where repository_id = ? and kind not in ('key', 'section', 'stage')""",
        [repository_id],
    ).fetchone()
    return row[0], row[1]


def _symbols(store: WorkStore, repository_id: int, ids: Iterable[SymbolId]) -> dict[SymbolId, Symbol]:
    wanted = set(ids)
    files = sorted({symbol_id.path for symbol_id in wanted})
    every = (symbol for path in files for symbol in stored_symbols(store, repository_id, path))
    return {symbol.id: symbol for symbol in every if symbol.id in wanted}
