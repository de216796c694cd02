"""Which symbols of a file others can see, given what each says of itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rotary_batch.core import Symbol
from rotary_batch.repo.languages.language import Definition


def within_private(symbols: Sequence[Symbol], _: Sequence[Definition] = ()) -> Sequence[Symbol]:
    """The symbols of a file; what a private type or module holds is private too."""
    seen: dict[str, bool] = {}  # qualified name -> whether a symbol of that name is seen
    hidden = set()
    for symbol in sorted(symbols, key=lambda symbol: symbol.qualified_name.count(".")):  # the outer ones first
        is_seen = symbol.is_public and seen.get(symbol.qualified_name.rpartition(".")[0], True)
        seen[symbol.qualified_name] = is_seen or seen.get(symbol.qualified_name, False)
        if symbol.is_public and not is_seen:
            hidden.add(symbol.id)
    return [replace(symbol, is_public=False) if symbol.id in hidden else symbol for symbol in symbols]
