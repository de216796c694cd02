"""How the parts of a repository use each other, from the stored calls."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rotary_batch.core import Symbol, SymbolId
from rotary_batch.work.index import stored_symbols
from rotary_batch.work.store import WorkStore


def uses_in_folder(store: WorkStore, repository_id: int, folder: str) -> dict[tuple[str, str], int]:
    """(user, used) -> number of calls, between the folders and files that are directly in a folder."""
    start, end = (f"{folder}/", f"{folder}0") if folder else ("", "\U0010ffff")  # "0" comes after "/"
    rows = store.db.execute(
        """with pair as (
             select substr(path, :from) as user, substr(callee_path, :from) as used from call
             where repository_id = :id and path >= :start and path < :end
               and callee_path >= :start and callee_path < :end and path <> callee_path)
           select substr(user, 1, instr(user || '/', '/') - 1) as user_part,
                  substr(used, 1, instr(used || '/', '/') - 1) as used_part, count(*)
           from pair group by user_part, used_part having user_part <> used_part""",
        {"id": repository_id, "start": start, "end": end, "from": len(start) + 1},
    )
    return {(row[0], row[1]): row[2] for row in rows}


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
    """(symbols, symbols with words of their author)."""
    row = store.db.execute(
        "select count(*), count(docstring) from symbol where repository_id = ?", [repository_id]
    ).fetchone()
    return row[0], row[1]


def _symbols(store: WorkStore, repository_id: int, ids: Iterable[SymbolId]) -> dict[SymbolId, Symbol]:
    wanted = set(ids)
    files = sorted({symbol_id.path for symbol_id in wanted})
    every = (symbol for path in files for symbol in stored_symbols(store, repository_id, path))
    return {symbol.id: symbol for symbol in every if symbol.id in wanted}
