"""Which pages on disk are up to date with the database.

A stamp says what the file of a page looked like when it was last up to date.  Triggers (in `schema.py`) delete the
stamps of pages that show an answer, a file or a repository in the transaction that changes it.  So a run that is killed
before it writes these pages leaves them to the next one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from rotary_batch.core import FileClass
from rotary_batch.work.store import WorkStore


def known_stamps(store: WorkStore, repository_id: int) -> dict[str, str]:
    """Thing -> stamp of every page that is up to date."""
    rows = store.db.execute("select thing, stamp from page where repository_id = ?", [repository_id])
    return {row["thing"]: row["stamp"] for row in rows}


def save_stamps(store: WorkStore, repository_id: int, stamps: Mapping[str, str], stale: Collection[str] = ()) -> None:
    """Record that pages are up to date, and that others may not be because of them."""
    with store.transaction():
        store.db.executemany(
            "insert or replace into page (repository_id, thing, stamp) values (?, ?, ?)",
            [(repository_id, thing, stamp) for thing, stamp in stamps.items()],
        )
        store.db.executemany(
            "delete from page where repository_id = ? and thing = ?", [(repository_id, thing) for thing in stale]
        )


def source_paths(store: WorkStore, repository_id: int) -> list[str]:
    """The files that have pages."""
    rows = store.db.execute(
        "select path from file where repository_id = ? and class = ? order by path", [repository_id, FileClass.SOURCE]
    )
    return [row["path"] for row in rows]
