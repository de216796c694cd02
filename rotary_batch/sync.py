"""Bring the docs folder up to date with the database.

`sync_all` checks every page, `sync_pending` those that may be out of date, and `sync_some` those of given subjects.
All of them work in batches, so that memory does not grow with the repository.  The stamps of a batch are saved when it
is on disk; between two batches `should_stop` is checked.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple, TypeVar

from rotary_batch import __version__
from rotary_batch.core import TOPICS_PAGE, FileClass, Linked, Subject, SymbolId, Unit
from rotary_batch.pages.files import SyncResult, inventory, remove_others, sync_pages, untouched
from rotary_batch.pages.front import digest_of
from rotary_batch.pages.markdown import MAX_LINKS, Pages
from rotary_batch.pages.onboarding import listed_on_topics
from rotary_batch.pages.outline import is_test_file
from rotary_batch.pages.overview import MAX_FILES, MAX_MAIN_FUNCTIONS, MAX_MOST_USED, MostUsed, Overview
from rotary_batch.pages.page import IndexView, Prose
from rotary_batch.pages.page_paths import LLMS_FULL_NAME, folders_above, folders_of, page_paths
from rotary_batch.pages.safe_folder import DocsFile, SafeFolder, open_safe_folder
from rotary_batch.pages.site import LLMS_FULL, OVERVIEWS, page_of, render, site_paths, things_of
from rotary_batch.pages.symbol_index import is_index_thing
from rotary_batch.pages.unwritten import open_unwritten
from rotary_batch.work import facts, usage
from rotary_batch.work.counts import answers, text_counts
from rotary_batch.work.declared import documented_symbols
from rotary_batch.work.examples import examples_of
from rotary_batch.work.graph import RELATIONS, linked
from rotary_batch.work.index import load_files, stored_chunks
from rotary_batch.work.linkage import LINKAGE_RELATIONS, Linkage
from rotary_batch.work.listed import ListedSymbols
from rotary_batch.work.page_stamps import (
    known_stamp,
    known_stamps,
    save_digests,
    save_stamps,
    source_paths,
    unreadable_paths,
    written_digests,
)
from rotary_batch.work.parts import other_parts
from rotary_batch.work.rows import Answer, RepositoryRow
from rotary_batch.work.store import WorkStore

BATCH_PAGES = 100  # about a tenth of a second
FILES_CACHED = 1000  # whose symbols are in memory: those of a batch of pages, and of what they link to
T = TypeVar("T")


def never() -> bool:
    """The default of `should_stop`."""
    return False


class _PerFile(Mapping[str, T]):
    """A mapping by path that reads from the database on access and caches what it read."""

    def __init__(self, paths: Collection[str], load: Callable[[str], T]) -> None:
        self._paths = paths
        self._load = lru_cache(FILES_CACHED)(load)

    def __getitem__(self, path: str) -> T:
        return self._load(path)

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)


def load_index_view(store: WorkStore, row: RepositoryRow) -> IndexView:
    """The index of one repository for pages and roll-ups.  Only its list of files is in memory."""
    index = load_files(store, row.id)
    languages = {file.path: file.language for file in index.files if file.file_class is FileClass.SOURCE}
    paths = list(languages)
    return IndexView(
        name=row.name,
        files=index.files,
        docstrings=index.docstrings,
        fallbacks=index.fallbacks,
        symbols=_PerFile(paths, lambda path: tuple(documented_symbols(store, row.id, path, languages[path]))),
        chunks=_PerFile(paths, lambda path: tuple(stored_chunks(store, row.id, path))),
        **{name: _PerFile(paths, partial(_linked, store, row.id, name)) for name in RELATIONS},
        **_linkage(store, row.id, languages),
        model_name=row.model_name,
        demonstration=row.demonstration,
        docs_dir=row.docs_dir,
        listed=ListedSymbols(store, row.id),
        root=row.root,
        link_template=row.link_template,
        examples=_PerFile(paths, lambda path: examples_of(store, row.id, path)),
        uses=usage.FolderUses(store, row.id, ["", *folders_of(paths)]),
        overview=lru_cache(1)(lambda: _load_overview(store, row.id)),
        text_counts=lambda: text_counts(store, row.id),
    )


class IndexViews:
    """The index views of one command: each is loaded on first use, and once."""

    def __init__(self, store: WorkStore) -> None:
        self._store = store
        self._views: dict[int, IndexView] = {}

    def of(self, row: RepositoryRow) -> IndexView:
        """The view of a repository, whose index must not change any more."""
        if row.id not in self._views:
            self._views[row.id] = load_index_view(self._store, row)
        return self._views[row.id]


def _linked(store: WorkStore, repository_id: int, relation: str, path: str) -> dict[SymbolId, Linked]:
    return linked(store, repository_id, relation, path, MAX_LINKS)


def _linkage(
    store: WorkStore, repository_id: int, languages: Mapping[str, str | None]
) -> dict[str, Mapping[str, dict[SymbolId, Linked]]]:
    linkage = Linkage(store, repository_id, languages)
    ends: dict[str, Mapping[str, dict[SymbolId, Linked]]] = {
        name: _PerFile(languages, partial(linkage.linked, name, limit=MAX_LINKS)) for name in LINKAGE_RELATIONS
    }

    def parts(path: str) -> dict[SymbolId, Linked]:
        return other_parts(store, repository_id, path, MAX_LINKS) if languages.get(path) == "c_sharp" else {}

    return ends | {"parts": _PerFile(languages, parts)}


def docs_folder(row: RepositoryRow) -> Path:
    """Where the pages of a repository are."""
    return Path(row.root) / row.docs_dir


@contextmanager
def open_docs(row: RepositoryRow) -> Iterator[SafeFolder]:
    """Open the docs folder, created if need be.  Raises InputError when its path cannot be a docs folder."""
    folder = open_safe_folder(Path(row.root), row.docs_dir, create=True)
    assert folder is not None, "it was created"
    with folder:
        yield folder


@contextmanager
def open_unwritten_docs(row: RepositoryRow) -> Iterator[SafeFolder]:
    """The docs folder for comparing only: what is synced with it says what would be written."""
    with open_unwritten(Path(row.root), row.docs_dir) as folder:
        yield folder


OpenDocs = Callable[[RepositoryRow], AbstractContextManager[SafeFolder]]


def sync_all(
    store: WorkStore,
    row: RepositoryRow,
    views: IndexViews | None = None,
    should_stop: Callable[[], bool] = never,
    *,
    overwrite: bool = False,
    open_folder: OpenDocs = open_docs,
) -> SyncResult:
    """Check every page of the docs folder, and remove pages of sources that are gone.

    `overwrite`: also replace pages that show texts of a model that this database does not have.
    """
    return _sync_site(
        store, row, views or IndexViews(store), {}, should_stop, overwrite=overwrite, open_folder=open_folder
    )


def sync_pending(
    store: WorkStore,
    row: RepositoryRow,
    views: IndexViews | None = None,
    should_stop: Callable[[], bool] = never,
    open_folder: OpenDocs = open_docs,
) -> SyncResult:
    """As `sync_all`, but pages whose stamps are unchanged are neither read nor rendered.

    The view is loaded only when there is a page to render.
    """
    return _sync_site(
        store, row, views or IndexViews(store), known_stamps(store, row.id), should_stop, open_folder=open_folder
    )


def sync_some(
    store: WorkStore,
    row: RepositoryRow,
    view: IndexView,
    subjects: Iterable[Subject],
    should_stop: Callable[[], bool] = never,
) -> SyncResult:
    """Check the pages that show some subjects."""
    result = SyncResult()
    things = [thing for thing in things_of(subjects) if thing in view.paths]
    with open_docs(row) as folder:
        _write(store, row, view, _Docs(folder, result), things, should_stop)
    return result


def _sync_site(
    store: WorkStore,
    row: RepositoryRow,
    views: IndexViews,
    known: dict[str, str],
    should_stop: Callable[[], bool],
    *,
    overwrite: bool = False,
    open_folder: OpenDocs = open_docs,
) -> SyncResult:
    result, paths = SyncResult(), site_paths(source_paths(store, row.id))
    paths |= {thing: thing[1:] for thing in known if is_index_thing(thing)}
    with open_folder(row) as folder:
        files = inventory(folder)
        on_disk = {file.path: _versioned(file.stamp) for file in files}
        pending = {thing for thing, page in paths.items() if not _is_current(known.get(thing), on_disk.get(page))}
        result.unchanged = len(paths) - len(pending)

        def write(things: Iterable[str]) -> None:
            ordered = sorted(things, key=paths.__getitem__)
            _write(store, row, views.of(row), _Docs(folder, result, overwrite), ordered, should_stop)

        if early := {thing for thing in pending if thing not in OVERVIEWS and not is_index_thing(thing)}:
            write(early)
        if not result.stopped and (late := _late_things(row, views, paths, pending, result)):
            if result.kept and not result.written and LLMS_FULL_NAME in on_disk:  # it shows the texts of those pages
                late = late - {LLMS_FULL}
            write(late)
        if not result.stopped:
            kept = _of_unreadable(store, row, files)
            remove_others(folder, (file for file in files if file.path not in kept), set(paths.values()), result)
    return result


def _of_unreadable(store: WorkStore, row: RepositoryRow, files: Iterable[DocsFile]) -> set[str]:
    """The paths of pages whose sources cannot be read now: nobody knows whether they are out of date."""
    if not (unreadable := unreadable_paths(store, row.id)):
        return set()
    names = set(page_paths([*source_paths(store, row.id), *unreadable]).values())
    return {
        file.path
        for file in files
        if file.path in names or any(folder in unreadable for folder in folders_above(file.path))
    }


def _late_things(
    row: RepositoryRow, views: IndexViews, paths: dict[str, str], pending: set[str], result: SyncResult
) -> set[str]:
    """What depends on other pages; `paths` gets the pages that the symbol index has now, if it changed."""
    late = OVERVIEWS if result.written or not OVERVIEWS.isdisjoint(pending) else set()
    before = {thing for thing in paths if is_index_thing(thing)}
    if not pending.isdisjoint(before):
        index = set(views.of(row).symbol_index.things)
        for thing in before - index:
            del paths[thing]
        paths |= {thing: thing[1:] for thing in index}
        result.unchanged -= len(before - pending - index)
        late = late | (index & pending) | (index - before)
    result.unchanged -= len((late & OVERVIEWS) - pending)
    return late


class _Docs(NamedTuple):
    """Where pages are written to, and what was done there."""

    folder: SafeFolder
    result: SyncResult
    overwrite: bool = False  # also pages that show texts of a model that the database does not have


def _write(
    store: WorkStore,
    row: RepositoryRow,
    view: IndexView,
    docs: _Docs,
    things: Sequence[str],
    should_stop: Callable[[], bool],
) -> None:
    """Write pages in batches: at least one, even when it is time to stop, so that the last answers are on disk."""
    folder, result, _ = docs
    for start in range(0, len(things), BATCH_PAGES):
        if start and should_stop():
            result.stopped = True
            return
        batch = things[start : start + BATCH_PAGES]
        by_page = {page_of(view, thing): thing for thing in batch}
        num_written = len(result.written)
        prose, waiting = _load_prose(store, row.id, view, batch)
        known = written_digests(store, row.id, batch)
        # Those that wait for an answer; of the others the database has all that there is to show.
        own = {page: known.get(thing) for page, thing in by_page.items() if thing in waiting and not docs.overwrite}
        digests: dict[str, str] = {}
        page_of_thing = partial(_page_of_thing, store, row.id, view, folder)
        pages = _noting_digests(render(view, prose, batch, page_of_thing), digests)
        stamps = sync_pages(folder, pages, result, partial(_is_of_others, own))
        stale = OVERVIEWS - set(batch) if len(result.written) > num_written else ()
        save_stamps(store, row.id, {by_page[page]: _versioned(stamp) for page, stamp in stamps.items()}, stale)
        save_digests(store, row.id, {by_page[page]: digests[page] for page in stamps if page in digests})


def _is_of_others(own: Mapping[str, str | None], page: str, digest: str) -> bool:
    """Whether another database wrote a page, and this one still waits for what the page shows."""
    return page in own and own[page] != digest


def _noting_digests(pages: Iterable[tuple[str, bytes]], digests: dict[str, str]) -> Iterator[tuple[str, bytes]]:
    for path, page in pages:
        if path.endswith(".md"):
            digests[path] = digest_of(page)
        yield path, page


def _page_of_thing(store: WorkStore, repository_id: int, view: IndexView, folder: SafeFolder, thing: str) -> bytes:
    """The page on disk where it is up to date, as reading it is ten times as fast as rendering it."""
    page = untouched(folder, page_of(view, thing))
    if page is not None and _is_current(known_stamp(store, repository_id, thing), _versioned(page.stamp)):
        return page.data
    prose, _ = _load_prose(store, repository_id, view, [thing])
    return Pages(view, prose).page(thing)


def _is_current(known: str | None, on_disk: str | None) -> bool:
    return known is not None and known == on_disk


def _versioned(stamp: str) -> str:
    """With the version of the program: another one may write other pages."""
    return f"{__version__} {stamp}"


def _load_prose(
    store: WorkStore, repository_id: int, view: IndexView, things: Sequence[str]
) -> tuple[dict[tuple[str, str], Prose], set[str]]:
    """The prose of everything that the pages of some things show, and the pages that wait for an answer."""
    shown = [thing for thing in things if thing in view.paths]
    files = [thing for thing in shown if not thing.endswith("/")]
    folders = [thing.removesuffix("/") for thing in shown if thing.endswith("/")]
    listed = [path for folder in folders for path in (folder, *view.inside[folder].folders, *view.inside[folder].files)]
    on_topics = _on_topics(store, repository_id, view, things)
    found = [
        *answers(store, repository_id, files, (Unit.CHUNK, Unit.SYMBOL, Unit.DETAIL, Unit.FILE)),
        *answers(store, repository_id, listed, (Unit.FILE, Unit.DIRECTORY, Unit.REPOSITORY)),
        *on_topics,
    ]
    prose = {one.subject.identity: Prose(text=one.shown_text, verdict=one.verdict, label=one.label) for one in found}
    waiting = set(things_of(answer.subject for answer in found if answer.verdict is None))
    return prose, waiting | ({TOPICS_PAGE} if any(answer.verdict is None for answer in on_topics) else set())


def _on_topics(store: WorkStore, repository_id: int, view: IndexView, things: Sequence[str]) -> Sequence[Answer]:
    """What the page of the topics shows: the answers on them, and on the files and folders that it lists."""
    if TOPICS_PAGE not in things:
        return ()
    units = (Unit.TOPIC, Unit.FILE, Unit.DIRECTORY)
    return answers(store, repository_id, [TOPICS_PAGE, *listed_on_topics(view)], units)


def _load_overview(store: WorkStore, repository_id: int) -> Overview:
    used = usage.most_used(store, repository_id, 4 * MAX_MOST_USED)
    num_symbols, num_described = usage.symbol_counts(store, repository_id)
    return Overview(
        main_functions=usage.main_functions(store, repository_id, MAX_MAIN_FUNCTIONS),
        most_used=[MostUsed(symbol, n) for symbol, n in used if not is_test_file(symbol.path)][:MAX_MOST_USED],
        most_used_files=usage.most_used_files(store, repository_id, MAX_FILES),
        facts=facts.stored_facts(store, repository_id, is_test_file),
        central_files=facts.central_files(store, repository_id),
        num_symbols=num_symbols,
        num_described=num_described,
    )
