"""The words for how one type is derived from another: each language has its own."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from rotary_batch.core import Linked, Symbol, SymbolId
from rotary_batch.pages.links import Links
from rotary_batch.pages.page import IndexView

_INTERFACES = {"interface", "trait"}
_EXTENDS, _IMPLEMENTS, _EMBEDS, _INCLUDES = "Extends", "Implements", "Embeds", "Includes"
_PASSIVE = {_EXTENDS: "Extended by", _IMPLEMENTS: "Implemented by", _EMBEDS: "Embedded in", _INCLUDES: "Included in"}
_ANGLES = re.compile(r"<[^<>]*>")
_MAX_NESTED_ANGLES = 10


def bases_of(view: IndexView, to: Links, symbol: Symbol) -> Iterator[tuple[str, Linked]]:
    """A word and the types that it is about, such as "Implements"."""
    linked = view.bases.get(symbol.path, {}).get(symbol.id)
    if linked is not None:
        yield from _by_word(linked, {one: _word(view, symbol, to.section(one)) for one in linked.ids})


def derived_from(view: IndexView, to: Links, symbol: Symbol) -> Iterator[tuple[str, Linked]]:
    """A word and the types that it is about, such as "Implemented by"."""
    linked = view.derived.get(symbol.path, {}).get(symbol.id)
    if linked is not None:
        yield from _by_word(linked, {one: _PASSIVE[_word(view, to.section(one), symbol)] for one in linked.ids})


def _by_word(linked: Linked, words: Mapping[SymbolId, str]) -> Iterator[tuple[str, Linked]]:
    """One list for each word; one for all where some are not shown, whose words are not known."""
    distinct = list(dict.fromkeys(words.values()))
    if linked.total > len(linked.ids):
        yield " or ".join([*distinct[:1], *(word[0].lower() + word[1:] for word in distinct[1:])]), linked
        return
    for word in distinct:
        ids = [one for one in linked.ids if words[one] == word]
        yield word, Linked(ids, len(ids))


def _word(view: IndexView, derived: Symbol | None, base: Symbol | None) -> str:
    if derived is None or base is None:
        return _EXTENDS
    language = view.language(derived.path)
    if language == "go":
        return _EMBEDS
    if base.kind == "module":  # of Ruby
        return _INCLUDES
    is_implemented = base.kind in _INTERFACES and derived.kind not in _INTERFACES and language != "scala"
    return _IMPLEMENTS if is_implemented or _says_implements(derived.signature, base.name) else _EXTENDS


def _says_implements(signature: str, name: str) -> bool:
    """Whether a name is among those behind `implements`, and not an argument of one."""
    types = signature.partition(" implements ")[2]
    for _ in range(_MAX_NESTED_ANGLES if "<" in types else 0):
        types = _ANGLES.sub("", types)
    return name in re.split(r"\W+", types)
