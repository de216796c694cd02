"""Who uses whom: references resolved to symbols, and what of it says which files matter most.

Knows names and edges; nothing is guessed: a name that could be several things resolves to none.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from rotary_batch.core import Call, Reference, Symbol, SymbolId

_NOT_TARGETS = {"declaration"}  # a prototype; its definition is the target
DAMPING = 0.85  # of PageRank
ROUNDS = 20


def resolve(symbols: Sequence[Symbol], references: Iterable[Reference]) -> tuple[Call, ...]:
    """Calls in the order of the references, each pair once: a unique name in the file, else in the repository."""
    local: dict[tuple[str, str], list[Symbol]] = defaultdict(list)
    everywhere: dict[str, list[Symbol]] = defaultdict(list)
    for symbol in symbols:
        if symbol.kind not in _NOT_TARGETS:
            local[symbol.path, symbol.name].append(symbol)
            everywhere[symbol.name].append(symbol)
    calls: dict[Call, None] = {}
    for reference in references:
        target = _only(local[reference.path, reference.name]) or _only(everywhere[reference.name])
        if target is not None and reference.caller is not None and target.id != reference.caller:
            calls[Call(reference.caller, target.id)] = None
    return tuple(calls)


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
