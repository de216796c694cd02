"""Store what was parsed of a file, and forget the lists that show something else of it than before."""

from __future__ import annotations

from rotary_batch.core import ParsedFile
from rotary_batch.pages.page import summary_of
from rotary_batch.pages.symbol_index import entries_of
from rotary_batch.planner.resolving import save_parsed
from rotary_batch.work import declared, graph, page_stamps
from rotary_batch.work import index as stored
from rotary_batch.work.listed import save_listed
from rotary_batch.work.store import WorkStore


def store_parsed(store: WorkStore, repository_id: int, one: ParsedFile, plan_key: str) -> None:
    """Within a transaction: store a source file."""
    path = one.file.path
    told = _told(store, repository_id, path)
    save_parsed(store, repository_id, one, plan_key)
    _save_listed(store, repository_id, path)
    if told != _told(store, repository_id, path):
        page_stamps.forget_list(store, repository_id)


def _save_listed(store: WorkStore, repository_id: int, path: str) -> None:
    """Store what the symbol index has of a file."""
    entries = entries_of(path, stored.stored_outline(store, repository_id, path))
    if letters := save_listed(store, repository_id, path, entries):
        page_stamps.forget_symbol_index(store, repository_id, letters)


def _told(store: WorkStore, repository_id: int, path: str) -> object:
    """What summaries, of a file or of others, may say of it; nothing while there are no pages.

    In C and C++ a comment may be that of a symbol of another file.
    """
    language = (
        graph.language_of_source(store, repository_id, path) if page_stamps.has_stamps(store, repository_id) else None
    )
    if language is None:
        return None
    symbols = list(stored.stored_symbols(store, repository_id, path))
    docstring = stored.stored_docstring(store, repository_id, path)
    comments = [(one.qualified_name, one.docstring) for one in symbols if language in declared.LANGUAGES]
    return docstring, summary_of(path, docstring, language, lambda: symbols), comments
