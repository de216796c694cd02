"""Names that may mean something else since the edges were resolved, and the files that use them.

Every text of the index in which the resolver finds a name is searched: references and what is before their dots,
imports, types of values, bases, aliases of types.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Collection, Iterator

from rotary_batch.work.store import WorkStore

MAX_NAMES = 40  # each is searched in every text of the index
OUTER = "substr(qualified_name, 1, length(qualified_name) - length(name))"  # the types around a symbol
IMPORTED = "module || char(10) || coalesce(name, '')"


def save_affected(store: WorkStore, repository_id: int, names: Collection[str]) -> None:
    """Within a transaction: add names until the edges are resolved."""
    rows = [(repository_id, name) for name in sorted(names)]
    store.db.executemany("insert or ignore into affected_name (repository_id, name) values (?, ?)", rows)


def forget_affected(store: WorkStore, repository_id: int) -> None:
    """Within a transaction: the edges are resolved."""
    store.db.execute("delete from affected_name where repository_id = ?", [repository_id])


def affected_names(store: WorkStore, repository_id: int) -> frozenset[str]:
    """The names that were added."""
    rows = store.db.execute("select name from affected_name where repository_id = ?", [repository_id])
    return frozenset(row[0] for row in rows)


def files_using(store: WorkStore, repository_id: int, names: Collection[str]) -> set[str] | None:
    """The files in which the resolver may ask for these names, or for others that stand for them.

    None when that cannot be told from names: a type inherits from one of them, or all of one is imported.
    """
    names = set(names)
    searched: set[str] = set()
    files: set[str] = set()
    while new := names - searched:
        if len(names) > MAX_NAMES:
            return None
        search = _Search(store, repository_id, new)
        if search.is_inherited():
            return None
        aliases = search.aliases()
        if "" in aliases:
            return None
        searched |= new
        names |= aliases | search.values()
        files |= search.files()
    return files


class _Search:
    """Where an index mentions some names.  SQLite finds the letters, then a name must be a whole word."""

    def __init__(self, store: WorkStore, repository_id: int, names: Collection[str]) -> None:
        self._store = store
        self._values = {"id": repository_id} | {f"name{place}": name for place, name in enumerate(sorted(names))}
        words = (
            rf"(?<!\w){re.escape(name)}(?!\w)" if re.fullmatch(r"\w+", name) else re.escape(name) for name in names
        )
        self._mention = re.compile("|".join(words))

    def _rows(self, columns: str, table: str, text: str, condition: str = "true") -> Iterator[sqlite3.Row]:
        """Some columns of the rows in whose text a name is."""
        has_letters = " or ".join(f"instr({text}, :{name})" for name in self._values if name != "id")
        query = f"select {columns}, {text} from {table} where repository_id = :id and {condition} and ({has_letters})"
        return (row for row in self._store.db.execute(query, self._values) if self._mention.search(row[-1]))

    def is_inherited(self) -> bool:
        """Whether a type names one of them as its base: all that it has from there may be something else."""
        return any(self._rows("path", "symbol", "bases", "bases <> '[]'"))

    def aliases(self) -> set[str]:
        """What imports and aliases of types call them; "" when an import is of all that one of them has."""
        imports = self._rows("name, alias", "import", IMPORTED, "(alias <> '' or name = '*')")
        types = self._rows("name", "symbol", "signature", "kind = 'type'")
        return {"" if row[0] == "*" else row[1] for row in imports} | {row[0] for row in types}

    def values(self) -> set[str]:
        """Fields, variables and functions whose value is made of one of them."""
        rows = self._rows("owner, name", "value_type", "value")
        return {owner.rpartition(".")[2] if name == "()" else name for owner, name, _ in rows}

    def files(self) -> set[str]:
        """Files that use one of them, or have a member of one without the type itself."""
        places = [
            ("reference", "name"),
            ("reference", "receiver"),
            ("import", IMPORTED),
            ("symbol", OUTER),
        ]
        return {row[0] for table, text in places for row in self._rows("path", table, text)}


def _as_pattern(name: str) -> str:
    """A name of letters is a whole word; others, such as operators, are found anywhere."""
    return rf"(?<!\w){name}(?!\w)" if re.fullmatch(r"\w+", name) else re.escape(name)
