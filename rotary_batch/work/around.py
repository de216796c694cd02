"""What is around a chunk, from the index: what it uses, what uses it, and what else its file defines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from rotary_batch.core import DATA_KINDS, Symbol
from rotary_batch.work.drafts import ChunkId
from rotary_batch.work.index import symbol_of_row
from rotary_batch.work.store import WorkStore

MAX_CALLEES = 8  # symbols that one chunk uses, in the order of their first use
MAX_CALLERS = 2
MAX_OUTLINE = 20  # names of one file
_CALLS_READ = 50  # to a chunk: a symbol may have 100,000 callers


class Used(NamedTuple):
    """A symbol that a chunk uses."""

    symbol: Symbol
    language: str | None


def callees(store: WorkStore, repository_id: int, chunk: ChunkId, end_byte: int) -> list[Used]:
    """What the symbols that start in a chunk use outside it, in the order of the first use."""
    rows = store.db.execute(
        """select callee_path, callee_start_byte from call
           where repository_id = ? and path = ? and start_byte >= ? and start_byte < ?
             and not (callee_path = path and callee_start_byte >= ? and callee_start_byte < ?)
           group by 1, 2 order by min(id) limit ?""",
        [repository_id, *chunk, end_byte, chunk.start_byte, end_byte, MAX_CALLEES],
    ).fetchall()
    found = (_symbol(store, repository_id, row[0], row[1]) for row in rows)
    return [one for one in found if one is not None and one.symbol.kind not in DATA_KINDS]


def _symbol(store: WorkStore, repository_id: int, path: str, start_byte: int) -> Used | None:
    row = store.db.execute(
        """select symbol.*, language from symbol join file using (repository_id, path)
           where repository_id = ? and path = ? and start_byte = ?""",
        [repository_id, path, start_byte],
    ).fetchone()
    return None if row is None else Used(symbol_of_row(row), row["language"])


def callers(store: WorkStore, repository_id: int, chunk: ChunkId, end_byte: int) -> list[Symbol]:
    """Symbols outside a chunk that use those which start in it."""
    rows = store.db.execute(
        """select path, start_byte from call
           where repository_id = ? and callee_path = ? and callee_start_byte >= ? and callee_start_byte < ?
             and not (path = callee_path and start_byte >= ? and start_byte < ?)
           order by callee_start_byte, path limit ?""",
        [repository_id, *chunk, end_byte, chunk.start_byte, end_byte, _CALLS_READ],
    ).fetchall()
    places = list(dict.fromkeys((row[0], row[1]) for row in rows))[:MAX_CALLERS]
    found = (_symbol(store, repository_id, *place) for place in places)
    return [one.symbol for one in found if one is not None]


def outline_names(store: WorkStore, repository_id: int, chunk: ChunkId, end_byte: int) -> Iterator[str]:
    """The names that the file of a chunk defines at its top outside the chunk, in order."""
    rows = store.db.execute(
        f"""select name from symbol where repository_id = ? and path = ? and (start_byte < ? or start_byte >= ?)
              and name = qualified_name and kind not in ({", ".join(f"'{kind}'" for kind in sorted(DATA_KINDS))})
            order by start_byte limit ?""",
        [repository_id, *chunk, end_byte, MAX_OUTLINE],
    )
    return (row["name"] for row in rows)
