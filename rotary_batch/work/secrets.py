"""Where secrets are in the sources of a repository.  Their values are stored nowhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from rotary_batch.work.store import WorkStore


class StoredSecret(NamedTuple):
    """A secret in a file."""

    root: str
    path: str
    line: int
    kind: str


def save_secrets(store: WorkStore, repository_id: int, path: str, found: Iterable[tuple[int, str]]) -> None:
    """Within a transaction: replace what is known of the secrets of a stored file, (line, kind) each."""
    store.db.execute("delete from secret where repository_id = ? and path = ?", [repository_id, path])
    store.db.executemany(
        "insert or ignore into secret (repository_id, path, line, kind) values (?, ?, ?, ?)",
        [(repository_id, path, line, kind) for line, kind in found],
    )


def num_secrets(store: WorkStore, repository_ids: Sequence[int]) -> int:
    """How many secrets some repositories have."""
    places = ",".join("?" * len(repository_ids))
    query = f"select count(*) as n from secret where repository_id in ({places})"
    return int(store.db.execute(query, list(repository_ids)).fetchone()["n"])


def secrets(store: WorkStore, repository_ids: Sequence[int], limit: int) -> list[StoredSecret]:
    """The first of them, by repository, path and line."""
    places = ",".join("?" * len(repository_ids))
    rows = store.db.execute(
        f"""select root, path, line, kind from secret join repository on repository.id = repository_id
            where repository_id in ({places}) order by root, path, line, kind limit ?""",
        [*repository_ids, limit],
    )
    return [StoredSecret(*row) for row in rows]
