"""Which repository of the index a folder is that was moved: one that is gone, and has the same commits and files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from rotary_batch.errors import RotaryError
from rotary_batch.repo.folder import Files
from rotary_batch.repo.plumbing import run_git
from rotary_batch.work.index import move_repository, repositories, stored_files
from rotary_batch.work.page_stamps import source_paths
from rotary_batch.work.rows import RepositoryRow
from rotary_batch.work.store import WorkStore

MAX_COMPARED = 20  # files


def moved_from(store: WorkStore, rows: Sequence[RepositoryRow], root: Path) -> RepositoryRow | None:
    """The newest row whose folder is gone and that this folder continues, or None."""
    if not root.is_dir():
        return None
    gone = sorted((row for row in rows if not Path(row.root).is_dir()), key=lambda row: -row.id)
    with suppress(RotaryError):  # git is missing, or refuses the folder
        return next((row for row in gone if _is_continued(store, row, root)), None)
    return None


def follow_move(store: WorkStore, root: Path) -> str | None:
    """Give a folder the row of the repository that was moved here, if there is one; returns what to say of it."""
    rows = repositories(store)
    if any(row.root == str(root) for row in rows) or (old := moved_from(store, rows, root)) is None:
        return None
    move_repository(store, old.id, str(root))
    return f"moved from {old.root}; what is stored of it is used"


def _is_continued(store: WorkStore, row: RepositoryRow, root: Path) -> bool:
    """By the commit that was indexed, and by more than half of some files: a row may be of a part of a repository."""
    if row.commit_id and not _has_commit(root, row.commit_id):
        return False
    paths = source_paths(store, row.id)
    some = paths[:: len(paths) // MAX_COMPARED + 1]
    if row.commit_id:
        is_bare = not run_git(root, "rev-parse", "--show-toplevel", check=False)
        return is_bare or 2 * sum(os.path.lexists(root / path) for path in some) >= len(some)
    blobs, files = {path: file.blob for path, file in stored_files(store, row.root).items()}, Files(root, "sha1")
    entries = [files.entry(os.fsencode(path)) for path in some]
    return 2 * sum(entry is not None and entry.blob == blobs[entry.path] for entry in entries) > len(some)


def _has_commit(root: Path, commit: str) -> bool:
    return bool(run_git(root, "rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}", check=False))
