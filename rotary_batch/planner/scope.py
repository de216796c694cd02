"""What an answer about a part of a repository may name, besides what its prompt has; and the symbol that it is about.

Not every name of the repository: an answer about one function that names another file's class is more often wrong than
right.  In scope are the names that code at this place could use.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import islice
from operator import attrgetter

from rotary_batch.core import Chunk, Import, Subject, Symbol, SymbolId, Topic, Unit
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


class _File:
    """What the symbols of one file are called, and where each is."""

    def __init__(self, symbols: Sequence[Symbol], imports: Iterable[Import], path: str) -> None:
        self.symbols = sorted(symbols, key=attrgetter("start_byte"))
        self.names = frozenset([*_names_of_symbols(symbols), *_names_of_imports(imports), *_names_of_paths([path])])
        self.by_name = {one.qualified_name: one for one in reversed(self.symbols)}
        self.by_id = {one.id: one for one in self.symbols}
        self.members: dict[str, list[Symbol]] = {}
        for one in self.symbols:
            self.members.setdefault(_owner(one), []).append(one)

    def starting_in(self, start: int, end: int) -> Sequence[Symbol]:
        """The symbols that start in a span of bytes."""
        first = bisect_left(self.symbols, start, key=attrgetter("start_byte"))
        return self.symbols[first : bisect_left(self.symbols, end, lo=first, key=attrgetter("start_byte"))]


class Scopes:
    """The scopes of one repository, whose index does not change meanwhile."""

    def __init__(self, store: WorkStore, repository_id: int, view: IndexView) -> None:
        self._store, self._id, self._view = store, repository_id, view
        self._file = lru_cache(_FILES_CACHED)(self._read_file)
        self._of_package = lru_cache(_FILES_CACHED)(self._names_of_package)
        self._of_class = lru_cache(_FILES_CACHED)(self._names_of_class)

    def is_known(self, subject: Subject) -> Callable[[str], bool]:
        """Whether an answer about a subject may have a name without its prompt having it."""
        names = list(self._names(subject))
        return lambda name: any(name in some for some in names)

    def _names(self, subject: Subject) -> Iterator[Collection[str]]:
        path, view = subject.path, self._view
        if subject.unit is Unit.TOPIC:  # its prompt has all the facts
            yield {view.name}
            return
        if subject.unit in {Unit.DIRECTORY, Unit.REPOSITORY}:
            inside = view.inside.get(path)
            yield {view.name, *_names_of_paths([path])}
            yield from (
                () if inside is None else (set(_names_of_paths(inside.folders)), set(_names_of_paths(inside.files)))
            )
            return
        yield self._file(path).names
        yield words_of_language(view.language(path))
        if view.language(path) in _ONE_PACKAGE:
            yield self._of_package(parent_of(path))
        symbols = self._symbols(subject)
        for symbol in symbols:
            callees = view.callees.get(path, {}).get(symbol.id)
            yield set(_names_of_symbols(self._found(callees.ids if callees else ())))
        for name in dict.fromkeys(name for one in symbols for name in (one.qualified_name, _owner(one)) if name):
            yield self._of_class(path, name)

    def described(self, subject: Subject, prompt: str) -> Described | None:
        """What an answer is about, of a symbol with its code as far as the prompt has it; None of a chunk."""
        if subject.unit is Unit.TOPIC:
            return Described(self._view.name, self._view.name, "", "", "", topic=Topic.of(subject))
        if subject.unit.is_rollup:
            name = subject.path.rpartition("/")[2] or self._view.name
            return Described(name, subject.path or name, subject.unit.value, "", "")
        symbol = next(iter(self._symbols(subject)), None)
        if symbol is None or subject.unit is Unit.CHUNK:
            return None
        chunks = self._view.chunks.get(subject.path, ())
        place = bisect_right(chunks, symbol.start_byte, key=attrgetter("start_byte"))
        chunk = chunks[place - 1] if place else None
        return Described(
            name=symbol.name,
            qualified_name=symbol.qualified_name,
            kind=symbol.kind,
            language=self._view.language(subject.path) or "",
            signature=symbol.signature,
            code=None if chunk is None else code_in_prompt(prompt, chunk, symbol),
        )

    def _symbols(self, subject: Subject) -> Sequence[Symbol]:
        """The symbols that start in a chunk; or the one symbol."""
        if subject.span is None:
            return ()
        start, end = subject.span
        return self._file(subject.path).starting_in(start, end if subject.unit is Unit.CHUNK else start + 1)

    def _read_file(self, path: str) -> _File:
        return _File(self._view.symbols.get(path, ()), stored_imports(self._store, self._id, [path]), path)

    def _names_of_package(self, folder: str) -> frozenset[str]:
        inside = self._view.inside.get(folder)
        files = () if inside is None else inside.files[:MAX_PACKAGE_FILES]
        return frozenset(name for path in files for name in _names_of_symbols(self._view.symbols.get(path, ())))

    def _names_of_class(self, path: str, name: str) -> frozenset[str]:
        """The members of a class and of its bases, with their parameters."""
        names, waiting, seen = set[str](), [(path, name)], set[tuple[str, str]]()
        while waiting and len(seen) < MAX_CLASSES:
            where = waiting.pop()
            if where in seen:
                continue
            seen.add(where)
            file = self._file(where[0])
            for member in file.members.get(where[1], ()):
                names.update((member.name, member.qualified_name, *_WORD.findall(member.signature)))
            own = file.by_name.get(where[1])
            bases = None if own is None else self._view.bases.get(where[0], {}).get(own.id)
            waiting += [(base.path, base.qualified_name) for base in self._found(bases.ids if bases else ())]
        return frozenset(names)

    def _found(self, ids: Iterable[SymbolId]) -> Iterator[Symbol]:
        for wanted in ids:
            if (found := self._file(wanted.path).by_id.get(wanted)) is not None:
                yield found


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
