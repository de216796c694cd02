"""Types of C# that are written in several parts (`partial`), across files."""

from __future__ import annotations

from typing import NamedTuple

from rotary_batch.core import CLASS_KINDS, Linked, SymbolId, is_part
from rotary_batch.work.namesakes import MAX_SAME
from rotary_batch.work.store import WorkStore

_KINDS = ", ".join(f"'{kind}'" for kind in sorted(CLASS_KINDS))
_COLUMNS = "symbol.path, start_byte, name, qualified_name, kind, signature"


class _Part(NamedTuple):
    path: str
    start_byte: int
    name: str
    qualified_name: str
    kind: str
    signature: str


def other_parts(store: WorkStore, repository_id: int, path: str, limit: int) -> dict[SymbolId, Linked]:
    """The other parts of the types of a file: the first few, and how many."""
    found: dict[SymbolId, Linked] = {}
    for one in _parts_in(store, repository_id, path):
        others = [SymbolId(other.path, other.start_byte) for other in _same(store, repository_id, one)]
        if others:
            found[SymbolId(path, one.start_byte)] = Linked(others[:limit], len(others))
    return found


def files_of_parts(store: WorkStore, repository_id: int, path: str) -> set[str]:
    """The files that have other parts of the types of a file."""
    parts = _parts_in(store, repository_id, path)
    return {other.path for one in parts for other in _same(store, repository_id, one)}


def _parts_in(store: WorkStore, repository_id: int, path: str) -> list[_Part]:
    query = f"""select {_COLUMNS} from symbol
                where repository_id = ? and path = ? and kind in ({_KINDS}) and signature like '%partial %'"""
    return _read(store, query, [repository_id, path])


def _same(store: WorkStore, repository_id: int, one: _Part) -> list[_Part]:
    """Those with the same whole name, in path order; none where very many symbols have that name."""
    # SQLite would take the primary key, of which it has only the repository.
    query = f"select {_COLUMNS} from symbol indexed by symbol_by_name where repository_id = ? and name = ? limit ?"
    named = store.db.execute(query, [repository_id, one.name, MAX_SAME + 1]).fetchall()
    parts = [part for part in map(_Part._make, named) if part != one and is_part(part.kind, part.signature)]
    if not parts or len(named) > MAX_SAME:
        return []
    whole = _whole_name(store, repository_id, one)
    return sorted(part for part in parts if _whole_name(store, repository_id, part) == whole)


def _read(store: WorkStore, query: str, values: list[object]) -> list[_Part]:
    parts = [_Part(*row) for row in store.db.execute(query, values)]
    return [part for part in parts if is_part(part.kind, part.signature)]


def _whole_name(store: WorkStore, repository_id: int, part: _Part) -> str:
    """With the namespace that the whole file is in, which is stored as an import without names."""
    query = "select module from import where repository_id = ? and path = ? and name is null and alias = ''"
    row = store.db.execute(query, [repository_id, part.path]).fetchone()
    return f"{row[0]}.{part.qualified_name}" if row else part.qualified_name
