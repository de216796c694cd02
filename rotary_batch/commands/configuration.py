"""Which settings a command works with: the user's, and below them what each repository sets itself."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from rotary_batch.commands.repositories import resolved
from rotary_batch.config import DEFAULT_DOCS_DIR, FILE_NAME, Settings, config_dir, user_values
from rotary_batch.errors import RepositoryError
from rotary_batch.own_file import read_own
from rotary_batch.repo.git import enclosing_repository
from rotary_batch.work.rows import RepositoryRow

MODEL_FLAG = "--model"


class RepositorySettings(NamedTuple):
    """One repository, its settings, and notes about what of them was ignored."""

    root: Path
    settings: Settings
    notes: tuple[str, ...] = ()
    model_source: str | None = (
        MODEL_FLAG  # where `settings.model` was set: an option, a variable or a file; None = nowhere
    )

    def engine_settings(self) -> Settings:
        """The settings without files and pages.  Repositories of one pack that have equal ones share an engine."""
        return replace(
            self.settings,
            db=None,
            model=None,
            include=(),
            exclude=(),
            out=DEFAULT_DOCS_DIR,
            link_template=None,
            worktree=False,
            prometheus=None,
            on_finish=None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class UserSettings:
    """What the user sets, and the repository that the command is about when there is just one."""

    values: Mapping[str, Any]
    sources: Mapping[str, str]  # where each value was set
    only_repository: Path | None
    notes: tuple[str, ...]

    def for_command(self) -> RepositorySettings:
        """The settings that apply to the whole command: with one repository its own, else the user's."""
        if self.only_repository is not None:
            return self.for_repository(self.only_repository)
        return RepositorySettings(Path(), Settings(**self.values))

    def for_repository(self, root: Path, indexed_job: str | None = None) -> RepositorySettings:
        """The settings for one repository.  `indexed_job` takes precedence over the job of its own file."""
        own = read_own(root, os.environ)
        values, notes = dict(own.values), list(own.notes)
        if "db" in values and root != self.only_repository:
            del values["db"]
            notes.append(f"{root / FILE_NAME}: ignored: db. It applies only when the repository is named alone")
        if indexed_job is not None:
            values["job"] = indexed_job
        settings = Settings(**{**values, **self.values})
        if "job" in own.values and "job" not in self.values and not _has_job(settings):
            notes.append(f"{root / FILE_NAME}: job: no such job; the key is ignored")
            settings = replace(settings, job=indexed_job)
        settings = replace(settings, out=_docs_dir(settings.out, root))
        return RepositorySettings(root, settings, tuple(notes), self.sources.get("model"))

    def for_indexed(self, row: RepositoryRow) -> RepositorySettings:
        """The settings for a repository as it was indexed: with its job, unless the user names another."""
        return self.for_repository(Path(row.root), row.job)


def configure(config: Path | None, repos: Sequence[Path], flags: Mapping[str, Any]) -> UserSettings:
    """Read flags, environment, and one file: `config`, else the one in this folder, else the one in the home folder.

    The file in this folder is the user's own unless this folder is in a repository.  Then it is the repository's.
    """
    here, notes = Path.cwd(), []
    around = None if repos or shutil.which("git") is None else enclosing_repository(here)
    named = set(_resolvable(repos)) or ({around} if around else set())
    is_theirs = is_in_repository(here, named)
    if is_theirs and config is None and here not in named and (here / FILE_NAME).is_file():
        notes.append(f"{here / FILE_NAME}: ignored: it is in a repository, so it is not trusted; name it with --config")
    folders = [*([] if is_theirs else [here]), config_dir(os.environ)]
    origins = user_values(flags=flags, environment=os.environ, folders=folders, config=config)
    only_repository = named.pop() if len(named) == 1 else None
    return UserSettings(
        values={name: origin.value for name, origin in origins.items()},
        sources={name: origin.source for name, origin in origins.items()},
        only_repository=only_repository,
        notes=tuple(notes),
    )


def settings_files(config: Path | None) -> list[Path]:
    """Where settings are looked for when no repository is named; the first file that exists is used."""
    if config is not None:
        return [config]
    here = Path.cwd()
    around = None if shutil.which("git") is None else enclosing_repository(here)
    is_theirs = is_in_repository(here, {around} if around else set())
    return [folder / FILE_NAME for folder in (*([] if is_theirs else [here]), config_dir(os.environ))]


def _resolvable(repos: Sequence[Path]) -> Iterator[Path]:
    """The repositories whose path can be resolved.  Each of the others fails by itself when its turn comes."""
    for repo in repos:
        with suppress(RepositoryError):
            yield resolved(repo)


def is_in_repository(folder: Path, named: set[Path]) -> bool:
    """Whether a folder is in one of those named, or in any repository.

    Judged by the files on disk: git itself refuses a repository of another owner.
    """
    return any(
        parent in named
        or os.path.lexists(parent / ".git")
        or all((parent / name).exists() for name in ("HEAD", "objects", "refs"))
        for parent in (folder, *folder.parents)
    )


def _docs_dir(out: str, root: Path) -> str:
    """Relative to the repository when it is inside: pages are told from sources by that path."""
    forms = [Path(out), Path(os.path.realpath(out))] if Path(out).is_absolute() else []
    inside = [form.relative_to(root) for form in forms if form != root and form.is_relative_to(root)]
    return inside[0].as_posix() if inside else out


def _has_job(settings: Settings) -> bool:
    from rotary_batch.commands.jobs import available_jobs  # here, because most settings name no job, and it loads much

    return settings.job in available_jobs(settings)
