"""Comments of declarations, for definitions that have none: C and C++ are documented in headers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import NamedTuple

from rotary_batch.core import Symbol
from rotary_batch.work.index import stored_symbols
from rotary_batch.work.store import WorkStore

LANGUAGES = ("c", "cpp")
_MAX_DECLARATIONS = 100  # of one name that are compared


_MEANT = {"function", "method", "constructor", "variable", "constant"}  # kinds that a declaration may stand for


class _Declared(NamedTuple):
    path: str
    signature: str
    docstring: str


def documented_symbols(store: WorkStore, repository_id: int, path: str, language: str | None) -> Iterator[Symbol]:
    """The symbols of a file, with the comment of its declaration for each definition of C or C++ that has none."""
    if language not in LANGUAGES:
        yield from stored_symbols(store, repository_id, path)
        return
    symbols = list(stored_symbols(store, repository_id, path))
    here: dict[str, list[_Declared]] = {}
    for symbol in symbols:
        if symbol.kind == "declaration" and symbol.docstring is not None:
            declared = _Declared(path, symbol.signature, symbol.docstring)
            here.setdefault(symbol.qualified_name, []).append(declared)
    for symbol in symbols:
        candidates: Sequence[_Declared] = ()
        if symbol.docstring is None and symbol.kind in _MEANT:
            candidates = here.get(symbol.qualified_name) or _elsewhere(store, repository_id, symbol)
        yield replace(symbol, docstring=_docstring(symbol, candidates)) if candidates else symbol


def _elsewhere(store: WorkStore, repository_id: int, symbol: Symbol) -> list[_Declared]:
    """Documented declarations of its name in other files; the first few, however many there are."""
    if not symbol.is_public:
        return []
    rows = store.db.execute(
        """select other.path, other.signature, other.docstring
           from (select repository_id, path, signature, docstring, is_public
                 from symbol indexed by symbol_declared
                 where repository_id = ? and qualified_name = ? and kind = 'declaration' and docstring is not null
                 limit ?) as other
           join file on file.repository_id = other.repository_id and file.path = other.path
           where other.is_public and file.language in ('c', 'cpp')""",
        [repository_id, symbol.qualified_name, _MAX_DECLARATIONS],
    )
    return [_Declared(*row) for row in rows]


def _docstring(symbol: Symbol, candidates: Sequence[_Declared]) -> str | None:
    """What the declarations say that are nearest to a definition, if they say one thing."""
    stem = PurePosixPath(symbol.path).stem
    beside = [one for one in candidates if PurePosixPath(one.path).stem == stem]
    near = beside or candidates
    same = [one for one in near if num_parameters(one.signature) == num_parameters(symbol.signature)]
    docstrings = {one.docstring for one in same or near}
    return docstrings.pop() if len(docstrings) == 1 else None


def num_parameters(signature: str) -> int:
    """Of the last list of parameters; overloads differ in it."""
    depth, commas = 0, 0
    for character in signature[signature.find("(") + 1 :]:
        depth += (character in "([{<") - (character in ")]}>")
        if depth < 0:
            break
        commas += character == "," and depth == 0
    return commas
