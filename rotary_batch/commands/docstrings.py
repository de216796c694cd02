"""`docstrings`: answers about symbols as docs in their sources, in a patch or in a clean working tree."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from rotary_batch.commands.repositories import select_repositories
from rotary_batch.core import FileClass
from rotary_batch.errors import InputError, RepositoryError
from rotary_batch.pages.descriptors import BlockedError, opened, read_at, replace_at
from rotary_batch.repo.docstrings import write_docs
from rotary_batch.repo.git import GitCommit, Repository, open_repository
from rotary_batch.repo.source_text import read_source
from rotary_batch.sync import open_docs
from rotary_batch.work.answers import shown_by_symbol
from rotary_batch.work.index import stored_files
from rotary_batch.work.rows import RepositoryRow
from rotary_batch.work.store import WorkStore

PATCH = "patches/docstrings.patch"
_NO_END = b"\n\\ No newline at end of file\n"  # as git writes it


class _Changed(NamedTuple):
    path: str
    old: bytes
    new: bytes
    num_symbols: int


def docstrings(store: WorkStore, root: Path, *, apply: bool) -> dict[str, Any]:
    """Write the patch into the docs folder, or the docs into the sources.

    Raises RepositoryError for a working tree that is not clean, InputError for a file that is not as it was committed.
    """
    (row,) = select_repositories(store, [root])
    repository = open_repository(root, worktree=row.worktree and not apply, docs_dir=row.docs_dir)
    if apply:
        _require_clean(root, repository)
    changed = list(_changed(store, row, repository))
    if apply:
        _write(root, changed)
    else:
        _write_patch(row, changed)
    return {
        "patch": None if apply or not changed else str(root / row.docs_dir / PATCH),
        "files": [one.path for one in changed],
        "symbols": sum(one.num_symbols for one in changed),
        "answers": sum(len(texts) for _, texts in shown_by_symbol(store, row.id)),
        "applied": apply,
    }


def _require_clean(root: Path, repository: Repository) -> None:
    if not isinstance(repository, GitCommit) or repository.is_bare:
        raise RepositoryError(f"{root}: no working tree of git; write the patch instead, without --apply")
    if repository.notes:
        raise RepositoryError(f"{root}: has uncommitted changes; commit them first, so that git can undo the docs")


def _changed(store: WorkStore, row: RepositoryRow, repository: Repository) -> Iterator[_Changed]:
    """The files that get docs, in their order.  A file that is not as it was indexed gets none."""
    texts = dict(shown_by_symbol(store, row.id))
    files = stored_files(store, row.root)
    entries = [
        entry
        for entry in (repository.entries() if texts else ())
        if entry.path in texts and entry.path in files and files[entry.path].blob == entry.blob
    ]
    for entry, data in repository.read(entries):
        file = files[entry.path]
        is_plain = file.file_class is FileClass.SOURCE and read_source(entry.path, data) == data
        if is_plain and file.language and entry.path.isprintable() and not set(entry.path) & {'"', "\\"}:
            written = write_docs(file.language, data, texts[entry.path])
            if written.symbols:
                yield _Changed(entry.path, data, written.source, len(written.symbols))


def _write_patch(row: RepositoryRow, changed: list[_Changed]) -> None:
    with open_docs(row) as folder:
        if changed:
            folder.publish([folder.stage(PATCH, b"".join(map(_diff, changed)))])
        else:
            with suppress(BlockedError, FileNotFoundError):
                folder.remove(PATCH)


def _diff(one: _Changed) -> bytes:
    """A unified diff that `git apply` takes; a tab ends a name with spaces."""
    old, new = (f"{side}/{one.path}".encode() + (b"\t" if " " in one.path else b"") for side in "ab")
    lines = difflib.diff_bytes(
        difflib.unified_diff, one.old.splitlines(keepends=True), one.new.splitlines(keepends=True), old, new
    )
    return b"".join(line if line.endswith(b"\n") else line + _NO_END for line in lines)


def _write(root: Path, changed: list[_Changed]) -> None:
    """Raises InputError before anything is written when a file is not what was committed."""
    for one in changed:
        with opened((root / one.path).parent) as descriptor:
            found = read_at(descriptor, Path(one.path).name, one.path)
        if found is None or found.data != one.old:
            raise InputError(
                f"{root / one.path}: not byte for byte what was committed (line ends?); use the patch, without --apply"
            )
    for one in changed:
        with opened((root / one.path).parent) as descriptor:
            replace_at(descriptor, Path(one.path).name, one.new)
