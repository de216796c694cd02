"""Which settings a command works with: the user's, and below them what each repository sets itself."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from rotary_batch.commands.roots import resolved
from rotary_batch.config import DEFAULT_DOCS_DIR, FILE_NAME, Settings, config_dir, user_values
from rotary_batch.errors import RepositoryError
from rotary_batch.own_file import read_own
from rotary_batch.repo.git import enclosing_repository
from rotary_batch.work.rows import RepositoryRow


class RepositorySettings(NamedTuple):
    """One repository, its settings, and which keys of its own file were ignored."""

    root: Path
    settings: Settings
    notes: tuple[str, ...] = ()

    def of_engine(self) -> Settings:
        """Without what concerns files and pages: where these are equal, repositories share an engine."""
        return replace(
            self.settings,
            db=None,
            model=None,
            include=(),
            exclude=(),
            out=DEFAULT_DOCS_DIR,
            link_template=None,
            worktree=False,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Configured:
    """What the user says, and the one repository that a command is about, if it is one."""

    values: Mapping[str, Any]
    alone: Path | None
    notes: tuple[str, ...]

    def whole(self) -> RepositorySettings:
        """The settings of the command as a whole: the database, and all else when it is about one repository."""
        return RepositorySettings(Path(), Settings(**self.values)) if self.alone is None else self.of(self.alone)

    def of(self, root: Path, job: str | None = None) -> RepositorySettings:
        """The settings for one repository; `job` is the one that it was indexed with."""
        own = read_own(root, os.environ)
        values, notes = dict(own.values), list(own.notes)
        if "db" in values and root != self.alone:
            del values["db"]
            notes.append(f"{root / FILE_NAME}: ignored: db. It counts when the repository is named alone")
        if job is not None:
            values["job"] = job
        found = Settings(**{**values, **self.values})
        if "job" in own.values and "job" not in self.values and not _is_job(found):
            notes.append(f"{root / FILE_NAME}: job: no such job; the key is ignored")
            found = replace(found, job=job)
        return RepositorySettings(root, replace(found, out=_docs_dir(found.out, root)), tuple(notes))

    def indexed(self, row: RepositoryRow) -> RepositorySettings:
        """The settings for one repository as it was indexed: with its job, unless the user names another."""
        return self.of(Path(row.root), row.job)


def configure(config: Path | None, repos: Sequence[Path], flags: Mapping[str, Any]) -> Configured:
    """Read what the user says: flags, environment, and `config`, the file here or the one in the home folder.

    A file here is the user's own unless this folder is in a repository: then it is the repository's.
    """
    here, notes = Path.cwd(), []
    around = None if repos or shutil.which("git") is None else enclosing_repository(here)
    named = set(_resolvable(repos)) or ({around} if around else set())
    is_theirs = _is_in_repository(here, named)
    if is_theirs and config is None and here not in named and (here / FILE_NAME).is_file():
        notes.append(
            f"{here / FILE_NAME}: ignored: it is in a repository, so it may be a stranger's; name it with --config"
        )
    folders = [*([] if is_theirs else [here]), config_dir(os.environ)]
    values = user_values(flags=flags, environment=os.environ, folders=folders, config=config)
    return Configured(values=values, alone=named.pop() if len(named) == 1 else None, notes=tuple(notes))


def _resolvable(repos: Sequence[Path]) -> Iterator[Path]:
    """Those that exist as folders may; each of the others fails by itself when its turn comes."""
    for repo in repos:
        with suppress(RepositoryError):
            yield resolved(repo)


def _is_in_repository(folder: Path, named: set[Path]) -> bool:
    """By what is on disk: git itself does not answer for a repository of another owner."""
    return any(
        step in named
        or os.path.lexists(step / ".git")
        or all((step / name).exists() for name in ("HEAD", "objects", "refs"))
        for step in (folder, *folder.parents)
    )


def _docs_dir(out: str, root: Path) -> str:
    """The docs folder relative to the repository when it is inside: its files are recognised by that."""
    forms = [Path(out), Path(os.path.realpath(out))] if Path(out).is_absolute() else []
    inside = [form.relative_to(root) for form in forms if form != root and form.is_relative_to(root)]
    return inside[0].as_posix() if inside else out


def _is_job(settings: Settings) -> bool:
    from rotary_batch.commands.inputs import jobs_of  # here, because most settings name no job, and it loads much

    return settings.job in jobs_of(settings)
