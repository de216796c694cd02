"""From the database to the docs folder: builds what pages are made from, and projects them.

`project_all` looks at every page, `project_pending` at those that are not on disk as the database wants them, and
`project_some` at those of the answers that just came.  All work in batches: memory does not grow with the repository,
each batch is remembered when it is on disk, and between two of them `should_stop` is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from operator import attrgetter
from pathlib import Path

from rotary_batch import __version__
from rotary_batch.model.manifest import Manifest
from rotary_batch.pages.files import Projection, inventory, project, remove_others
from rotary_batch.pages.page import IndexView, Prose
from rotary_batch.pages.safe_folder import SafeFolder, open_safe_folder
from rotary_batch.pages.site import page_of, render, site_paths, things_of
from rotary_batch.repo.graph import callers_and_callees, resolve
from rotary_batch.work.counts import answers
from rotary_batch.work.index import load_index
from rotary_batch.work.projected import known_stamps, save_stamps, source_paths
from rotary_batch.work.rows import RepositoryRow
from rotary_batch.work.store import WorkStore

BATCH_PAGES = 100  # about a tenth of a second


def never() -> bool:
    """Do not stop."""
    return False


def load_view(store: WorkStore, row: RepositoryRow) -> IndexView:
    """The index of one repository, as pages and roll-ups see it."""
    index = load_index(store, row.id)
    callers, callees = callers_and_callees(resolve(index.symbols, index.references))
    by_path = attrgetter("path")
    return IndexView(
        name=row.name,
        files=index.files,
        docstrings=index.docstrings,
        fallbacks=index.fallbacks,
        symbols={path: tuple(found) for path, found in groupby(index.symbols, by_path)},
        chunks={path: tuple(found) for path, found in groupby(index.chunks, by_path)},
        callers=callers,
        callees=callees,
        model_name=row.model_name,
        demonstration=Manifest.load(Path(row.pack_dir)).demonstration,
        docs_dir=row.docs_dir,
        root=row.root,
        link_template=row.link_template,
        by_id={symbol.id: symbol for symbol in index.symbols},
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


def project_all(
    store: WorkStore, row: RepositoryRow, view: IndexView | None = None, should_stop: Callable[[], bool] = never
) -> Projection:
    """Make the whole docs folder what the database says, whatever is known of it."""
    return _project_site(store, row, view, {}, should_stop)


def project_pending(
    store: WorkStore, row: RepositoryRow, view: IndexView | None = None, should_stop: Callable[[], bool] = never
) -> Projection:
    """The same, but files that are as they were when they were right are not read, nor are their pages rendered.

    The view is loaded only when something is to be rendered.
    """
    return _project_site(store, row, view, known_stamps(store, row.id), should_stop)


def project_some(
    store: WorkStore,
    row: RepositoryRow,
    view: IndexView,
    units: Iterable[tuple[str, str]],
    should_stop: Callable[[], bool] = never,
) -> Projection:
    """Bring the pages of some (unit, subject)s up to date."""
    done = Projection()
    things = [thing for thing in things_of(units) if thing in view.paths]
    with opened_docs(row) as folder:
        _write(store, row, view, folder, things, done, should_stop)
    return done


def _project_site(
    store: WorkStore,
    row: RepositoryRow,
    view: IndexView | None,
    known: dict[str, str],
    should_stop: Callable[[], bool],
) -> Projection:
    done, paths = Projection(), site_paths(source_paths(store, row.id))
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
    done: Projection,
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
    folders = [thing.rstrip("/") for thing in things if thing.endswith("/")]
    listed = [path for folder in folders for path in (folder, *view.inside[folder].folders, *view.inside[folder].files)]
    found = [
        *answers(store, repository_id, files, ("chunk", "file")),
        *answers(store, repository_id, listed, ("file", "directory", "repository")),
    ]
    return {(answer.unit, answer.subject): Prose(text=answer.shown_text, verdict=answer.verdict) for answer in found}
