"""What an answer about a part of a repository may name, besides what its prompt has; and the symbol that it is about.

Not every name of the repository: an answer about one function that names another file's class is more often wrong than
right.  In scope are the names that code at this place could use.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import islice

from rotary_batch.core import Chunk, Import, Subject, Symbol, SymbolId, Unit
from rotary_batch.pages.faithful.described import Described
from rotary_batch.pages.faithful.language_words import words_of_language
from rotary_batch.pages.page import IndexView
from rotary_batch.pages.page_paths import parent_of
from rotary_batch.work.graph import stored_imports
from rotary_batch.work.store import WorkStore

_FILES_CACHED = 200
MAX_CLASSES = 20  # a class and those above it, whose members are in scope
MAX_PACKAGE_FILES = 50  # of one folder, where its files see each other's names without an import
MAX_COMMENT_LINES = 60  # above a symbol
_ONE_PACKAGE = frozenset({"go", "java", "kotlin", "scala", "c_sharp", "swift"})
_FENCED = re.compile(r"<(text-[0-9a-f]{6})>\n(.*)\n</\1>", re.DOTALL)
_COMMENT = re.compile(r"\s*(?:///?|\*|/\*|#|--)")
_WORD = re.compile(r"\w+")


class Scopes:
    """The scopes of one repository, whose index does not change meanwhile."""

    def __init__(self, store: WorkStore, repository_id: int, view: IndexView) -> None:
        self._store, self._id, self._view = store, repository_id, view
        self._of_file = lru_cache(_FILES_CACHED)(self._names_of_file)
        self._of_package = lru_cache(_FILES_CACHED)(self._names_of_package)

    def names(self, subject: Subject) -> frozenset[str]:
        """The names that an answer about a subject may have without its prompt having them."""
        path = subject.path
        if subject.unit in {Unit.DIRECTORY, Unit.REPOSITORY}:
            inside = self._view.inside.get(path)
            below = [] if inside is None else [*inside.folders, *inside.files]
            return frozenset([self._view.name, *_names_of_paths([path, *below])])
        names = self._of_file(path) | words_of_language(self._view.language(path))
        for symbol in self._symbols(subject):
            names |= self._names_of_symbol(symbol)
        return names

    def described(self, subject: Subject, prompt: str) -> Described | None:
        """The symbol that an answer is about, with its code as far as the prompt has it; None of other units."""
        if subject.span is None or subject.unit is not Unit.SYMBOL:
            return None
        symbol = next((one for one in self._symbols(subject) if one.start_byte == subject.span[0]), None)
        if symbol is None:
            return None
        chunks = self._view.chunks.get(subject.path, ())
        chunk = next((one for one in chunks if one.start_byte <= symbol.start_byte < one.end_byte), None)
        return Described(
            name=symbol.name,
            qualified_name=symbol.qualified_name,
            kind=symbol.kind,
            language=self._view.language(subject.path) or "",
            signature=symbol.signature,
            code=None if chunk is None else code_in_prompt(prompt, chunk, symbol),
        )

    def _symbols(self, subject: Subject) -> list[Symbol]:
        """The symbols that start in the span of a subject; of a symbol, with what is in it."""
        if subject.span is None:
            return []
        start, end = subject.span
        return [one for one in self._view.symbols.get(subject.path, ()) if start <= one.start_byte < end]

    def _names_of_file(self, path: str) -> frozenset[str]:
        names = set(_names_of_symbols(self._view.symbols.get(path, ())))
        names.update(_names_of_imports(stored_imports(self._store, self._id, [path])))
        names.update(_names_of_paths([path]))
        if self._view.language(path) in _ONE_PACKAGE:
            names |= self._of_package(parent_of(path))
        return frozenset(names)

    def _names_of_package(self, folder: str) -> frozenset[str]:
        inside = self._view.inside.get(folder)
        files = () if inside is None else inside.files[:MAX_PACKAGE_FILES]
        return frozenset(name for path in files for name in _names_of_symbols(self._view.symbols.get(path, ())))

    def _names_of_symbol(self, symbol: Symbol) -> set[str]:
        """What it calls, and the members of its class and of those above that, with their parameters."""
        callees = self._view.callees.get(symbol.path, {}).get(symbol.id)
        names = set(_names_of_symbols(self._found(callees.ids if callees else ())))
        for member in self._members(symbol):
            names.update((member.name, member.qualified_name, *_WORD.findall(member.signature)))
        return names

    def _members(self, symbol: Symbol) -> Iterator[Symbol]:
        """The members of the class of a symbol, or of the symbol itself, and of the bases of that."""
        waiting, seen = [(symbol.path, symbol.qualified_name), (symbol.path, _owner(symbol))], set[tuple[str, str]]()
        while waiting and len(seen) < MAX_CLASSES:
            path, name = waiting.pop()
            if not name or (path, name) in seen:
                continue
            seen.add((path, name))
            for one in self._view.symbols.get(path, ()):
                if one.qualified_name.startswith(f"{name}."):
                    yield one
                elif one.qualified_name == name and (bases := self._view.bases.get(path, {}).get(one.id)):
                    waiting += [(base.path, base.qualified_name) for base in self._found(bases.ids)]

    def _found(self, ids: Iterable[SymbolId]) -> Iterator[Symbol]:
        for wanted in ids:
            yield from (one for one in self._view.symbols.get(wanted.path, ()) if one.id == wanted)


def _owner(symbol: Symbol) -> str:
    return symbol.qualified_name.rpartition(".")[0]


def _names_of_symbols(symbols: Iterable[Symbol]) -> Iterator[str]:
    for symbol in symbols:
        yield symbol.name
        yield symbol.qualified_name


def _names_of_imports(imports: Iterable[Import]) -> Iterator[str]:
    for one in imports:
        yield from (one.alias, one.name or "", one.module, *_WORD.findall(one.module))


def _names_of_paths(paths: Iterable[str]) -> Iterator[str]:
    """Each path, the folders in it, and its name with and without the ending."""
    for path in paths:
        parts = path.split("/")
        yield from (path, *parts, parts[-1].partition(".")[0])
        yield from ("/".join(parts[-length:]) for length in range(2, min(len(parts), 6)))


def code_in_prompt(prompt: str, chunk: Chunk, symbol: Symbol) -> str | None:
    """The lines of a symbol and the comment above them, from the prompt of the chunk that it starts in.

    None when they are not all there: a chunk may end within a symbol.
    """
    found = _FENCED.search(prompt)
    if found is None or symbol.end_line > chunk.end_line:
        return None
    lines = found[2].split("\n")
    place = _place(lines, symbol, symbol.start_line - chunk.start_line)
    if place is None:
        return None
    first = place
    while first > max(0, place - MAX_COMMENT_LINES) and _COMMENT.match(lines[first - 1]):
        first -= 1
    return "\n".join(lines[first : place + symbol.end_line - symbol.start_line + 1])


def _place(lines: Sequence[str], symbol: Symbol, expected: int) -> int | None:
    """Where the lines of a symbol begin: at `expected`, or earlier by the empty lines that the prompt left out."""
    wanted = re.compile(rf"(?<!\w){re.escape(symbol.name)}(?!\w)")
    length = symbol.end_line - symbol.start_line + 1
    for place in islice(range(expected, -1, -1), len(lines)):
        if (
            place < len(lines)
            and lines[place].strip()
            and wanted.search("\n".join(lines[place : place + min(length, 20)]))
        ):
            return place
    return None
