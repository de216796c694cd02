"""`forget`: take a repository out of the database."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rotary_batch.commands.repositories import resolved, select_repositories
from rotary_batch.errors import RepositoryError
from rotary_batch.sync import docs_folder
from rotary_batch.work.index import delete_repository
from rotary_batch.work.store import WorkStore


def forget(store: WorkStore, root: Path) -> dict[str, Any]:
    """Delete all that is stored of one repository.  Raises RepositoryError when it is not indexed."""
    (row,) = select_repositories(store, [root])
    if row.root != str(resolved(root)):
        raise RepositoryError(
            f"{root}: not indexed by itself, but as a part of {row.root}; to forget all of that, run "
            f"`rotary-batch forget {row.root}`"
        )
    num_items, num_results = delete_repository(store, row.id)
    return {"repository": row.root, "docs": str(docs_folder(row)), "items": num_items, "results": num_results}
