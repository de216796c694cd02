"""What other files can see of a file, and by which names they ask for what changed of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeVar

from rotary_batch.core import Import, Symbol, ValueType, is_part, main_definitions
from rotary_batch.repo.resolve.cfamily import is_static
from rotary_batch.repo.resolve.dialect import SPACE_KINDS
from rotary_batch.repo.resolve.loaded import is_exported

GONE = 1 << 40  # added to the start byte of a symbol that is to be found again; no file is as long
_Key = TypeVar("_Key")
_WHOLE = frozenset({"default", "return"})  # aliases under which a file hands out all that it has


class _Seen(NamedTuple):
    """What the resolver reads of a symbol, apart from where it starts."""

    kind: str
    name: str
    bases: tuple[str, ...]
    signature: object
    is_public: bool
    is_main: bool  # of several of one name


class Interface(NamedTuple):
    """All that the resolver reads of a file other than its references."""

    language: str
    symbols: Mapping[str, Sequence[tuple[_Seen, int]]]  # by qualified name, with their start bytes, in file order
    imports: Mapping[str, Sequence[Import]]  # by alias
    stars: Sequence[Import]  # that bind no name
    value_types: Mapping[tuple[str, str], str]


class Change(NamedTuple):
    """What a new version of a file means to other files."""

    moved: Mapping[int, int]  # start byte before -> now; of symbols that are to be found again, beyond GONE
    names: frozenset[str]  # by which other files ask for what is new, gone, or something else


def interface(
    language: str, symbols: Sequence[Symbol], imports: Iterable[Import], value_types: Iterable[ValueType]
) -> Interface:
    """The interface of a file; `symbols` are in file order."""
    main = set(map(id, main_definitions(symbols)))  # which of several is the longest, say
    seen: dict[str, list[tuple[_Seen, int]]] = defaultdict(list)
    for symbol in symbols:
        seen[symbol.qualified_name].append((_seen(symbol, is_main=id(symbol) in main), symbol.start_byte))
    bound: dict[str, list[Import]] = defaultdict(list)
    stars: list[Import] = []
    for one in imports:
        (stars if one.name == "*" or not one.alias else bound[one.alias]).append(one)
    return Interface(language, seen, bound, stars, {(one.owner, one.name): one.value for one in value_types})


def _seen(symbol: Symbol, *, is_main: bool) -> _Seen:
    """Of signatures, the resolver reads what an alias stands for, C's `static`, C#'s `partial`, Swift's `public`."""
    signature = (
        symbol.signature
        if symbol.kind == "type"
        else (is_static(symbol), is_part(symbol.kind, symbol.signature), is_exported(symbol))
    )
    return _Seen(symbol.kind, symbol.name, symbol.bases, signature, symbol.is_public, is_main)


def change(before: Interface, after: Interface) -> Change | None:
    """What changed between two versions of a file; None when it may concern files that use none of the names."""
    imports = _differing(before.imports, after.imports)
    if before.language != after.language or before.stars != after.stars or imports & _WHOLE:
        return None
    symbols = _differing(_without_starts(before), _without_starts(after))
    if _are_more(symbols, before) or _are_more(symbols, after):
        return None
    moved = _moved(before, after, symbols)
    values = _differing(before.value_types, after.value_types)
    names = {_last(owner) if name == "()" else name for owner, name in values} | {_last(name) for name in symbols}
    names |= {seen.name for one in (before, after) for name in symbols for seen, _ in one.symbols.get(name, ())}
    return None if moved is None else Change(moved, frozenset(names | imports))


def _last(qualified_name: str) -> str:
    return qualified_name.rpartition(".")[2]


def _differing(some: Mapping[_Key, object], others: Mapping[_Key, object]) -> set[_Key]:
    """The keys of what only one has, or has otherwise."""
    return {key for key in some.keys() | others.keys() if some.get(key) != others.get(key)}


def _without_starts(one: Interface) -> dict[str, list[_Seen]]:
    return {name: [seen for seen, _ in found] for name, found in one.symbols.items()}


def _are_more(differing: Collection[str], one: Interface) -> bool:
    """Whether other symbols of a file mean something else because these do: those in a namespace or in a type."""
    if any(seen.kind in SPACE_KINDS for name in differing for seen, _ in one.symbols.get(name, ())):
        return True
    return any(outer in differing for name in one.symbols if name not in differing for outer in _around(name))


def _around(qualified_name: str) -> Iterator[str]:
    outer = qualified_name.rpartition(".")[0]
    while outer:
        yield outer
        outer = outer.rpartition(".")[0]


def _moved(before: Interface, after: Interface, differing: Collection[str]) -> dict[int, int] | None:
    """Start byte before -> now; None when several symbols begin at one byte, before or now."""
    kept = set[tuple[int, int]]()
    for name in before.symbols.keys() - differing:
        starts = ([start for _, start in one.symbols[name]] for one in (before, after))
        kept.update(zip(*starts, strict=True))
    lost = {start for name in differing for _, start in before.symbols.get(name, ())}
    new = {start for name in differing for _, start in after.symbols.get(name, ())}
    old_starts, new_starts = {old for old, _ in kept}, {now for _, now in kept}
    if len(old_starts) < len(kept) or len(new_starts) < len(kept) or old_starts & lost or new_starts & new:
        return None
    return {old: now for old, now in kept if old != now} | {start: GONE + start for start in lost}
