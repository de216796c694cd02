"""The call graph: references resolved to symbols, and the rank of files by it.

Nothing is guessed: a name that could mean several symbols resolves to none.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from operator import attrgetter
from pathlib import PurePosixPath
from typing import TypeAlias, TypeVar

from rotary_batch.core import Call, Reference, Symbol, SymbolId, main_definitions
from rotary_batch.repo.languages import LANGUAGES, language_of

_MEMBERS = {"method", "constructor", "property", "field", "member"}
_NO_TYPE = {"function", "constant", "variable", *_MEMBERS}
_SELF = {"self", "cls", "this", "Self", "super"}
MAX_ANCESTORS = 64  # classes looked through for one member; a chain of 100,000 would be walked for every reference
_Key = TypeVar("_Key")
_Map: TypeAlias = dict[_Key, Symbol | None]
DAMPING = 0.85  # of PageRank
ROUNDS = 20


def calls(
    files: Iterable[Sequence[Symbol]], symbols_of: Callable[[str], Sequence[Symbol]], references: Iterable[Reference]
) -> Iterator[Call]:
    """The calls that references resolve to, in their order, each once.  References of one file come together.

    `files` are the symbols file by file.  Holds what one file and the whole repository mean by a name, nothing else.
    """
    names = _Names(files)
    for path, uses in groupby(references, attrgetter("path")):
        here, known = _FileNames(symbols_of(path)), set[Call]()
        for reference in uses:
            target = names.target(reference, here)
            if target is not None and reference.caller is not None and target.id != reference.caller:
                call = Call(reference.caller, target.id)
                if call not in known:
                    known.add(call)
                    yield call


class _FileNames:
    """What names mean within one file."""

    def __init__(self, symbols: Sequence[Symbol]) -> None:
        self.shown = main_definitions(symbols)
        self.outer_names = {symbol.id: symbol.qualified_name for symbol in symbols}
        self.kinds = {symbol.qualified_name: symbol.kind for symbol in self.shown}
        self.free = [symbol for symbol in self.shown if symbol.kind not in _MEMBERS]
        self.by_name = _unique((s.name, s) for s in self.free)
        self.members = _unique(
            ((outer, s.name), s) for s in self.shown if (outer := _outer_name(s)) not in {"", s.name}
        )

    def seen_elsewhere(self) -> list[Symbol]:
        """All but members and functions within functions."""
        return [s for s in self.free if self.kinds.get(s.qualified_name.rpartition(".")[0]) not in _NO_TYPE]


class _Names:
    """What names mean at a place.

    A bare name is a function or a type, unique in the file, else in the repository; functions within functions are
    seen in their file only.  In Java and C++ it is first a member of the classes around it or of their bases.  Behind
    a dot a name is looked up in the receiver: in the class around the place and its bases for `self` or `this`, in a
    class or namespace of that name, in a module or folder of that name.  The type of a variable is not known, so calls
    through it are not resolved.

    A map holds what a key means, or None when that is several things: 100,000 classes called Meta take one entry.
    """

    def __init__(self, files: Iterable[Sequence[Symbol]]) -> None:
        self._everywhere: _Map[str] = {}
        self._modules: _Map[tuple[str, str]] = {}
        self._classes: _Map[str] = {}
        self._classes_of: _Map[tuple[str, str]] = {}  # by path
        self._members: _Map[tuple[str, str]] = {}
        self._members_of: _Map[tuple[str, str, str]] = {}  # by path, and the whole name around them
        self._bases: dict[SymbolId, tuple[Symbol, ...]] = {}
        for symbols in files:
            self._add(_FileNames(symbols))

    def _add(self, file: _FileNames) -> None:
        for symbol in file.seen_elsewhere():
            _put(self._everywhere, symbol.name, symbol)
            for word in _module_words(symbol.path):
                _put(self._modules, (word, symbol.name), symbol)
        for symbol in file.shown:
            outer, last = symbol.qualified_name.rpartition(".")[0], _outer_name(symbol)
            if last not in {"", symbol.name}:
                _put(self._members, (last, symbol.name), symbol)
                _put(self._members_of, (symbol.path, outer, symbol.name), symbol)
            if symbol.kind not in _NO_TYPE:
                _put(self._classes, symbol.name, symbol)
                _put(self._classes_of, (symbol.path, symbol.name), symbol)

    def target(self, reference: Reference, here: _FileNames) -> Symbol | None:
        """The symbol that a reference means, if there is exactly one."""
        name, receiver = reference.name, reference.receiver
        if receiver is None:
            members = self._inherited(reference, here) if _calls_members_by_name(reference.path) else None
            return members or here.by_name.get(name) or self._everywhere.get(name)
        if receiver in _SELF:
            return self._inherited(reference, here)
        nearest = here.members.get((receiver, name)) or self._members.get((receiver, name))
        return nearest or self._modules.get((receiver, name))

    def _inherited(self, reference: Reference, here: _FileNames) -> Symbol | None:
        """A member of the classes around a reference, from the inside out, or of the base classes that they name."""
        for around in self._classes_around(reference, here):
            for one in self._with_ancestors(around):
                own = self._member(one, reference.name)
                if own is not None and not (one is around and reference.receiver == "super"):
                    return own
        return None

    def _member(self, one: Symbol, name: str) -> Symbol | None:
        """A member of a class, or of an `impl` that gives only the class's last name."""
        outer_names = {one.qualified_name, one.name}
        keys = [key for outer in outer_names if (key := (one.path, outer, name)) in self._members_of]
        return self._members_of[keys[0]] if len(keys) == 1 else None

    def _with_ancestors(self, around: Symbol) -> list[Symbol]:
        """A class and those that it inherits from, the nearest first."""
        classes, waiting = {around.id: around}, deque([around])
        while waiting and len(classes) < MAX_ANCESTORS:
            for base in self._bases_of(waiting.popleft()):
                if base.id not in classes:
                    classes[base.id] = base
                    waiting.append(base)
        return list(classes.values())

    def _bases_of(self, one: Symbol) -> tuple[Symbol, ...]:
        if one.id not in self._bases:
            named = (self._class_named(word, one.path) for word in _base_names(one))
            self._bases[one.id] = tuple(base for base in named if base is not None)
        return self._bases[one.id]

    def _class_named(self, name: str, path: str) -> Symbol | None:
        return self._classes_of.get((path, name)) or self._classes.get(name)

    def _classes_around(self, reference: Reference, here: _FileNames) -> Iterator[Symbol]:
        """The types around a reference, the innermost first; an `impl` counts as its type."""
        names = here.outer_names.get(reference.caller, "") if reference.caller else ""
        while names:
            outer, _, name = names.rpartition(".")
            is_class = here.kinds.get(names, "scope") not in _NO_TYPE
            if is_class and (around := self._class_named(name, reference.path)) is not None:
                yield around
            names = outer


