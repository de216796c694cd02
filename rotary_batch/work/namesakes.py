"""Files of C and C++ that share names, of which one may declare what another defines; see `linkage.py`."""

from __future__ import annotations

from rotary_batch.work.store import WorkStore

MAX_SAME = 100  # symbols of one name that are compared, each with each, for each file; of more, none is linked
DEFINED = ("constant", "constructor", "function", "method", "variable")


def shared_names(store: WorkStore, repository_id: int, path: str) -> list[str]:
    """The names of what a file declares or defines that other files may see."""
    kinds = ("declaration", *DEFINED)
    # Sorted here: for `order by`, SQLite would read the index by name, which is that of the whole repository.
    query = f"""select name from symbol
                where repository_id = ? and path = ? and is_public and kind in ({", ".join("?" * len(kinds))})"""
    return sorted({row[0] for row in store.db.execute(query, [repository_id, path, *kinds])})


def namesakes(store: WorkStore, repository_id: int, path: str) -> set[str]:
    """The files that may declare or define what a file does."""
    query = "select distinct path from (select path from symbol where repository_id = ? and name = ? limit ?)"
    found: set[str] = set()
    for name in shared_names(store, repository_id, path):
        found.update(row[0] for row in store.db.execute(query, [repository_id, name, MAX_SAME + 1]))
    return found
