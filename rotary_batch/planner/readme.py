"""Store the text of the README, which the first page of a repository begins with."""

from __future__ import annotations

from collections.abc import Sequence

from rotary_batch.core import FileClass, SourceFile
from rotary_batch.pages.readme import MAX_READ_CHARACTERS, readme_of
from rotary_batch.repo.git import Repository
from rotary_batch.work.index import save_docstring, stored_docstring
from rotary_batch.work.store import WorkStore

MAX_NBYTES = 2_000_000  # a larger file is not a README


def save_readme(store: WorkStore, repository_id: int, repository: Repository, files: Sequence[SourceFile]) -> None:
    """Within a transaction: store the beginning of the README of the top folder, if it is not parsed as a source."""
    texts = {file.path: file for file in files if file.file_class is FileClass.TEXT and file.nbytes <= MAX_NBYTES}
    path = readme_of(texts)
    if path is None or stored_docstring(store, repository_id, path) is not None:
        return
    entries = [entry for entry in repository.entries() if entry.path == path]
    for _, data in repository.read(entries):
        save_docstring(store, repository_id, path, data.decode("utf-8-sig", "replace")[:MAX_READ_CHARACTERS])
