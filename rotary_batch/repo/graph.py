"""Who uses whom: references resolved to symbols, and what of it says which files matter most.

Knows names and edges; nothing is guessed: a name that could be several things resolves to none.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from rotary_batch.core import Call, Reference, Symbol, SymbolId, main_definitions

_MEMBERS = {"method", "constructor"}
_CALLABLE = {"function", *_MEMBERS}
_SELF = {"self", "cls", "this", "Self"}
DAMPING = 0.85  # of PageRank
ROUNDS = 20


def resolve(symbols: Sequence[Symbol], references: Iterable[Reference]) -> tuple[Call, ...]:
    """Calls in the order of the references, each pair once."""
    names = _Names(symbols)
    calls: dict[Call, None] = {}
    for reference in references:
        target = names.target(reference)
        if target is not None and reference.caller is not None and target.id != reference.caller:
            calls[Call(reference.caller, target.id)] = None
    return tuple(calls)


class _Names:
    """What names mean at a place.

    A bare name is a function or a type, unique in the file, else in the repository; functions within functions are seen
    in their file only.  Behind a dot a name is looked up in what stands before it: in the class around the place for
    `self` or `this`, in a class or namespace of that name, in a module or folder of that name.  Of a variable the type
    is not known, so what it calls is not either.
    """

    def __init__(self, symbols: Sequence[Symbol]) -> None:
        self._by_name: dict[str, list[Symbol]] = defaultdict(list)
        self._by_id = {symbol.id: symbol for symbol in symbols}
        self._kinds = {(symbol.path, symbol.qualified_name): symbol.kind for symbol in symbols}
        for symbol in main_definitions(symbols):
            self._by_name[symbol.name].append(symbol)

    def target(self, reference: Reference) -> Symbol | None:
        """What a reference means, if that is one thing."""
        found = self._by_name[reference.name]
        if reference.receiver is None:
            free = [symbol for symbol in found if symbol.kind not in _MEMBERS]
            if reference.path.endswith(".py"):  # a bare name is never a method there
                members = []
            else:
                members = self._in(self._class_around(reference), found, reference.path)
            seen = [symbol for symbol in free if not self._is_inner(symbol)]
            return _nearest(free, reference.path) or _only(members) or _only(seen)
        if reference.receiver in _SELF:
            return _only(self._in(self._class_around(reference), found, reference.path))
        inside = self._in(reference.receiver, found)
        here = [s for s in found if s.kind not in _MEMBERS and _is_in_module(s.path, reference.receiver)]
        return _nearest(inside, reference.path) or _only(inside) or _only(here)

    def _in(self, outer: str, found: Iterable[Symbol], path: str | None = None) -> list[Symbol]:
        """Those that belong to a class or namespace."""
        return [
            symbol
            for symbol in found
            if outer and path in {None, symbol.path} and f".{symbol.qualified_name}".endswith(f".{outer}.{symbol.name}")
        ]

    def _class_around(self, reference: Reference) -> str:
        """The qualified name of the innermost class around a reference, "" without one."""
        around = self._by_id.get(reference.caller) if reference.caller else None
        name = around.qualified_name if around else ""
        while name and self._kinds.get((reference.path, name), "scope") in _CALLABLE:
            name = name.rpartition(".")[0]
        return name

    def _is_inner(self, symbol: Symbol) -> bool:
        outer = symbol.qualified_name.rpartition(".")[0]
        return self._kinds.get((symbol.path, outer)) in _CALLABLE


def _is_in_module(path: str, name: str) -> bool:
    """Whether a file is, or lies directly in, a module or package of that name."""
    place = PurePosixPath(path)
    return name != "" and name in {place.stem, place.parent.name}


def _nearest(symbols: Sequence[Symbol], path: str) -> Symbol | None:
    return _only([symbol for symbol in symbols if symbol.path == path])


def _only(symbols: Sequence[Symbol]) -> Symbol | None:
    return symbols[0] if len(symbols) == 1 else None


def priorities(paths: Sequence[str], calls: Iterable[Call]) -> dict[str, int]:
    """Path -> rank, higher first: PageRank over files, from the user to what it uses (iterative)."""
    edges: Counter[tuple[str, str]] = Counter(
        (call.caller.path, call.callee.path) for call in calls if call.caller.path != call.callee.path
    )
    out_weight: Counter[str] = Counter()
    for (source, _), count in edges.items():
        out_weight[source] += count
    score = dict.fromkeys(paths, 1.0)
    for _ in range(ROUNDS):
        fresh = dict.fromkeys(paths, 1.0 - DAMPING)
        for (source, target), count in edges.items():
            fresh[target] += DAMPING * score[source] * count / out_weight[source]
        score = fresh
    order = sorted(paths, key=lambda path: (-round(score[path], 9), path))
    return {path: len(order) - place for place, path in enumerate(order)}


def callers_and_callees(
    calls: Iterable[Call],
) -> tuple[dict[SymbolId, list[SymbolId]], dict[SymbolId, list[SymbolId]]]:
    """callee -> its callers, caller -> its callees; both in the order of the calls."""
    callers: dict[SymbolId, list[SymbolId]] = defaultdict(list)
    callees: dict[SymbolId, list[SymbolId]] = defaultdict(list)
    for call in calls:
        callers[call.callee].append(call.caller)
        callees[call.caller].append(call.callee)
    return dict(callers), dict(callees)
