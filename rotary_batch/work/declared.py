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


class _Declared(NamedTuple):
    path: str
    signature: str
    docstring: str


def documented_symbols(store: WorkStore, repository_id: int, path: str, language: str | None) -> Iterator[Symbol]:
    """The symbols of a file, with the comment of its declaration for each definition of C or C++ that has none."""
    if language not in LANGUAGES:
        yield from stored_symbols(store, repository_id, path)
        return
    declared = _declared(store, repository_id, path)
    for symbol in stored_symbols(store, repository_id, path):
        candidates = declared.get(symbol.start_byte, ()) if symbol.docstring is None else ()
        yield replace(symbol, docstring=_docstring(symbol, candidates)) if candidates else symbol


def _declared(store: WorkStore, repository_id: int, path: str) -> dict[int, list[_Declared]]:
    """Documented declarations by the start of the symbol that they may declare."""
    rows = store.db.execute(
        """select symbol.start_byte, other.path, other.signature, other.docstring
           from symbol cross join symbol as other indexed by symbol_declared
             on other.repository_id = symbol.repository_id
             and other.qualified_name = symbol.qualified_name
             and other.kind = 'declaration' and other.docstring is not null
           join file on file.repository_id = other.repository_id and file.path = other.path
           where symbol.repository_id = ? and symbol.path = ? and symbol.docstring is null
             and symbol.kind in ('function', 'method', 'constructor', 'variable', 'constant')
             and (symbol.is_public or other.path = symbol.path) and (other.is_public or other.path = symbol.path)
             and file.language in ('c', 'cpp')
           order by symbol.start_byte, other.path, other.start_byte""",
        [repository_id, path],
    )
    declared: dict[int, list[_Declared]] = {}
    for row in rows:
        candidates = declared.setdefault(row[0], [])
        if len(candidates) < _MAX_DECLARATIONS:
            candidates.append(_Declared(*row[1:]))
    return declared


def _docstring(symbol: Symbol, candidates: Sequence[_Declared]) -> str | None:
    """What the declarations say that are nearest to a definition, if they say one thing."""
    stem = PurePosixPath(symbol.path).stem
    here = [one for one in candidates if one.path == symbol.path]
    beside = [one for one in candidates if PurePosixPath(one.path).stem == stem]
    near = here or beside or list(candidates)
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
