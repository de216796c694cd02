"""Which repositories a command is about: the folder that it reads, or rows of the index."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rotary_batch.commands.isolation import isolated
from rotary_batch.commands.moved import moved_from
from rotary_batch.errors import RepositoryError
from rotary_batch.repo.git import enclosing_repository, require_folder
from rotary_batch.work.index import repositories
from rotary_batch.work.rows import RepositoryRow
from rotary_batch.work.store import WorkStore


def repository_root(repo: Path | None) -> Path:
    """The folder that is named, or the repository around the current folder.  Raises RepositoryError."""
    root = repo or enclosing_repository(Path.cwd())
    if root is None:
        raise RepositoryError(f"{Path.cwd()}: not inside a git repository; name a repository or a folder")
    return resolved(root)


def whole_repository(folder: Path, docs_dir: str | None = None) -> Path | None:
    """The repository around a folder that is a part of it; None for a whole one.

    With `docs_dir` a part that has docs of its own counts as a whole one.
    """
    if not folder.is_dir() or shutil.which("git") is None:
        return None
    around = enclosing_repository(folder)
    is_whole = around is None or around.resolve() == folder.resolve()
    return None if is_whole or (docs_dir is not None and (folder / docs_dir).is_dir()) else around


def resolved(path: Path) -> Path:
    """The path of a repository as it is stored: without symbolic links.

    Raises RepositoryError for a link to itself, and for a name that is not UTF-8: the database cannot hold it.
    """
    try:
        root = path.resolve()
        str(root).encode()
    except RuntimeError as error:  # how Python 3.11 and 3.12 report it
        raise RepositoryError(f"{printable(path)}: a symbolic link that leads to itself; name the folder") from error
    except UnicodeEncodeError as error:
        raise RepositoryError(f"{printable(root)}: its path is not valid UTF-8; rename the folder") from error
    return root


def missing_folders(repos: Sequence[Path]) -> list[Any]:
    """A Failure for each repository whose folder is not there."""
    outcomes: list[Any] = []
    for repo in repos:
        with isolated([full_name(repo)], outcomes):
            require_folder(resolved(repo))
    return outcomes


def printable(path: Path) -> str:
    """A path for messages, reports and the database, with bytes that are not UTF-8 escaped."""
    return os.fsencode(path).decode(errors="backslashreplace")


def full_name(repo: Path) -> str:
    """The absolute path of a repository as it was named, for messages."""
    return printable(Path(os.path.abspath(repo)))  # noqa: PTH100 - `resolve` follows links, and raises for some


def select_repositories(store: WorkStore, roots: Sequence[Path]) -> list[RepositoryRow]:
    """The indexed repositories that are named, or that hold the named folders, each once; no name means all of them.

    Raises RepositoryError for one that is not indexed.
    """
    rows = {row.root: row for row in repositories(store)}
    names = list(dict.fromkeys(str(resolved(root)) for root in roots)) or list(rows)
    return list({row.id: row for row in (_indexed(store, rows, name) for name in names)}.values())


def _indexed(store: WorkStore, rows: Mapping[str, RepositoryRow], name: str) -> RepositoryRow:
    """The row of a root; of a folder in a repository, that of the repository around it."""
    if name in rows:
        return rows[name]
    around = whole_repository(Path(name))
    if around is not None and str(around) in rows:
        return rows[str(around)]
    if (old := moved_from(store, list(rows.values()), Path(name))) is not None:
        raise RepositoryError(
            f"{name}: not indexed yet, but it continues {old.root}, which is gone; if that was moved here, run "
            f"`rotary-batch index {name}`, which uses what is stored of it"
        )
    require_folder(Path(name))
    raise RepositoryError(f"{name}: not indexed yet; run `rotary-batch index {name}` first")


def select_each(store: WorkStore, roots: Sequence[Path], outcomes: list[Any]) -> list[RepositoryRow]:
    """As `select_repositories`, but a repository that is not indexed becomes a Failure in `outcomes`."""
    if not roots:
        return select_repositories(store, [])
    rows: list[RepositoryRow] = []
    for root in roots:
        with isolated([full_name(root)], outcomes):
            rows += [row for row in select_repositories(store, [root]) if row not in rows]
    return rows


def without_folder(rows: Sequence[RepositoryRow]) -> list[RepositoryRow]:
    """The repositories whose folder no longer exists.  A drain would create it again, with nothing but docs."""
    return [row for row in rows if not Path(row.root).is_dir()]


def without_index(store: WorkStore, roots: Sequence[Path]) -> list[RepositoryRow]:
    """Of the selected repositories, those whose index was not finished or made by an earlier version."""
    return [row for row in select_repositories(store, roots) if not row.plan_key]
