"""Questions of a program, such as a coding agent: plain data of limited size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rotary_batch.commands.search import Known
from rotary_batch.commands.sources import read_source
from rotary_batch.core import Linked, SourceFile, Symbol, SymbolId
from rotary_batch.errors import InputError
from rotary_batch.pages.descriptors import BlockedError
from rotary_batch.pages.safe_folder import open_safe_folder
from rotary_batch.terminal import shown
from rotary_batch.work.graph import linked
from rotary_batch.work.index import repositories, stored_file
from rotary_batch.work.rows import RepositoryRow
from rotary_batch.work.search import find
from rotary_batch.work.store import WorkStore

MAX_SYMBOLS = 5  # of one name, with their texts
MAX_CALLS = 100
MAX_TEXT_CHARACTERS = 16_000  # of one symbol or one part of a page: about 4,000 tokens
_CANDIDATES = 200  # entries among which those of one name are looked for; exact names come first


class _Match(NamedTuple):
    known: Known
    symbol: Symbol


def roots_named(store: WorkStore, repository: str | None) -> list[Path]:
    """The roots of the repositories with a name or a path; None means all.  Raises InputError when there is none."""
    rows = repositories(store)
    roots = [Path(row.root) for row in rows if repository is None or repository in (row.name, row.root)]
    if not roots:
        names = ", ".join(sorted({row.name for row in rows})) or "none; run `rotary-batch index REPO`"
        raise InputError(f"no repository {repository!r} is indexed; there are: {names}")
    return roots


def symbol(store: WorkStore, name: str, repository: str | None = None, path: str | None = None) -> dict[str, Any]:
    """The symbols of a name or qualified name, each with its text.  Raises InputError when there is none."""
    matches = _matches(store, name, repository, path)
    shown_ones = [_place(one) | _details(store, one) for one in matches[:MAX_SYMBOLS]]
    return {"symbols": shown_ones, "also": [_place(one) for one in matches[MAX_SYMBOLS:][:MAX_CALLS]]}


def callers(store: WorkStore, name: str, repository: str | None = None, path: str | None = None) -> dict[str, Any]:
    """What uses the symbols of a name."""
    return _calls(store, _matches(store, name, repository, path), "callers")


def callees(store: WorkStore, name: str, repository: str | None = None, path: str | None = None) -> dict[str, Any]:
    """What the symbols of a name use."""
    return _calls(store, _matches(store, name, repository, path), "callees")


def page(store: WorkStore, path: str, repository: str | None = None, first_character: int = 0) -> dict[str, Any]:
    """A part of the page about a file or a folder ("" is the repository), as it is in the docs folder.

    Raises InputError when there is no such page.
    """
    rows = [row for row in repositories(store) if Path(row.root) in roots_named(store, repository)]
    pages = [(row, name) for row in rows if (name := _page_name(Known(store, row), path))]
    if not pages:
        raise InputError(f"{path}: no page about that; give the path of a source or a folder, or use search")
    if len(pages) > 1:
        raise InputError(f"{path}: in several repositories; name one of {', '.join(row.root for row, _ in pages)}")
    ((row, name),) = pages
    text = _page_text(row, name)[max(0, first_character) :]
    answer: dict[str, Any] = {"page": name, "text": shown(text[:MAX_TEXT_CHARACTERS])}
    if len(text) > MAX_TEXT_CHARACTERS:
        answer["next_character"] = max(0, first_character) + MAX_TEXT_CHARACTERS
    return answer


def _page_name(known: Known, path: str) -> str | None:
    """The page about a path, below the repository."""
    plain = path.removeprefix(f"{known.row.root}/").strip("/")
    things = [plain, f"{plain}/"] if plain else ["/"]
    return next((name for thing in things if (name := known.page(thing)) is not None), None)


def _page_text(row: RepositoryRow, name: str) -> str:
    folder = open_safe_folder(Path(row.root), row.docs_dir, create=False)
    if folder is None:
        raise InputError(f"{row.root}/{row.docs_dir}: no such folder; run `rotary-batch render {row.root}`")
    try:
        with folder:
            content = folder.read(str(Path(name).relative_to(row.docs_dir)))
    except BlockedError as error:
        raise InputError(f"{error}; move it away and run `rotary-batch render {row.root}`") from error
    if content is None:
        raise InputError(f"{row.root}/{name}: no such page; run `rotary-batch render {row.root}`")
    return content.data.decode("utf-8", "replace")


def _matches(store: WorkStore, name: str, repository: str | None, path: str | None) -> list[_Match]:
    """Symbols of exactly that name, definitions first."""
    roots = roots_named(store, repository)
    known = {row.id: Known(store, row) for row in repositories(store) if Path(row.root) in roots}
    hits = find(store, name, list(known), _CANDIDATES)
    places = dict.fromkeys((hit.repository_id, hit.path) for hit in hits if hit.start_byte is not None)
    found = [
        _Match(known[repository_id], one)
        for repository_id, where in places
        for one in known[repository_id].symbols(where)
        if name in (one.name, one.qualified_name) and path in (None, where, f"{known[repository_id].row.root}/{where}")
    ]
    if not found:
        where = f" in {path}" if path else ""
        raise InputError(f"{name}: no symbol has exactly this name{where}; look for it with search")
    return sorted(found, key=lambda one: one.symbol.kind == "declaration")


def _place(match: _Match) -> dict[str, Any]:
    one = match.symbol
    return {
        "repository": match.known.row.root,
        "kind": one.kind,
        "qualified_name": one.qualified_name,
        "path": one.path,
        "lines": [one.start_line, one.end_line],
    }


def _details(store: WorkStore, match: _Match) -> dict[str, Any]:
    row, one = match.known.row, match.symbol
    details: dict[str, Any] = {
        "page": match.known.page(one.path),
        "signature": shown(one.signature[:MAX_TEXT_CHARACTERS]),
        "docs": shown((one.docstring or "")[:MAX_TEXT_CHARACTERS]),
    }
    try:
        text = _text(row, stored_file(store, row.id, one.path), one)
    except InputError as error:
        return details | {"text": None, "text_missing": shown(str(error))}
    if len(text) > MAX_TEXT_CHARACTERS:
        details["text_cut"] = f"{len(text):,} characters; read the rest in the file"
    return details | {"text": shown(text[:MAX_TEXT_CHARACTERS])}


def _text(row: RepositoryRow, file: SourceFile, one: Symbol) -> str:
    return read_source(row, file)[one.start_byte : one.end_byte].decode("utf-8", "replace")


def _calls(store: WorkStore, matches: Sequence[_Match], direction: str) -> dict[str, Any]:
    answers = []
    for match in matches[:MAX_SYMBOLS]:
        here = linked(store, match.known.row.id, direction, match.symbol.path, MAX_CALLS)
        others = here.get(match.symbol.id, Linked([], 0))
        more = {"more": others.total - MAX_CALLS} if others.total > MAX_CALLS else {}
        answers.append(_place(match) | {direction: list(_named(match.known, others.ids))} | more)
    return {"symbols": answers, "also": [_place(match) for match in matches[MAX_SYMBOLS:][:MAX_CALLS]]}


def _named(known: Known, others: Iterable[SymbolId]) -> Iterator[dict[str, Any]]:
    for other in others:
        for one in known.symbols(other.path):
            if one.id == other:
                yield {"qualified_name": one.qualified_name, "path": one.path, "line": one.start_line}
                break
