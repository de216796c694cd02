"""From the database to the docs folder: builds what pages are made from, and projects them.

`sync_all` looks at every page, `sync_pending` at those that are not on disk as the database wants them, and
`sync_some` at those of the answers that just came.  All work in batches: memory does not grow with the repository,
each batch is remembered when it is on disk, and between two of them `should_stop` is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from rotary_batch import __version__
from rotary_batch.core import FileClass, Subject, Unit
from rotary_batch.model.manifest import Manifest
from rotary_batch.pages.files import SyncResult, inventory, project, remove_others
from rotary_batch.pages.page import IndexView, Prose
from rotary_batch.pages.safe_folder import SafeFolder, open_safe_folder
from rotary_batch.pages.site import page_of, render, site_paths, things_of
from rotary_batch.repo.graph import callees, callers
from rotary_batch.work.counts import answers
from rotary_batch.work.index import calls_from, calls_to, load_files, stored_chunks, stored_symbols
from rotary_batch.work.projected import known_stamps, save_stamps, source_paths
from rotary_batch.work.rows import RepositoryRow
from rotary_batch.work.store import WorkStore

BATCH_PAGES = 100  # about a tenth of a second
FILES_KEPT = 1000  # whose symbols are in memory: those of the pages at hand, and what they link to
T = TypeVar("T")


def never() -> bool:
    """Do not stop."""
    return False


class _PerFile(Mapping[str, T]):
    """What the database has of each file, read when it is asked for; of a few files it is kept."""

    def __init__(self, paths: Collection[str], load: Callable[[str], T]) -> None:
        self._paths = paths
        self._load = lru_cache(FILES_KEPT)(load)

    def __getitem__(self, path: str) -> T:
        return self._load(path)

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)


def load_view(store: WorkStore, row: RepositoryRow) -> IndexView:
    """The index of one repository, as pages and roll-ups see it: in memory are its files, not what is in them."""
    index = load_files(store, row.id)
    paths = [file.path for file in index.files if file.file_class is FileClass.SOURCE]
    return IndexView(
        name=row.name,
        files=index.files,
        docstrings=index.docstrings,
        fallbacks=index.fallbacks,
        symbols=_PerFile(paths, lambda path: tuple(stored_symbols(store, row.id, path))),
        chunks=_PerFile(paths, lambda path: tuple(stored_chunks(store, row.id, path))),
        callers=_PerFile(paths, lambda path: callers(calls_to(store, row.id, path))),
        callees=_PerFile(paths, lambda path: callees(calls_from(store, row.id, path))),
        model_name=row.model_name,
        demonstration=Manifest.load(Path(row.pack_dir)).demonstration,
        docs_dir=row.docs_dir,
        root=row.root,
        link_template=row.link_template,
    )


def docs_folder(row: RepositoryRow) -> Path:
    """Where the pages of a repository are."""
    return Path(row.root) / row.docs_dir


@contextmanager
def opened_docs(row: RepositoryRow) -> Iterator[SafeFolder]:
    """The docs folder, made if need be.  Raises InputError when it is no place for docs."""
    folder = open_safe_folder(Path(row.root), row.docs_dir, create=True)
    assert folder is not None, "it was made"
    with folder:
        yield folder


def sync_all(
    store: WorkStore, row: RepositoryRow, view: IndexView | None = None, should_stop: Callable[[], bool] = never
) -> SyncResult:
    """Make the whole docs folder what the database says, whatever is known of it."""
    return _sync_site(store, row, view, {}, should_stop)


def sync_pending(
    store: WorkStore, row: RepositoryRow, view: IndexView | None = None, should_stop: Callable[[], bool] = never
) -> SyncResult:
    """The same, but files that are as they were when they were right are not read, nor are their pages rendered.

    The view is loaded only when something is to be rendered.
    """
    return _sync_site(store, row, view, known_stamps(store, row.id), should_stop)


def sync_some(
    store: WorkStore,
    row: RepositoryRow,
    view: IndexView,
    subjects: Iterable[Subject],
    should_stop: Callable[[], bool] = never,
) -> SyncResult:
    """Bring the pages of some subjects up to date."""
    done = SyncResult()
    things = [thing for thing in things_of(subjects) if thing in view.paths]
    with opened_docs(row) as folder:
        _write(store, row, view, folder, things, done, should_stop)
    return done


def _sync_site(
    store: WorkStore,
    row: RepositoryRow,
    view: IndexView | None,
    known: dict[str, str],
    should_stop: Callable[[], bool],
) -> SyncResult:
    done, paths = SyncResult(), site_paths(source_paths(store, row.id))
    with opened_docs(row) as folder:
        found = inventory(folder)
        on_disk = {one.path: _versioned(one.stamp) for one in found}
        pending = [thing for thing, page in paths.items() if not _is_right(known.get(thing), on_disk.get(page))]
        done.unchanged = len(paths) - len(pending)
        if pending and view is None:
            view = load_view(store, row)
        if view is not None:
            _write(store, row, view, folder, sorted(pending, key=paths.__getitem__), done, should_stop)
        if not done.stopped:
            remove_others(folder, found, set(paths.values()), done)
    return done


def _write(
    store: WorkStore,
    row: RepositoryRow,
    view: IndexView,
    folder: SafeFolder,
    things: Sequence[str],
    done: SyncResult,
    should_stop: Callable[[], bool],
) -> None:
    """Even when it is time to stop, one batch is written: what was answered last is seen."""
    for start in range(0, len(things), BATCH_PAGES):
        if start and should_stop():
            done.stopped = True
            return
        batch = things[start : start + BATCH_PAGES]
        by_page = {page_of(view, thing): thing for thing in batch}
        stamps = project(folder, render(view, _prose_for(store, row.id, view, batch), batch), done)
        save_stamps(store, row.id, {by_page[page]: _versioned(stamp) for page, stamp in stamps.items()})


def _is_right(known: str | None, found: str | None) -> bool:
    return known is not None and known == found


def _versioned(stamp: str) -> str:
    """Another version of the program may write other pages."""
    return f"{__version__} {stamp}"


def _prose_for(
    store: WorkStore, repository_id: int, view: IndexView, things: Sequence[str]
) -> dict[tuple[str, str], Prose]:
    """What may be shown on the pages of some things."""
    files = [thing for thing in things if not thing.endswith("/")]
    folders = [thing.removesuffix("/") for thing in things if thing.endswith("/")]
    listed = [path for folder in folders for path in (folder, *view.inside[folder].folders, *view.inside[folder].files)]
    found = [
        *answers(store, repository_id, files, (Unit.CHUNK, Unit.FILE)),
        *answers(store, repository_id, listed, (Unit.FILE, Unit.DIRECTORY, Unit.REPOSITORY)),
    ]
    return {answer.subject.identity: Prose(text=answer.shown_text, verdict=answer.verdict) for answer in found}
