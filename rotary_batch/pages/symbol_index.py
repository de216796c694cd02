"""The index of public symbols, by letter: one page, or one for each part of a letter when there are many symbols.

The entries are in a private temporary database, so that a million of them take no memory.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate

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


class SymbolIndex:
    """The entries of the index, and the pages that they fill."""

    def __init__(self, files: Iterable[tuple[str, Sequence[Symbol]]]) -> None:
        """`files` has the path of each file and all its symbols."""
        self._paths: list[str] = []
        self._db = sqlite3.connect("")  # on disk when it is large, and gone with the connection
        self._db.execute("create table entry (letter text, key text, name text, kind text, file integer, anchor text)")
        self._db.executemany("insert into entry values (?, ?, ?, ?, ?, ?)", self._entries(files))
        self._db.execute("create table ordered as select * from entry order by letter, key, name, file, anchor")
        self._counts: dict[str, int] = dict(
            self._db.execute("select letter, count(*) from ordered group by letter order by letter")
        )
        starts = accumulate(self._counts.values(), initial=1)
        self._first_rows = dict(zip(self._counts, starts, strict=False))

    def _entries(self, files: Iterable[tuple[str, Sequence[Symbol]]]) -> Iterator[tuple[str, str, str, str, int, str]]:
        for path, symbols in files:
            entries = list(entries_of(path, symbols))
            if entries:
                self._paths.append(path)
            for letter, key, name, kind, anchor in entries:
                yield letter, key, name, kind, len(self._paths) - 1, anchor

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
        first = self._first_rows[letter] + MAX_ENTRIES * (part - 1)
        last = min(first + MAX_ENTRIES, self._first_rows[letter] + self._counts[letter]) - 1
        rows = self._db.execute(
            "select name, kind, file, anchor from ordered where rowid between ? and ? order by rowid", [first, last]
        )
        return "\n".join(_line(self._paths[file], pages, name, kind, anchor) for name, kind, file, anchor in rows)


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
