"""What files say of the project apart from their code, and which files others use most."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from rotary_batch.core import Fact, FactKind, FactOf
from rotary_batch.work.store import WorkStore


def save_facts(store: WorkStore, repository_id: int, path: str, facts: Sequence[Fact]) -> None:
    """Within a transaction: replace what a file says, which is stored already; the same again forgets no page."""
    query = "select kind, name, code, words from fact where repository_id = ? and path = ? order by position"
    new = [(fact.kind.value, *map(_storable, fact[1:])) for fact in facts]
    if [tuple(row) for row in store.db.execute(query, [repository_id, path])] == new:
        return
    store.db.execute("delete from fact where repository_id = ? and path = ?", [repository_id, path])
    store.db.executemany(
        "insert into fact (repository_id, path, position, kind, name, code, words) values (?, ?, ?, ?, ?, ?, ?)",
        [(repository_id, path, position, *fact) for position, fact in enumerate(new)],
    )


def stored_facts(store: WorkStore, repository_id: int, is_test_file: Callable[[str], bool]) -> list[FactOf]:
    """What all files say, by path.

    A file that others import, tests left out, is not a script: what it does when it is run is a demonstration.
    """
    rows = store.db.execute(
        "select path, kind, name, code, words from fact where repository_id = ? order by path, position",
        [repository_id],
    )
    found = [FactOf(row["path"], Fact(FactKind(row["kind"]), *row[2:])) for row in rows]
    scripts = sorted({one.path for one in found if one.fact.kind is FactKind.SCRIPT})
    imports = store.db.execute(
        """select path, target from import_target
           where repository_id = ? and target in (select value from json_each(?))""",
        [repository_id, json.dumps(scripts)],
    )
    used = {target for path, target in imports if not is_test_file(path)}
    return [one for one in found if not (one.fact.kind is FactKind.SCRIPT and one.path in used)]


def save_central_files(store: WorkStore, repository_id: int, paths: Sequence[str]) -> None:
    """Within a transaction: replace the files that others use most, the most used first."""
    store.db.execute("delete from central_file where repository_id = ?", [repository_id])
    store.db.executemany(
        "insert into central_file (repository_id, position, path) values (?, ?, ?)",
        [(repository_id, position, path) for position, path in enumerate(paths)],
    )


def central_files(store: WorkStore, repository_id: int) -> list[str]:
    """The files that others use most, directly or not."""
    rows = store.db.execute("select path from central_file where repository_id = ? order by position", [repository_id])
    return [row["path"] for row in rows]


def _storable(text: str) -> str:
    """Without surrogates, which no database takes."""
    return text.encode("utf-8", "replace").decode()
