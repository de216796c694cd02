"""From the database to the docs folder: builds what pages are made from, and projects them.

Knows both sides; knows nothing of how a page reads or of how items are worked on.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from operator import attrgetter
from pathlib import Path

from rotary_batch.model.manifest import Manifest
from rotary_batch.pages.files import Projection, project
from rotary_batch.pages.page import IndexView, Prose
from rotary_batch.pages.site import render_pages, render_site
from rotary_batch.repo.graph import callers_and_callees, resolve
from rotary_batch.work.counts import answers
from rotary_batch.work.index import load_index
from rotary_batch.work.rows import RepositoryRow
from rotary_batch.work.store import WorkStore


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
        link_template=row.link_template,
        by_id={symbol.id: symbol for symbol in index.symbols},
    )


def docs_folder(row: RepositoryRow) -> Path:
    """Where the pages of a repository lie."""
    return Path(row.root) / row.docs_dir


def load_prose(store: WorkStore, repository_id: int) -> dict[tuple[str, str], Prose]:
    """What may be shown of every item."""
    return {(a.unit, a.subject): Prose(text=a.shown_text, verdict=a.verdict) for a in answers(store, repository_id)}


def project_all(store: WorkStore, row: RepositoryRow, view: IndexView) -> Projection:
    """Make the whole docs folder what the database says."""
    return project(docs_folder(row), render_site(view, load_prose(store, row.id)), remove_others=True)


def project_some(store: WorkStore, row: RepositoryRow, view: IndexView, units: Iterable[tuple[str, str]]) -> Projection:
    """Bring the pages of some (unit, subject)s up to date."""
    pages = render_pages(view, load_prose(store, row.id), units)
    return project(docs_folder(row), pages, remove_others=False)
