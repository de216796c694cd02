"""`index`: read repositories, queue their work, write the structural pages."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rotary_batch.commands.configuration import RepositorySettings
from rotary_batch.commands.groups import Group
from rotary_batch.commands.isolation import Failure, isolated
from rotary_batch.commands.jobs import load_prompt_builder
from rotary_batch.commands.keeping import ModelChange, is_by_flag, keeping_model_and_job, model_change, model_digest
from rotary_batch.commands.moved import follow_move
from rotary_batch.commands.packs import find_pack
from rotary_batch.commands.page_notes import text_notes
from rotary_batch.commands.plan import seconds_for
from rotary_batch.commands.repositories import full_name, resolved, whole_repository
from rotary_batch.config import Settings
from rotary_batch.errors import RepositoryError
from rotary_batch.log import event
from rotary_batch.pages.files import SyncResult
from rotary_batch.pages.site import NOT_PAGES
from rotary_batch.planner.index import Indexed, index_repository
from rotary_batch.planner.prompt_builder import PromptBuilder
from rotary_batch.repo.files import PathPatterns
from rotary_batch.repo.git import GitCommit, Repository, open_repository
from rotary_batch.sizes import duration_text
from rotary_batch.sync import IndexViews, docs_folder, sync_pending
from rotary_batch.window import Window, explain_stop
from rotary_batch.work import counts
from rotary_batch.work.index import repositories
from rotary_batch.work.page_stamps import num_current
from rotary_batch.work.rows import RepositoryRow
from rotary_batch.work.store import WorkStore

Sync = Callable[[WorkStore, RepositoryRow, IndexViews, Callable[[], bool]], SyncResult]
_MAX_NAMED = 5  # files that could not be read
_OBJECTS_A_COLLECTION = 300_000  # instead of 700


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexOutcome:
    """One indexed repository and its docs folder."""

    indexed: Indexed
    sync_result: SyncResult
    demonstration: bool  # the model is the embedded one
    num_open: int  # items in the queue
    pages_current: int
    database: Path
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
        indexed, planned = self.indexed, self.indexed.counts
        return {
            "repository": indexed.repository.root,
            "docs": str(self.docs),
            "files": indexed.files,
            "parsed": indexed.parsed,
            "symbols": indexed.symbols,
            "chunks": indexed.chunks,
            "queued": planned.queued,
            "unchanged": planned.unchanged,
            "removed": planned.removed,
            "open": self.num_open,
            "pages_current": self.pages_current,
            "notes": list(self.notes),
            "pages_written": len(self.sync_result.written),
            "pages_removed": len(self.sync_result.removed),
            "pages_kept": self.sync_result.kept,
            "pages_without_text": self.sync_result.without_text,
            "conflicts": self.sync_result.conflicts,
            "pages_failed": self.sync_result.failed,
            "model": indexed.repository.model_name,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexRequest:
    """What is the same for all repositories of a command."""

    store: WorkStore
    settings_of: Callable[[Path], RepositorySettings]
    window: Window
    views: IndexViews  # loads what is shown on pages
    progress: Callable[[str, int, int], None]  # gets (what is done now, how many are done, how many there are)
    on_indexed: Callable[[IndexOutcome], None] = lambda _: None
    sync: Sync = sync_pending  # writes the pages


@contextmanager
def _few_collections() -> Iterator[None]:
    """Look for garbage in cycles rarely: an index makes many objects, few cycles; looking took up to a tenth of it."""
    before = gc.get_threshold()
    gc.set_threshold(_OBJECTS_A_COLLECTION, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


@_few_collections()
def index(request: IndexRequest, repos: Sequence[Path]) -> list[IndexOutcome | Failure]:
    """Index every repository, each for itself."""
    prompt_builders: dict[tuple[Path, Settings], PromptBuilder] = {}  # by pack and settings
    outcomes: list[IndexOutcome | Failure] = []
    indexed_rows = {row.root: row for row in repositories(request.store)}
    roots: set[Path] = set()
    for repo in repos:
        with isolated([full_name(repo)], outcomes), explain_stop(request.window):
            request.window.check()
            root = resolved(repo)
            if root in roots:
                continue
            roots.add(root)
            notes = list(_place_notes(request.store, indexed_rows, root))
            row = indexed_rows.get(str(root))
            own = keeping_model_and_job(request.settings_of(root), row)
            own = own._replace(notes=(*own.notes, *notes))
            pack = find_pack(own.settings, lambda done, total: request.progress("packing the model", done, total))
            key = pack, own.engine_settings()
            if key not in prompt_builders:
                prompt_builders[key] = load_prompt_builder(own.settings, pack)
            if row is None or Path(row.pack_dir) != pack.resolve():  # the model is new to the repository
                own = own._replace(notes=(*own.notes, *prompt_builders[key].manifest.left_out))
            outcome = _index_one(request, own, prompt_builders[key], pack, row)
            outcomes += [outcome, *_unreadable(outcome.indexed)]
            request.on_indexed(outcome)
    return outcomes


def _unreadable(indexed: Indexed) -> Iterator[Failure]:
    """A failure that names what could not be read."""
    if not indexed.unreadable:
        return
    named = [f"{path} ({reason})" for path, reason in sorted(indexed.unreadable.items())]
    more = f" and {len(named) - _MAX_NAMED:,} more" if len(named) > _MAX_NAMED else ""
    root = indexed.repository.root
    error = RepositoryError(
        f"{root}: not read, and its pages kept: {', '.join(named[:_MAX_NAMED])}{more}; make it readable and run "
        f"`rotary-batch index {root}` again"
    )
    yield Failure(repository=root, error=str(error), exit_code=error.exit_code)


def _place_notes(store: WorkStore, indexed_rows: dict[str, RepositoryRow], root: Path) -> Iterator[str]:
    """What to say of where a repository is.  One that was moved gets the row that it had."""
    if note := follow_move(store, root):
        indexed_rows.clear()
        indexed_rows |= {row.root: row for row in repositories(store)}
        yield note
    if (around := whole_repository(root)) is not None:
        yield f"only this part of {around} is read; to read all of it, run `rotary-batch index {around}`"


def index_views(store: WorkStore) -> IndexViews:
    """For one command: what it indexes, it drains without loading it again."""
    return IndexViews(store)


def _index_one(
    request: IndexRequest,
    own: RepositorySettings,
    prompt_builder: PromptBuilder,
    pack: Path,
    indexed_row: RepositoryRow | None,
) -> IndexOutcome:
    """Index one repository; `indexed_row` is what is stored of it so far."""
    change = model_change(request.store, own, indexed_row, pack, prompt_builder.manifest)
    repository = _open_repository(own.root, own.settings)
    row, window = _row(repository, own.settings, prompt_builder, pack), request.window
    row = replace(row, model_by_flag=is_by_flag(own, indexed_row))

    def check_window(done: int, total: int) -> None:
        window.check()
        request.progress("reading files", done, total)

    patterns = PathPatterns(own.settings.include, own.settings.exclude)
    indexed = index_repository(request.store, repository, prompt_builder, row, patterns, check_window, window.is_closed)
    request.progress("writing pages", 0, 0)
    sync_result = request.sync(request.store, indexed.repository, request.views, window.is_closed)
    if sync_result.stopped:
        window.check()
    outcome = IndexOutcome(
        indexed=indexed,
        sync_result=sync_result,
        demonstration=prompt_builder.manifest.demonstration,
        num_open=counts.open_items(request.store, [indexed.repository.id]),
        pages_current=num_current(request.store, [indexed.repository.id], NOT_PAGES),
        database=request.store.db.path.absolute(),
        settings_notes=(*own.notes, *_change_notes(request.store, change, own, indexed.repository, prompt_builder)),
    )
    event("indexed", **{k: v for k, v in outcome.as_dict().items() if k not in {"files", "notes"}})
    return outcome


def _change_notes(
    store: WorkStore,
    change: ModelChange | None,
    own: RepositorySettings,
    row: RepositoryRow,
    prompt_builder: PromptBuilder,
) -> Iterator[str]:
    """What another model costs."""
    if change is None:
        return
    num_open = counts.open_items(store, [row.id])
    num_asked = num_open - len(store.answered_before([row.id]))
    group = Group(Path(row.pack_dir), prompt_builder.manifest, own.engine_settings(), [row])
    seconds = seconds_for(store, group)
    time = f"about {duration_text(seconds * num_asked / num_open)}" if seconds else "for how long is not known yet"
    yield change.note(num_asked, time)


def _open_repository(root: Path, settings: Settings) -> Repository:
    """Raises RepositoryError when it cannot hold a docs folder."""
    repository = open_repository(root, worktree=settings.worktree, docs_dir=settings.out)
    if isinstance(repository, GitCommit) and repository.is_bare and not Path(settings.out).is_absolute():
        raise RepositoryError(f"{root}: a bare repository cannot hold a docs folder; name a folder with --out /PATH")
    if (docs := repository.root / settings.out) in (repository.root, *repository.root.parents):
        raise RepositoryError(f"{docs}: holds the repository; name a folder for docs alone with --out")
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
        job_by_name=settings.job is not None,
        demonstration=prompt_builder.manifest.demonstration,
        model_digest=model_digest(prompt_builder.manifest),
    )
