"""The text of a source as it was indexed: from git's objects, or from a file that has not changed since."""

from __future__ import annotations

from pathlib import Path

from rotary_batch.core import SourceFile
from rotary_batch.errors import InputError
from rotary_batch.repo.folder import Entry
from rotary_batch.repo.git import open_repository
from rotary_batch.repo.source_text import read_source as as_parsed
from rotary_batch.work.rows import RepositoryRow


def read_source(row: RepositoryRow, file: SourceFile) -> bytes:
    """The bytes that were parsed; no symbolic link is followed.

    Raises InputError when the file has changed, RepositoryError when the repository cannot be read.
    """
    repository = open_repository(Path(row.root), worktree=row.worktree, docs_dir=row.docs_dir)
    entry = Entry(file.path, file.path.encode(), "100644", file.blob, file.nbytes)
    for _, data in repository.read([entry]):
        return as_parsed(file.path, data)
    raise InputError(f"{row.root}/{file.path}: changed since it was indexed; run `rotary-batch index {row.root}`")
