"""Which declaration and which definition of C and C++ are one thing, across files."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import PurePosixPath
from typing import NamedTuple

from rotary_batch.core import Linked, SymbolId
from rotary_batch.work.declared import LANGUAGES, num_parameters
from rotary_batch.work.namesakes import DEFINED, MAX_SAME, shared_names
from rotary_batch.work.store import WorkStore

_MAX_CACHED = 4096  # names
DECLARED_IN, DEFINED_IN = LINKAGE_RELATIONS = "declared_in", "defined_in"


class _Row(NamedTuple):
    path: str
    start_byte: int
    kind: str
    qualified_name: str
    signature: str
    is_public: int

    @property
    def is_shared(self) -> bool:
        """Whether other files may mean the same; a static member of a class is shared too."""
        is_static = "static" in self.signature.partition("(")[0].split() and "." not in self.qualified_name
        return bool(self.is_public) and not is_static


class Linkage:
    """The links between declarations and definitions of one repository."""

    def __init__(self, store: WorkStore, repository_id: int, languages: Mapping[str, str | None]) -> None:
        self._store, self._id, self._languages = store, repository_id, languages
        self._named = lru_cache(_MAX_CACHED)(self._read_named)

    def linked(self, relation: str, path: str, limit: int) -> dict[SymbolId, Linked]:
        """What the symbols of a file are declared in, or defined in: the first few, and how many."""
        if self._languages.get(path) not in LANGUAGES:
            return {}
        found: dict[SymbolId, Linked] = {}
        for name in shared_names(self._store, self._id, path):
            for one, others in self._links(relation, path, self._named(name)):
                found[one] = Linked(others[:limit], len(others))
        return found

    def _read_named(self, name: str) -> list[_Row]:
        # SQLite would take the primary key, of which it has only the repository.
        query = """select path, start_byte, kind, qualified_name, signature, is_public
                   from symbol indexed by symbol_by_name where repository_id = ? and name = ? limit ?"""
        rows = [_Row(*row) for row in self._store.db.execute(query, [self._id, name, MAX_SAME + 1])]
        in_order = sorted(row for row in rows if self._languages.get(row.path) in LANGUAGES and row.is_shared)
        return in_order if len(rows) <= MAX_SAME else []

    def _links(self, relation: str, path: str, named: Sequence[_Row]) -> Iterable[tuple[SymbolId, list[SymbolId]]]:
        links: dict[SymbolId, list[SymbolId]] = defaultdict(list)
        for declaration in named:
            if declaration.kind == "declaration" and (relation == DECLARED_IN or declaration.path == path):
                definition = _definition(declaration, named)
                if definition is not None:
                    ends = [SymbolId(row.path, row.start_byte) for row in (declaration, definition)]
                    one, other = ends if relation == DEFINED_IN else reversed(ends)
                    links[one].append(other)
        return [(one, others) for one, others in links.items() if one.path == path]


def _definition(declaration: _Row, named: Sequence[_Row]) -> _Row | None:
    """The one definition that a declaration of another file declares: nearest by name, with as many parameters."""
    found = [one for one in named if one.kind in DEFINED and one.qualified_name == declaration.qualified_name]
    if any(one.path == declaration.path for one in found):
        return None
    wanted, stem = num_parameters(declaration.signature), PurePosixPath(declaration.path).stem
    found = [one for one in found if num_parameters(one.signature) == wanted]
    found = [one for one in found if PurePosixPath(one.path).stem == stem] or found
    return found[0] if len(found) == 1 else None
