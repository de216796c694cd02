"""What the index knows of names: read file by file to resolve references, and the edges that come of it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import groupby
from operator import attrgetter, itemgetter
from sys import intern
from typing import TypeAlias

from rotary_batch import __version__
from rotary_batch.core import Call, FileClass, Import, Inheritance, Linked, Reference, Symbol, SymbolId, ValueType
from rotary_batch.work.store import WorkStore

MAX_SCANNED = 1000  # symbols of one name: 100,000 files may each have a `main`
MAX_NAMED = 50  # that are read
_MAX_ANSWERS = 4096  # that are kept
Facts: TypeAlias = tuple[list[Symbol], list[Import], list[ValueType]]
# The signature of a function is of no use here, but for C's `static`.
_OUTLINE = """path, kind, name, nullif(qualified_name, name), start_line, end_line, start_byte, end_byte,
  case when kind in ('function', 'method', 'constructor') then substr(signature, 1, 60) else signature end,
  docstring is not null, nullif(bases, '[]'), nullif(decorators, '[]'), is_public"""


class StoredNames:
    """The names of a repository, as `repo.resolve` asks for them; nothing is kept but the list of files."""

    def __init__(self, store: WorkStore, repository_id: int, manifests: Mapping[str, bytes]) -> None:
        self._store = store
        self._named = lru_cache(_MAX_ANSWERS)(self._read_named)
        self._id = repository_id
        self.manifests = manifests
        query = "select path, language from file where repository_id = ? and class = ? order by path"
        rows = store.db.execute(query, [repository_id, FileClass.SOURCE.value])
        self.languages = {row[0]: intern(row[1] or "") for row in rows}

    def facts(self, path: str) -> Facts:
        """What one file defines, imports, and says of types."""
        return stored_facts(self._store, self._id, path)

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
        found = _symbols(
            self._store,
            f"""from (select path as p, start_byte as s, qualified_name as q from symbol
                      where repository_id = ? and name = ? {bounds} limit {MAX_SCANNED})
                join symbol on repository_id = ? and path = p and start_byte = s and qualified_name = q
                where {condition} limit {MAX_NAMED}""",
            [self._id, name, *limits, self._id, *values],
        )
        return found if len(found) < MAX_NAMED else []


def language_of_source(store: WorkStore, repository_id: int, path: str) -> str | None:
    """The language of a file, if it is a source."""
    query = "select language from file where repository_id = ? and path = ? and class = ?"
    row = store.db.execute(query, [repository_id, path, FileClass.SOURCE]).fetchone()
    return None if row is None else str(row[0])


def stored_facts(store: WorkStore, repository_id: int, path: str) -> Facts:
    """What one file defines, imports, and says of types."""
    key = [repository_id, path]
    symbols = _symbols(store, "from symbol where repository_id = ? and path = ? order by start_byte", key)
    query = "select module, name, alias from import where repository_id = ? and path = ? order by position"
    imports = [Import(path, *row) for row in store.db.execute(query, key)]
    query = "select owner, name, value from value_type where repository_id = ? and path = ?"
    return symbols, imports, [ValueType(path, *row) for row in store.db.execute(query, key)]


def _symbols(store: WorkStore, source: str, values: Sequence[object]) -> list[Symbol]:
    return [outline_symbol(row) for row in store.db.execute(f"select {_OUTLINE} {source}", values)]


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


def stored_references(
    store: WorkStore, repository_id: int, paths: Collection[str] | None = None
) -> Iterator[Reference]:
    """The references of some files, or of all, in path order."""
    of_paths, values = _of(paths)
    query = f"""select path, name, line, start_byte, caller_start_byte, receiver from reference
                where repository_id = ? {of_paths} order by path, id"""
    for path, name, line, start_byte, caller, receiver in store.db.execute(query, [repository_id, *values]):
        yield Reference(
            path=path,
            name=name,
            line=line,
            start_byte=start_byte,
            caller=None if caller is None else SymbolId(path, caller),
            receiver=receiver,
        )


def stored_imports(store: WorkStore, repository_id: int, paths: Collection[str] | None) -> Iterator[Import]:
    """The imports of some files, or of all, in path order."""
    of_paths, values = _of(paths)
    query = f"select path, module, name, alias from import where repository_id = ? {of_paths} order by path, position"
    return (Import(*row) for row in store.db.execute(query, [repository_id, *values]))


def _of(paths: Collection[str] | None) -> tuple[str, list[str]]:
    """The condition that rows are of some files, and its values; None = all files."""
    return ("", []) if paths is None else ("and path in (select value from json_each(?))", [json.dumps(list(paths))])


def save_calls(
    store: WorkStore, repository_id: int, calls: Iterable[Call], paths: Collection[str] | None, changed: set[str]
) -> None:
    """Within a transaction: replace the stored calls from some files, or from all.  Those of one file come together.

    `changed` gets the files of both ends of the calls that are new or gone.
    """
    edges = ((*call.caller, *call.callee) for call in calls)
    _replace_all_edges(store, "call", repository_id, groupby(edges, itemgetter(0)), paths, changed)


def save_inheritance(
    store: WorkStore, repository_id: int, edges: Iterable[Inheritance], paths: Collection[str] | None, changed: set[str]
) -> None:
    """Within a transaction: replace what extends what, as `save_calls` does calls."""
    by_file = groupby(edges, attrgetter("derived.path"))
    rows = ((path, sorted({(*edge.derived, *edge.base) for edge in group})) for path, group in by_file)
    _replace_all_edges(store, "inheritance", repository_id, rows, paths, changed)


_Edge = tuple[str, int, str, int]
_EDGES = {  # table: its columns, their order
    "call": ("path, start_byte, callee_path, callee_start_byte", "id"),
    "inheritance": ("path, start_byte, base_path, base_start_byte", "path, start_byte, base_path, base_start_byte"),
}


def _replace_all_edges(
    store: WorkStore,
    table: str,
    repository_id: int,
    edges: Iterable[tuple[str, Iterable[_Edge]]],
    paths: Collection[str] | None,
    changed: set[str],
) -> None:
    """Make the edges from some files, or from all, what they are now; `changed` gets the ends of those that differ."""
    without = set(_paths(store, table, repository_id) if paths is None else paths)
    for path, group in edges:
        without.discard(path)
        changed |= _replace_edges(store, table, repository_id, path, list(group))
    for path in without:
        changed |= _replace_edges(store, table, repository_id, path, [])


def _paths(store: WorkStore, table: str, repository_id: int) -> set[str]:
    query = f"select distinct path from {table} where repository_id = ?"
    return {row[0] for row in store.db.execute(query, [repository_id])}


def _replace_edges(store: WorkStore, table: str, repository_id: int, path: str, edges: list[_Edge]) -> set[str]:
    """Make the edges from one file what they are now; returns the files at the ends of those that differ."""
    names, order = _EDGES[table]
    where = "where repository_id = ? and path = ?"
    query = f"select {names} from {table} {where} order by {order}"
    before: list[_Edge] = [tuple(row) for row in store.db.execute(query, [repository_id, path])]
    if before == edges:
        return set()
    store.db.execute(f"delete from {table} {where}", [repository_id, path])
    insert = f"insert into {table} (repository_id, {names}) values (?, ?, ?, ?, ?)"
    store.db.executemany(insert, [(repository_id, *edge) for edge in edges])
    return {end for edge in set(before) ^ set(edges) for end in (edge[0], edge[2])}


def save_import_targets(
    store: WorkStore, repository_id: int, targets: Iterable[tuple[str, str | None]], paths: Collection[str] | None
) -> None:
    """Within a transaction: replace the files that the imports of some files, or of all, are about."""
    of_paths, values = _of(paths)
    store.db.execute(f"delete from import_target where repository_id = ? {of_paths}", [repository_id, *values])
    store.db.executemany(
        "insert or ignore into import_target (repository_id, path, target) values (?, ?, ?)",
        ((repository_id, path, target) for path, target in targets if target is not None and target != path),
    )


def file_edges(store: WorkStore, repository_id: int) -> Iterator[tuple[str, str]]:
    """(user, used): once for each file that a file imports, and for each call between two files."""
    rows = store.db.execute(
        """select path, target from import_target where repository_id = :id
           union all select path, callee_path from call where repository_id = :id and path <> callee_path""",
        {"id": repository_id},
    )
    return ((row[0], row[1]) for row in rows)


def is_resolved(store: WorkStore, repository_id: int) -> bool:
    """Whether the stored edges are those of all files, but for the edges from files that are not rolled up.

    Another version of the program may find other edges.
    """
    query = "select 1 from repository where id = ? and resolved_by = ?"
    return store.db.execute(query, [repository_id, __version__]).fetchone() is not None


def set_resolved(store: WorkStore, repository_id: int, *, is_resolved: bool) -> None:
    """Within a transaction: record whether it is so."""
    resolved_by = __version__ if is_resolved else None
    store.db.execute("update repository set resolved_by = ? where id = ?", [resolved_by, repository_id])


def move_symbols(store: WorkStore, repository_id: int, path: str, moved: Mapping[int, int]) -> None:
    """Within a transaction: give the edges to the symbols of a file their new start bytes.

    By way of negative numbers, as one symbol may start where another did.
    """
    for table, end in (("call", "callee"), ("inheritance", "base")):
        start, of_file = f"{end}_start_byte", f"where repository_id = ? and {end}_path = ?"
        store.db.executemany(
            f"update {table} set {start} = ? {of_file} and {start} = ?",
            [(-1 - new, repository_id, path, old) for old, new in moved.items()],
        )
        store.db.execute(f"update {table} set {start} = -1 - {start} {of_file} and {start} < 0", [repository_id, path])


def stale_paths(store: WorkStore, repository_id: int) -> set[str]:
    """Files of whose texts some are written, and others are to be written again, or for the first time."""
    rows = store.db.execute(
        """select path from item
           where repository_id = ? and unit in ('chunk', 'symbol', 'detail', 'file') and part_of is null group by path
           having sum(state = 'done') > 0 and sum(unit <> 'file' and state not in ('done', 'parked')) > 0""",
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
