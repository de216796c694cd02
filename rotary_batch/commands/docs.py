"""`render` and `check`: the docs folder versus the database, or versus the sources."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

from rotary_batch.commands.drain import NOT_WHOLE
from rotary_batch.commands.repositories import select_repositories, without_folder
from rotary_batch.config import Settings
from rotary_batch.core import FileClass
from rotary_batch.errors import RepositoryError
from rotary_batch.pages.drift import Drift, check_docs
from rotary_batch.pages.files import SyncResult, accept
from rotary_batch.pages.safe_folder import open_safe_folder
from rotary_batch.pages.site import site_paths
from rotary_batch.pages.symbol_index import is_index_thing
from rotary_batch.repo.files import PathPatterns, classify
from rotary_batch.repo.git import open_repository
from rotary_batch.sync import open_docs, sync_all
from rotary_batch.window import Window
from rotary_batch.work.page_stamps import source_paths
from rotary_batch.work.store import WorkStore


def render(store: WorkStore, root: Path, window: Window, *, overwrite: bool = False) -> SyncResult:
    """Write every page of the docs folder that differs from the database.

    `overwrite`: also those that show texts of a model that the database does not have.
    Raises StoppedError when the window closes before that.
    """
    (row,) = select_repositories(store, [root])
    if without_folder([row]):
        raise RepositoryError(f"{root}: no such folder; its docs would be orphaned")
    if not row.plan_key:
        raise RepositoryError(f"{root}: {NOT_WHOLE}; run `rotary-batch index {root}` again")
    sync_result = sync_all(store, row, should_stop=window.is_closed, overwrite=overwrite)
    if sync_result.stopped:
        window.check()
    return sync_result


def accept_page(store: WorkStore, root: Path, page: str, whose: str) -> None:
    """Settle one page that a person edited; `whose` is `ours` or `theirs`."""
    (row,) = select_repositories(store, [root])
    wanted = set(site_paths(source_paths(store, row.id)).values())
    with open_docs(row) as folder:
        accept(folder, page, whose, is_orphan=page not in wanted and not is_index_thing(f"/{page}"))


def check(settings: Settings, root: Path) -> Drift:
    """Compare docs and sources.  Needs neither database nor model, so it works in a fresh clone."""
    repository = open_repository(root, worktree=settings.worktree, docs_dir=settings.out)
    files = classify(repository, docs_dir=settings.out, patterns=PathPatterns(settings.include, settings.exclude))
    blobs = {file.path: file.blob for file in files if file.file_class is FileClass.SOURCE}
    stubs = {file.path: file.blob for file in files if file.file_class is FileClass.STUB}
    folder = open_safe_folder(repository.root, settings.out, create=False)
    with folder or nullcontext():
        return check_docs(folder, blobs, stubs)
