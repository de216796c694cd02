"""What other files can see of a file.  While that is the same, their names mean the same, wherever its symbols are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rotary_batch.core import Import, Symbol, ValueType, is_part, main_definitions
from rotary_batch.repo.resolve.cfamily import is_static


class Interface(NamedTuple):
    """All that the resolver reads of a file other than its references, and apart from that, where its symbols start."""

    language: str
    symbols: Sequence[tuple[object, ...]]
    imports: Sequence[Import]
    value_types: Sequence[ValueType]
    starts: Sequence[int]


def interface(
    language: str, symbols: Sequence[Symbol], imports: Sequence[Import], value_types: Sequence[ValueType]
) -> Interface:
    """The interface of a file; `symbols` are in file order."""
    starts = [symbol.start_byte for symbol in symbols]
    places = {start: place for place, start in enumerate(sorted(set(starts)))}
    main = set(map(id, main_definitions(symbols)))  # which of several is the longest, say
    seen = [(*_seen(symbol), places[symbol.start_byte], id(symbol) in main) for symbol in symbols]
    return Interface(language, seen, imports, value_types, starts)


def _seen(symbol: Symbol) -> tuple[object, ...]:
    """Of signatures, the resolver reads what an alias stands for, C's `static`, and C#'s `partial`."""
    signature = (
        symbol.signature if symbol.kind == "type" else (is_static(symbol), is_part(symbol.kind, symbol.signature))
    )
    return symbol.kind, symbol.name, symbol.qualified_name, symbol.bases, signature


def moved_symbols(before: Interface, after: Interface) -> dict[int, int] | None:
    """Start byte before -> start byte now, of the symbols that moved; None when other files see something else."""
    if before[:-1] != after[:-1]:
        return None
    return {old: new for old, new in zip(before.starts, after.starts, strict=True) if old != new}