def _calls_members_by_name(path: str) -> bool:
    language = language_of(path)
    return language is not None and LANGUAGES[language].calls_members_by_name


def _put(into: _Map[_Key], key: _Key, symbol: Symbol) -> None:
    into[key] = None if key in into else symbol


def _unique(pairs: Iterable[tuple[_Key, Symbol]]) -> _Map[_Key]:
    unique: _Map[_Key] = {}
    for key, symbol in pairs:
        _put(unique, key, symbol)
    return unique


def _outer_name(symbol: Symbol) -> str:
    return symbol.qualified_name.rpartition(".")[0].rpartition(".")[2]


def _base_names(symbol: Symbol) -> list[str]:
    """The words after a type's name in its signature: its base classes are among them."""
    words: list[str] = re.findall(r"[A-Za-z_]\w*", symbol.signature)
    return words[words.index(symbol.name) + 1 :] if symbol.name in words else []


def _module_words(path: str) -> set[str]:
    """The names of a module elsewhere: its file and its folder."""
    place = PurePosixPath(path)
    return {place.stem, place.parent.name} - {""}


def priorities(paths: Sequence[str], resolved: Iterable[Call]) -> dict[str, int]:
    """Path -> rank, higher first: PageRank over files, from the user to what it uses (iterative)."""
    score = dict.fromkeys(paths, 1.0)
    edges = Counter(
        (call.caller.path, call.callee.path)
        for call in resolved
        if call.caller.path != call.callee.path and call.caller.path in score and call.callee.path in score
    )
    out_weight: Counter[str] = Counter()
    for (source, _), count in edges.items():
        out_weight[source] += count
    for _ in range(ROUNDS):
        fresh = dict.fromkeys(paths, 1.0 - DAMPING)
        for (source, target), count in edges.items():
            fresh[target] += DAMPING * score[source] * count / out_weight[source]
        score = fresh
    order = sorted(paths, key=lambda path: (-round(score[path], 9), path))
    return {path: len(order) - place for place, path in enumerate(order)}


def callers(resolved: Iterable[Call]) -> dict[SymbolId, list[SymbolId]]:
    """Callee -> its callers, in the order of the calls."""
    return _grouped((call.callee, call.caller) for call in resolved)


def callees(resolved: Iterable[Call]) -> dict[SymbolId, list[SymbolId]]:
    """Caller -> its callees, in the order of the calls."""
    return _grouped(resolved)


def _grouped(pairs: Iterable[tuple[SymbolId, SymbolId]]) -> dict[SymbolId, list[SymbolId]]:
    groups: dict[SymbolId, list[SymbolId]] = defaultdict(list)
    for one, other in pairs:
        groups[one].append(other)
    return dict(groups)
