"""The entries of the symbol index: which public symbols a file has, kept in the order of the pages."""

from __future__ import annotations

from collections.abc import Iterable

from rotary_batch.work.store import WorkStore

Entry = tuple[str, str, str, str, str]  # letter, key, name, kind, anchor
_IN_ORDER = "from listed_symbol indexed by listed_in_order"


class ListedSymbols:
    """The entries of a repository, as `pages.symbol_index` reads them."""

    def __init__(self, store: WorkStore, repository_id: int) -> None:
        self._store = store
        self._id = repository_id

    def counts(self) -> dict[str, int]:
        """Letter -> how many entries it has."""
        query = f"select letter, count(*) {_IN_ORDER} where repository_id = ? group by letter order by letter"
        return {row[0]: row[1] for row in self._store.db.execute(query, [self._id])}

    def rows(self, letter: str, skip: int, number: int) -> list[tuple[str, str, str, str]]:
        """(name, kind, path, anchor) of some entries of a letter."""
        query = f"""select name, kind, path, anchor {_IN_ORDER} where repository_id = ? and letter = ?
                    order by key, name, path, anchor limit ? offset ?"""
        return [tuple(row) for row in self._store.db.execute(query, [self._id, letter, number, skip])]


def save_listed(store: WorkStore, repository_id: int, path: str, entries: Iterable[Entry]) -> set[str]:
    """Within a transaction: replace the entries of a file; returns the letters whose pages are others now."""
    of_file = [repository_id, path]
    query = "select letter, key, name, kind, anchor from listed_symbol where repository_id = ? and path = ?"
    before, now = {tuple(row) for row in store.db.execute(query, of_file)}, set(entries)
    if before != now:
        store.db.execute("delete from listed_symbol where repository_id = ? and path = ?", of_file)
        store.db.executemany(
            """insert into listed_symbol (repository_id, path, letter, key, name, kind, anchor)
               values (?, ?, ?, ?, ?, ?, ?)""",
            [(*of_file, *entry) for entry in sorted(now)],
        )
    return {entry[0] for entry in before ^ now}
