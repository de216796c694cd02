"""`search`: what the index knows about some words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from rotary_batch.commands.repositories import select_repositories
from rotary_batch.core import Symbol, Unit
from rotary_batch.errors import UsageError
from rotary_batch.pages.authored.reading import authored_summary
from rotary_batch.pages.page import MAX_LISTED, symbol_summary
from rotary_batch.pages.page_paths import page_paths
from rotary_batch.pages.sanitise import one_line
from rotary_batch.repo.languages import language_of
from rotary_batch.work.index import stored_chunks, stored_symbols
from rotary_batch.work.page_stamps import source_paths
from rotary_batch.work.rows import RepositoryRow
from rotary_batch.work.search import Hit, find, words
from rotary_batch.work.store import WorkStore

MAX_SUMMARY_CHARACTERS = 160
_OVERFETCH = 3  # a file can be found by its name, by its docstring and by its answer


def search(store: WorkStore, text: str, roots: Sequence[Path], limit: int) -> list[dict[str, Any]]:
    """What matches a text in some repositories (none named: in all), the best first.

    Raises UsageError for a text without a word.
    """
    rows = {row.id: row for row in select_repositories(store, roots)}
    if not words(text):
        raise UsageError(f"search {text!r}: give a word or the beginning of one")
    hits = find(store, text, list(rows), _OVERFETCH * limit)
    known = {repository_id: Known(store, rows[repository_id]) for repository_id in {hit.repository_id for hit in hits}}
    results: dict[tuple[object, ...], dict[str, Any]] = {}
    for hit in hits:
        result = known[hit.repository_id].result(hit)
        key = hit.repository_id, hit.path, hit.start_byte, result["qualified_name"]
        if key in results:  # a file and the answer about it are one result
            results[key]["summary"] = results[key]["summary"] or result["summary"]
        elif len(results) < limit:
            results[key] = result
    return list(results.values())


class Known:
    """One repository, as far as results need it."""

    def __init__(self, store: WorkStore, row: RepositoryRow) -> None:
        self._store, self.row = store, row
        self._symbols: dict[str, tuple[Symbol, ...]] = {}

    @cached_property
    def _pages(self) -> dict[str, str]:
        return page_paths(source_paths(self._store, self.row.id))

    def symbols(self, path: str) -> tuple[Symbol, ...]:
        """The symbols of one file, in file order."""
        if path not in self._symbols:
            self._symbols[path] = tuple(stored_symbols(self._store, self.row.id, path))
        return self._symbols[path]

    def page(self, thing: str) -> str | None:
        """The page of a file, of a folder + "/" or of the repository, "/": below the repository, or absolute."""
        page = self._pages.get(thing)
        return None if page is None else str(Path(self.row.docs_dir) / page)

    def result(self, hit: Hit) -> dict[str, Any]:
        """One match as `search` prints it."""
        symbol = self._symbol(hit)
        name, thing = hit.qualified_name or hit.path or self.row.name, hit.path
        if hit.kind in {Unit.DIRECTORY, Unit.REPOSITORY}:
            thing = f"{hit.path}/"
        return {
            "repository": self.row.root,
            "kind": hit.kind,
            "qualified_name": symbol.qualified_name if symbol else name,
            "path": hit.path,
            "line": symbol.start_line if symbol else self._line(hit),
            "page": self.page(thing),
            "summary": self._summary(hit, symbol),
        }

    def _symbol(self, hit: Hit) -> Symbol | None:
        if hit.start_byte is None or hit.kind == Unit.CHUNK:
            return None
        here = [symbol for symbol in self.symbols(hit.path) if symbol.start_byte == hit.start_byte]
        return next((symbol for symbol in here if symbol.qualified_name.endswith(hit.qualified_name)), None)

    def _line(self, hit: Hit) -> int:
        if hit.start_byte is None:
            return 1
        chunks = stored_chunks(self._store, self.row.id, hit.path)
        return next((chunk.start_line for chunk in chunks if chunk.start_byte == hit.start_byte), 1)

    def _summary(self, hit: Hit, symbol: Symbol | None) -> str:
        language = language_of(hit.path)
        is_code = symbol is not None and hit.kind != Unit.SYMBOL
        text = symbol_summary(symbol, language).text if symbol and is_code else authored_summary(hit.prose, None)
        if not text and hit.kind == "file":
            text = ", ".join(_outer_names(self.symbols(hit.path)))
        return one_line(text, MAX_SUMMARY_CHARACTERS)


def _outer_names(symbols: Sequence[Symbol]) -> Iterator[str]:
    names = dict.fromkeys(symbol.name for symbol in symbols if symbol.name == symbol.qualified_name)
    yield from list(names)[:MAX_LISTED]
    if len(names) > MAX_LISTED:
        yield "…"
