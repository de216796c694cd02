"""`index`: read repositories, queue their work, write the structural pages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rotary_batch.commands.configuration import RepositorySettings
from rotary_batch.commands.inputs import asking, pack_dir, pack_of
from rotary_batch.commands.isolation import Failure, isolated
from rotary_batch.commands.roots import printable, resolved
from rotary_batch.config import Settings
from rotary_batch.errors import RepositoryError
from rotary_batch.log import event
from rotary_batch.pages.files import SyncResult
from rotary_batch.planner.index import Indexed, index_repository
from rotary_batch.planner.prompt_builder import PromptBuilder
from rotary_batch.repo.files import PathPatterns
from rotary_batch.repo.git import GitCommit, Repository, open_repository
from rotary_batch.sync import docs_folder, sync_pending
from rotary_batch.window import Window, explained
from rotary_batch.work.index import repositories
from rotary_batch.work.rows import RepositoryRow
from rotary_batch.work.store import WorkStore


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexOutcome:
    """One indexed repository and its docs folder."""

    indexed: Indexed
    projection: SyncResult
    demonstration: bool
    settings_notes: tuple[str, ...] = ()  # which of the repository's own settings were ignored

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know about how it was read."""
        return (*self.settings_notes, *self.indexed.notes)

    @property
    def docs(self) -> Path:
        """Where its pages are."""
        return docs_folder(self.indexed.repository)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for --json."""
        indexed, counts = self.indexed, self.indexed.counts
        return {
            "repository": indexed.repository.root,
            "docs": str(self.docs),
            "files": indexed.files,
            "parsed": indexed.parsed,
            "symbols": indexed.symbols,
            "chunks": indexed.chunks,
            "queued": counts.queued,
            "unchanged": counts.unchanged,
            "removed": counts.removed,
            "notes": list(self.notes),
            "pages_written": len(self.projection.written),
            "pages_removed": len(self.projection.removed),
            "conflicts": self.projection.conflicts,
            "pages_failed": self.projection.failed,
            "model": indexed.repository.model_name,
        }


def index(
    store: WorkStore,
    repos: Sequence[Path],
    settings_of: Callable[[Path], RepositorySettings],
    progress: Callable[[str, int, int], None],
    limits: Window,
) -> list[IndexOutcome | Failure]:
    """Index every repository, each for itself.  `progress` gets (root, files parsed, files to parse)."""
    asked: dict[tuple[Path, Settings], PromptBuilder] = {}
    found: list[IndexOutcome | Failure] = []
    known = {row.root: row for row in repositories(store)}
    roots: set[Path] = set()
    for repo in repos:
        with isolated([printable(repo)], found), explained(limits):
            limits.check()
            root = resolved(repo)
            if root in roots:
                continue
            roots.add(root)
            one = _as_indexed(settings_of(root), known.get(str(root)))
            pack = pack_dir(one.settings, lambda _done, _total: limits.check())
            key = pack, one.of_engine()
            asked[key] = asked.get(key) or asking(one.settings, pack)
            found.append(_index_one(store, one, asked[key], pack, progress, limits))
    return found


def _as_indexed(one: RepositorySettings, row: RepositoryRow | None) -> RepositorySettings:
    """A repository keeps the model and the job that it was indexed with until others are named."""
    if row is None:
        return one
    settings = replace(one.settings, job=one.settings.job or row.job)
    if settings.model is None:
        settings = replace(settings, model=pack_of(row))
    return one._replace(settings=settings)


def _opened(root: Path, settings: Settings) -> Repository:
    """The repository.  Raises RepositoryError when it cannot hold a docs folder."""
    repository = open_repository(root, worktree=settings.worktree, docs_dir=settings.out)
    if isinstance(repository, GitCommit) and repository.is_bare and not Path(settings.out).is_absolute():
        raise RepositoryError(f"{root}: a bare repository cannot hold a docs folder; name a folder with --out /PATH")
    if (docs := repository.root / settings.out) in (repository.root, *repository.root.parents):
        raise RepositoryError(f"{docs}: holds the repository; name a folder of their own for docs with --out")
    return repository


def _row(repository: Repository, settings: Settings, ask: PromptBuilder, pack: Path) -> RepositoryRow:
    return RepositoryRow(
        root=str(repository.root),
        name=repository.name,
        commit_id=None,
        worktree=settings.worktree,
        docs_dir=settings.out,
        model_name=ask.manifest.name,
        pack_dir=str(pack.resolve()),
        plan_key="",
        link_template=settings.link_template,
        job=ask.job.name,
    )


def _index_one(
    store: WorkStore,
    one: RepositorySettings,
    ask: PromptBuilder,
    pack: Path,
    progress: Callable[[str, int, int], None],
    limits: Window,
) -> IndexOutcome:
    repository = _opened(one.root, one.settings)
    row = _row(repository, one.settings, ask, pack)

    def watched(done: int, total: int) -> None:
        limits.check()
        progress(row.root, done, total)

    patterns = PathPatterns(one.settings.include, one.settings.exclude)
    indexed = index_repository(store, repository, ask, row, patterns, watched, limits.is_closed)
    projection = sync_pending(store, indexed.repository, should_stop=limits.is_closed)
    if projection.stopped:
        limits.check()
    outcome = IndexOutcome(
        indexed=indexed,
        projection=projection,
        demonstration=ask.manifest.demonstration,
        settings_notes=one.notes,
    )
    event("indexed", **{k: v for k, v in outcome.as_dict().items() if k not in {"files", "notes"}})
    return outcome
