"""What the index knows of names: read file by file to resolve references, and the edges that come of it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import groupby
from operator import attrgetter
from sys import intern

from rotary_batch.core import Call, FileClass, Import, Inheritance, Linked, Reference, Symbol, SymbolId, ValueType
from rotary_batch.work.store import WorkStore

MAX_SCANNED = 1000  # symbols of one name: 100,000 files may each have a `main`
MAX_NAMED = 50  # that are read
_MAX_ANSWERS = 4096  # that are kept
# The signature of a function is of no use here, but for C's `static`.
_OUTLINE = """path, kind, name, nullif(qualified_name, name), start_line, end_line, start_byte, end_byte,
  case when kind in ('function', 'method', 'constructor') then substr(signature, 1, 60) else signature end,
  docstring is not null, nullif(bases, '[]'), nullif(decorators, '[]'), is_public"""


class StoredNames:
    """The names of a repository, as `repo.resolve` asks for them; nothing is kept but the list of files."""

    def __init__(self, store: WorkStore, repository_id: int, manifests: Mapping[str, bytes]) -> None:
        self._db = store.db
        self._named = lru_cache(_MAX_ANSWERS)(self._read_named)
        self._id = repository_id
        self.manifests = manifests
        query = "select path, language from file where repository_id = ? and class = ? order by path"
        rows = self._db.execute(query, [repository_id, FileClass.SOURCE.value])
        self.languages = {row[0]: intern(row[1] or "") for row in rows}

    def facts(self, path: str) -> tuple[list[Symbol], list[Import], list[ValueType]]:
        """What one file defines, imports, and says of types."""
        key = [self._id, path]
        symbols = self._symbols("from symbol where repository_id = ? and path = ? order by start_byte", key)
        query = "select module, name, alias from import where repository_id = ? and path = ? order by position"
        imports = [Import(path, *row) for row in self._db.execute(query, key)]
        query = "select owner, name, value from value_type where repository_id = ? and path = ?"
        return symbols, imports, [ValueType(path, *row) for row in self._db.execute(query, key)]

    def named(self, name: str, folder: str | None) -> tuple[Symbol, ...]:
        """Symbols of a name directly in a folder, or anywhere; none when they are very many."""
        return self._named(name, folder)

    def members_named(self, name: str, qualified_name: str, folder: str) -> list[Symbol]:
        """Symbols of a qualified name, or one that ends with it, below a folder; none when they are very many."""
        condition, values = "(q = ? or substr(q, ?) = ?)", [qualified_name, -len(qualified_name) - 1]
        return self._below(name, folder, condition, [*values, f".{qualified_name}"])

    def _read_named(self, name: str, folder: str | None) -> tuple[Symbol, ...]:
        if folder is None:
            return tuple(self._below(name, "", "true", []))
        return tuple(self._below(name, folder, "instr(substr(p, ?), '/') = 0", [len(folder) + 2 if folder else 1]))

    def _below(self, name: str, folder: str, condition: str, values: list[object]) -> list[Symbol]:
        """Symbols of a name below a folder, of the first that the index of names has."""
        bounds, limits = ("and path >= ? and path < ?", [f"{folder}/", f"{folder}0"]) if folder else ("", [])
        found = self._symbols(
            f"""from (select path as p, start_byte as s, qualified_name as q from symbol
                      where repository_id = ? and name = ? {bounds} limit {MAX_SCANNED})
                join symbol on repository_id = ? and path = p and start_byte = s and qualified_name = q
                where {condition} limit {MAX_NAMED}""",
            [self._id, name, *limits, self._id, *values],
        )
        return found if len(found) < MAX_NAMED else []

    def _symbols(self, source: str, values: Sequence[object]) -> list[Symbol]:
        return [outline_symbol(row) for row in self._db.execute(f"select {_OUTLINE} {source}", values)]


def outline_symbol(row: sqlite3.Row) -> Symbol:
    """A symbol from the columns of an outline; the docstring is "" when there is one."""
    return Symbol(
        path=intern(row[0]),  # one string for all symbols of a file
        kind=intern(row[1]),
        name=row[2],
        qualified_name=row[3] or row[2],
        start_line=row[4],
        end_line=row[5],
        start_byte=row[6],
        end_byte=row[7],
        signature=row[8],
        docstring="" if row[9] else None,
        bases=tuple(json.loads(row[10])) if row[10] else (),
        decorators=tuple(json.loads(row[11])) if row[11] else (),
        is_public=bool(row[12]),
    )


def save_names(
    store: WorkStore, repository_id: int, path: str, imports: Iterable[Import], value_types: Iterable[ValueType]
) -> None:
    """Within a transaction: replace what a file imports and says of types."""
    for table in ("import", "value_type", "inheritance"):
        store.db.execute(f"delete from {table} where repository_id = ? and path = ?", [repository_id, path])
    store.db.executemany(
        "insert into import (repository_id, path, position, module, name, alias) values (?, ?, ?, ?, ?, ?)",
        [(repository_id, path, place, one.module, one.name, one.alias) for place, one in enumerate(imports)],
    )
    store.db.executemany(
        "insert or ignore into value_type (repository_id, path, owner, name, value) values (?, ?, ?, ?, ?)",
        [(repository_id, *one) for one in value_types],
    )


def stored_references(store: WorkStore, repository_id: int) -> Iterator[Reference]:
    """The references of all files, in path order."""
    query = """select path, name, line, start_byte, caller_start_byte, receiver from reference
               where repository_id = ? order by path, id"""
    for path, name, line, start_byte, caller, receiver in store.db.execute(query, [repository_id]):
        yield Reference(
            path=path,
            name=name,
            line=line,
            start_byte=start_byte,
            caller=None if caller is None else SymbolId(path, caller),
            receiver=receiver,
        )


def stored_imports(store: WorkStore, repository_id: int) -> Iterator[Import]:
    """The imports of all files, in path order."""
    query = "select path, module, name, alias from import where repository_id = ? order by path, position"
    return (Import(*row) for row in store.db.execute(query, [repository_id]))


def saved_calls(store: WorkStore, repository_id: int, calls: Iterable[Call], changed: set[str]) -> Iterator[Call]:
    """Within a transaction: replace the stored calls; yields each call, whose file comes once, once it is stored.

    `changed` gets the files of both ends of the calls that are new or gone.
    """
    known: set[str] = set()
    for path, group in groupby(calls, attrgetter("caller.path")):
        known.add(path)
        edges = [(*call.caller, *call.callee) for call in group]
        changed |= _replace_edges(store, "call", _CALL, repository_id, path, edges)
        yield from (Call(SymbolId(*edge[:2]), SymbolId(*edge[2:])) for edge in edges)
    for path in _paths(store, "call", repository_id) - known:
        changed |= _replace_edges(store, "call", _CALL, repository_id, path, [])


def save_inheritance(store: WorkStore, repository_id: int, edges: Iterable[Inheritance], changed: set[str]) -> None:
    """Within a transaction: replace what extends what; `edges` and `changed` as for `saved_calls`."""
    known: set[str] = set()
    for path, group in groupby(edges, attrgetter("derived.path")):
        known.add(path)
        rows = sorted({(*edge.derived, *edge.base) for edge in group})
        changed |= _replace_edges(store, "inheritance", _INHERITANCE, repository_id, path, rows)
    for path in _paths(store, "inheritance", repository_id) - known:
        changed |= _replace_edges(store, "inheritance", _INHERITANCE, repository_id, path, [])


def _paths(store: WorkStore, table: str, repository_id: int) -> set[str]:
    return {
        row[0]
        for row in store.db.execute(f"select distinct path from {table} where repository_id = ?", [repository_id])
    }


_Edge = tuple[str, int, str, int]
_CALL = ("path, start_byte, callee_path, callee_start_byte", "id")
_INHERITANCE = ("path, start_byte, base_path, base_start_byte", "path, start_byte, base_path, base_start_byte")


def _replace_edges(
    store: WorkStore, table: str, columns: tuple[str, str], repository_id: int, path: str, edges: list[_Edge]
) -> set[str]:
    """Make the edges from one file what they are now; returns the files at the ends of those that differ."""
    names, order = columns
    where = "where repository_id = ? and path = ?"
    query = f"select {names} from {table} {where} order by {order}"
    before: list[_Edge] = [tuple(row) for row in store.db.execute(query, [repository_id, path])]
    if before == edges:
        return set()
    store.db.execute(f"delete from {table} {where}", [repository_id, path])
    insert = f"insert into {table} (repository_id, {names}) values (?, ?, ?, ?, ?)"
    store.db.executemany(insert, [(repository_id, *edge) for edge in edges])
    return {end for edge in set(before) ^ set(edges) for end in (edge[0], edge[2])}


def saved_import_targets(
    store: WorkStore, repository_id: int, targets: Iterable[tuple[str, str | None]]
) -> Iterator[tuple[str, str]]:
    """Within a transaction: replace the files that imports are about; yields (importing file, file) once stored."""
    store.db.execute("delete from import_target where repository_id = ?", [repository_id])
    query = "insert or ignore into import_target (repository_id, path, target) values (?, ?, ?)"
    for path, target in targets:
        if target is not None and target != path:
            store.db.execute(query, [repository_id, path, target])
            yield path, target


def stale_paths(store: WorkStore, repository_id: int) -> set[str]:
    """Files of whose texts some are written, and others are to be written again, or for the first time."""
    rows = store.db.execute(
        """select path from item where repository_id = ? and unit in ('chunk', 'file') and part_of is null
           group by path
           having sum(state = 'done') > 0 and sum(unit = 'chunk' and state not in ('done', 'parked')) > 0""",
        [repository_id],
    )
    return {row[0] for row in rows}


# Table, columns of the one end, columns of the other: a symbol and what it is linked with.
RELATIONS = {
    "callers": ("call", ("callee_path", "callee_start_byte"), ("path", "start_byte"), "path, id"),
    "callees": ("call", ("path", "start_byte"), ("callee_path", "callee_start_byte"), "id"),
    "bases": ("inheritance", ("path", "start_byte"), ("base_path", "base_start_byte"), "base_path, base_start_byte"),
    "derived": ("inheritance", ("base_path", "base_start_byte"), ("path", "start_byte"), "path, start_byte"),
}


def linked(store: WorkStore, repository_id: int, relation: str, path: str, limit: int) -> dict[SymbolId, Linked]:
    """What each symbol of a file is linked with: the first few, and how many.

    Only those few are read: a page shows eight of the 100,000 callers of a symbol.
    """
    table, (own_path, own_start), others, order = RELATIONS[relation]
    where = f"from {table} where repository_id = ? and {own_path} = ?"
    counts = store.db.execute(f"select {own_start}, count(*) {where} group by 1", [repository_id, path]).fetchall()
    few = f"select {', '.join(others)} {where} and {own_start} = ? order by {order} limit ?"
    return {
        SymbolId(path, start): Linked(
            [SymbolId(*row) for row in store.db.execute(few, [repository_id, path, start, limit])], total
        )
        for start, total in counts
    }
