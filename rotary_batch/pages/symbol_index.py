"""The index of public symbols, by letter: one page, or one for each part of a letter when there are many symbols."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

from rotary_batch.core import Symbol
from rotary_batch.pages.outline import Part, is_test_file, outline
from rotary_batch.pages.page_paths import INDEX_STEM
from rotary_batch.pages.sanitise import code, path_link

INDEX_NAME = f"{INDEX_STEM}.md"
INDEX = f"/{INDEX_NAME}"
OTHERS = "other"  # the letter of names that begin with none of a to z
MAX_ENTRIES = 1000  # of one page
_NOT_LISTED = {"key", "section", "stage"}  # of data and documents
_THING = re.compile(rf"/{INDEX_STEM}(?:-([a-z]|{OTHERS})-(\d+))?\.md")


def is_index_thing(thing: str) -> bool:
    """Whether this is a page of the symbol index."""
    return _THING.fullmatch(thing) is not None


def entries_of(path: str, symbols: Iterable[Symbol]) -> Iterator[tuple[str, str, str, str, str]]:
    """Letter, sort key, name, kind and anchor of each symbol of a file that the index lists."""
    if is_test_file(path):
        return
    arranged = outline(path, symbols)
    for symbol in arranged.parts.get(Part.PUBLIC, ()):
        if symbol.kind in _NOT_LISTED:
            continue
        key = symbol.name.lstrip("_$#~").casefold()
        letter = key[0] if "a" <= key[:1] <= "z" else OTHERS
        anchor = arranged.headings[symbol.id].anchor
        yield letter, _storable(key), _storable(symbol.qualified_name), _storable(symbol.kind), anchor


class Listed(Protocol):
    """The entries of all files, in the order of their letter, key, name, path and anchor."""

    def counts(self) -> Mapping[str, int]:
        """Letter -> how many entries it has, in order; none without any."""
        ...

    def rows(self, letter: str, skip: int, number: int) -> Iterable[tuple[str, str, str, str]]:
        """(name, kind, path, anchor) of some entries of a letter."""
        ...


class SymbolIndex:
    """The pages that the entries fill."""

    def __init__(self, listed: Listed) -> None:
        self._listed = listed
        self._counts = listed.counts()

    @property
    def things(self) -> list[str]:
        """The pages of the index, the first one first."""
        if self._is_one_page:
            return [INDEX]
        return [INDEX, *(_thing(letter, part) for letter, n in self._counts.items() for part in _parts(n))]

    def blocks(self, thing: str, pages: Mapping[str, str]) -> list[str]:
        """The blocks of one page; `pages` has source path -> page path."""
        named = _THING.fullmatch(thing)
        if named and named[1]:
            letter, part = named[1], int(named[2])
            title = f"# Symbols: {_title(letter)}, part {part} of {len(_parts(self._counts[letter]))}"
            return [title, f"[Symbol index]({INDEX_NAME})", self._list(letter, part, pages)]
        if self._is_one_page:
            lists = [f"## {_title(letter)}\n\n{self._list(letter, 1, pages)}" for letter in self._counts]
        else:
            lists = ["\n".join(f"- {self._letter_links(letter)}" for letter in self._counts)]
        total = sum(self._counts.values())
        return ["# Symbol index", f"{total} public symbols, without those of tests.", *lists]

    @property
    def _is_one_page(self) -> bool:
        return sum(self._counts.values()) <= MAX_ENTRIES

    def _letter_links(self, letter: str) -> str:
        number = len(_parts(self._counts[letter]))
        links = [f"[{_title(letter)}]({_thing(letter, 1)[1:]})"]
        links += [f"[part {part}]({_thing(letter, part)[1:]})" for part in range(2, number + 1)]
        return f"{', '.join(links)}: {self._counts[letter]} symbols"

    def _list(self, letter: str, part: int, pages: Mapping[str, str]) -> str:
        rows = self._listed.rows(letter, MAX_ENTRIES * (part - 1), MAX_ENTRIES)
        return "\n".join(_line(path, pages, name, kind, anchor) for name, kind, path, anchor in rows)


def _line(path: str, pages: Mapping[str, str], name: str, kind: str, anchor: str) -> str:
    return f"- [{code(name)}]({path_link(pages[path])}#{anchor}) {kind}, {code(path)}"


def _storable(text: str) -> str:
    """Without surrogates, which no database takes."""
    return text.encode("utf-8", "replace").decode()


def _parts(number: int) -> range:
    return range(1, -(-number // MAX_ENTRIES) + 1)


def _thing(letter: str, part: int) -> str:
    return f"/{INDEX_STEM}-{letter}-{part}.md"


def _title(letter: str) -> str:
    return letter.upper() if letter != OTHERS else "Other letters"
