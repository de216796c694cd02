"""Who uses whom: references resolved to symbols, and what of it says which files matter most.

Knows names and edges; nothing is guessed: a name that could be several things resolves to none.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import TypeVar

from rotary_batch.core import Call, Reference, Symbol, SymbolId, main_definitions

_MEMBERS = {"method", "constructor"}
_CALLABLE = {"function", *_MEMBERS}
_SELF = {"self", "cls", "this", "Self", "super"}
_BARE_MEMBERS = (".java", ".cpp", ".cc", ".cxx", ".hpp", ".hh", ".hxx", ".h")  # where members go by bare names
_Key = TypeVar("_Key")
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

    A bare name is a function or a type, unique in the file, else in the repository; functions within functions are
    seen in their file only.  In Java and C++ it is first a member of the classes around it or of their bases.  Behind
    a dot a name is looked up in what stands before it: in the class around the place and its bases for `self` or
    `this`, in a class or namespace of that name, in a module or folder of that name.  Of a variable the type is not
    known, so what it calls is not either.
    """

    def __init__(self, symbols: Sequence[Symbol]) -> None:
        shown = main_definitions(symbols)
        self._by_id = {symbol.id: symbol for symbol in symbols}
        self._kinds = {(symbol.path, symbol.qualified_name): symbol.kind for symbol in shown}
        self._classes = _grouped((s.name, s) for s in shown if s.kind not in _CALLABLE)
        self._members = _grouped(((_outer_name(s), s.name), s) for s in shown if _outer_name(s) not in {"", s.name})
        free = [symbol for symbol in shown if symbol.kind not in _MEMBERS]
        self._here = _grouped(((s.path, s.name), s) for s in free)
        seen = [symbol for symbol in free if not self._is_inner(symbol)]
        self._everywhere = _grouped((s.name, s) for s in seen)
        self._modules = _grouped(((word, s.name), s) for s in seen for word in _module_words(s.path))

    def target(self, reference: Reference) -> Symbol | None:
        """What a reference means, if that is one thing."""
        name, path, receiver = reference.name, reference.path, reference.receiver
        if receiver is None:
            members = self._inherited(reference) if path.endswith(_BARE_MEMBERS) else None
            return members or _only(self._here.get((path, name), ())) or _only(self._everywhere.get(name, ()))
        if receiver in _SELF:
            return self._inherited(reference)
        inside = self._members.get((receiver, name), ())
        nearest = _only([symbol for symbol in inside if symbol.path == path])
        return nearest or _only(inside) or _only(self._modules.get((receiver, name), ()))

    def _inherited(self, reference: Reference) -> Symbol | None:
        """A member of the classes around a reference, from the inside out, or of the bases that their heads name."""
        for around in self._classes_around(reference):
            waiting, known = [around], {around.id}
            while waiting:
                one = waiting.pop(0)
                members = self._members.get((one.name, reference.name), ())
                own = _only([s for s in members if s.path == one.path and _is_within(s, one)])
                if own is not None and not (one is around and reference.receiver == "super"):
                    return own
                bases = [self._class_named(word, one.path) for word in _base_names(one)]
                waiting += [base for base in bases if base is not None and base.id not in known]
                known |= {base.id for base in waiting}
        return None

    def _class_named(self, name: str, path: str) -> Symbol | None:
        found = self._classes.get(name, ())
        return _only([symbol for symbol in found if symbol.path == path]) or _only(found)

    def _classes_around(self, reference: Reference) -> list[Symbol]:
        """Types that a reference stands in, the innermost first; what stands in an `impl` stands in its type."""
        around = self._by_id.get(reference.caller) if reference.caller else None
        names = around.qualified_name.split(".") if around else []
        found = (
            self._class_named(names[n], reference.path)
            for n in range(len(names) - 1, -1, -1)
            if self._kinds.get((reference.path, ".".join(names[: n + 1])), "scope") not in _CALLABLE
        )
        return [symbol for symbol in found if symbol is not None]

    def _is_inner(self, symbol: Symbol) -> bool:
        outer = symbol.qualified_name.rpartition(".")[0]
        return self._kinds.get((symbol.path, outer)) in _CALLABLE


def _grouped(pairs: Iterable[tuple[_Key, Symbol]]) -> dict[_Key, list[Symbol]]:
    found: dict[_Key, list[Symbol]] = defaultdict(list)
    for key, symbol in pairs:
        found[key].append(symbol)
    return dict(found)


def _outer_name(symbol: Symbol) -> str:
    return symbol.qualified_name.rpartition(".")[0].rpartition(".")[2]


def _is_within(member: Symbol, outer: Symbol) -> bool:
    return member.qualified_name.rpartition(".")[0] in {outer.qualified_name, outer.name}


def _base_names(symbol: Symbol) -> list[str]:
    """The words behind a type's own name in its head: bases among them."""
    words: list[str] = re.findall(r"[A-Za-z_]\w*", symbol.signature)
    return words[words.index(symbol.name) + 1 :] if symbol.name in words else []


def _module_words(path: str) -> set[str]:
    """What a module is called elsewhere: its file, or the folder that it lies in."""
    place = PurePosixPath(path)
    return {place.stem, place.parent.name} - {""}


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
