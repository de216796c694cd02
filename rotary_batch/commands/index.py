"""`index`: read repositories, queue their work, write the structural pages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rotary_batch.commands.configuration import RepositorySettings
from rotary_batch.commands.docs import text_notes
from rotary_batch.commands.isolation import Failure, isolated
from rotary_batch.commands.jobs import load_prompt_builder
from rotary_batch.commands.packs import find_pack, indexed_pack
from rotary_batch.commands.repositories import printable, resolved
from rotary_batch.config import Settings
from rotary_batch.errors import RepositoryError
from rotary_batch.log import event
from rotary_batch.pages.files import SyncResult
from rotary_batch.planner.index import Indexed, index_repository
from rotary_batch.planner.prompt_builder import PromptBuilder
from rotary_batch.repo.files import PathPatterns
from rotary_batch.repo.git import GitCommit, Repository, open_repository
from rotary_batch.sync import IndexViews, docs_folder, sync_pending
from rotary_batch.window import Window, explain_stop
from rotary_batch.work.index import repositories
from rotary_batch.work.rows import RepositoryRow
from rotary_batch.work.store import WorkStore


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexOutcome:
    """One indexed repository and its docs folder."""

    indexed: Indexed
    sync_result: SyncResult
    demonstration: bool  # the model is the embedded one
    settings_notes: tuple[str, ...] = ()  # which of the repository's own settings were ignored

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know about how it was read."""
        return (*self.settings_notes, *self.indexed.notes, *text_notes(self.sync_result))

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
            "pages_written": len(self.sync_result.written),
            "pages_removed": len(self.sync_result.removed),
            "pages_kept": self.sync_result.kept,
            "pages_without_text": self.sync_result.without_text,
            "conflicts": self.sync_result.conflicts,
            "pages_failed": self.sync_result.failed,
            "model": indexed.repository.model_name,
        }


def index(
    store: WorkStore,
    repos: Sequence[Path],
    settings_of: Callable[[Path], RepositorySettings],
    progress: Callable[[str, int, int], None],
    window: Window,
    views: IndexViews,
) -> list[IndexOutcome | Failure]:
    """Index every repository, each for itself.

    `progress` gets (root, files parsed, files to parse); `views` loads what is shown on pages.
    """
    prompt_builders: dict[tuple[Path, Settings], PromptBuilder] = {}  # by pack and settings
    outcomes: list[IndexOutcome | Failure] = []
    indexed_rows = {row.root: row for row in repositories(store)}
    roots: set[Path] = set()
    for repo in repos:
        with isolated([printable(repo)], outcomes), explain_stop(window):
            window.check()
            root = resolved(repo)
            if root in roots:
                continue
            roots.add(root)
            own = _keeping_model_and_job(settings_of(root), indexed_rows.get(str(root)))
            pack = find_pack(own.settings, lambda _done, _total: window.check())
            key = pack, own.engine_settings()
            if key not in prompt_builders:
                prompt_builders[key] = load_prompt_builder(own.settings, pack)
            outcomes.append(_index_one(store, own, prompt_builders[key], pack, progress, window, views))
    return outcomes


def index_views(store: WorkStore) -> IndexViews:
    """For one command: what it indexes, it drains without loading it again."""
    return IndexViews(store)


def _keeping_model_and_job(own: RepositorySettings, row: RepositoryRow | None) -> RepositorySettings:
    """A repository keeps the model and the job that it was indexed with until others are named."""
    if row is None:
        return own
    settings = replace(own.settings, job=own.settings.job or row.job)
    if settings.model is None:
        settings = replace(settings, model=indexed_pack(row))
    return own._replace(settings=settings)


def _index_one(
    store: WorkStore,
    own: RepositorySettings,
    prompt_builder: PromptBuilder,
    pack: Path,
    progress: Callable[[str, int, int], None],
    window: Window,
    views: IndexViews,
) -> IndexOutcome:
    repository = _open_repository(own.root, own.settings)
    row = _row(repository, own.settings, prompt_builder, pack)

    def check_window(done: int, total: int) -> None:
        window.check()
        progress(row.root, done, total)

    patterns = PathPatterns(own.settings.include, own.settings.exclude)
    indexed = index_repository(store, repository, prompt_builder, row, patterns, check_window, window.is_closed)
    sync_result = sync_pending(store, indexed.repository, views, should_stop=window.is_closed)
    if sync_result.stopped:
        window.check()
    outcome = IndexOutcome(
        indexed=indexed,
        sync_result=sync_result,
        demonstration=prompt_builder.manifest.demonstration,
        settings_notes=own.notes,
    )
    event("indexed", **{k: v for k, v in outcome.as_dict().items() if k not in {"files", "notes"}})
    return outcome


def _open_repository(root: Path, settings: Settings) -> Repository:
    """Raises RepositoryError when it cannot hold a docs folder."""
    repository = open_repository(root, worktree=settings.worktree, docs_dir=settings.out)
    if isinstance(repository, GitCommit) and repository.is_bare and not Path(settings.out).is_absolute():
        raise RepositoryError(f"{root}: a bare repository cannot hold a docs folder; name a folder with --out /PATH")
    if (docs := repository.root / settings.out) in (repository.root, *repository.root.parents):
        raise RepositoryError(f"{docs}: holds the repository; name a folder of their own for docs with --out")
    return repository


def _row(repository: Repository, settings: Settings, prompt_builder: PromptBuilder, pack: Path) -> RepositoryRow:
    return RepositoryRow(
        root=str(repository.root),
        name=repository.name,
        commit_id=None,
        worktree=settings.worktree,
        docs_dir=settings.out,
        model_name=prompt_builder.manifest.name,
        pack_dir=str(pack.resolve()),
        plan_key="",
        link_template=settings.link_template,
        job=prompt_builder.job.name,
        demonstration=prompt_builder.manifest.demonstration,
    )
