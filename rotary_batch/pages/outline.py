"""The order of what a page shows: public symbols first, then private ones, then tests; fields in their container."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from functools import cached_property, lru_cache

from rotary_batch.core import Symbol, SymbolId, main_definitions
from rotary_batch.pages.anchors import Heading, headings

MEMBER_KINDS = {"field", "member"}  # a row in the table of their container, not a section of their own
_CALLABLE_KINDS = {"function", "method", "constructor"}
_TEST_FOLDERS = {"test", "tests", "testing", "__tests__", "spec", "specs", "testdata"}
_TEST_FILE = re.compile(
    r"(test_.*|conftest)\.pyi?|.*_tests?\.\w+|.*[._-](test|spec)s?\.\w+|.*[a-z0-9](Test|Tests|Spec|IT)\.\w+"
)


class Part(Enum):
    """The parts of a page, in order."""

    PUBLIC = "Public"
    PRIVATE = "Private"
    TESTS = "Tests"


@dataclass(frozen=True, kw_only=True)
class Outline:
    """What the page of a file shows of its symbols."""

    title: str  # of the page
    parts: dict[Part, list[Symbol]]  # symbols that have a section, in file order; no empty part
    members: dict[SymbolId, list[Symbol]]  # container -> its fields
    others: dict[SymbolId, list[Symbol]]  # symbol of a section -> other definitions of the same name
    sections_of: dict[SymbolId, Symbol]  # every symbol that is shown -> that of the section which shows it

    @cached_property
    def sections(self) -> list[Symbol]:
        """All symbols that have a section, in page order."""
        return [symbol for part in self.parts.values() for symbol in part]

    @cached_property
    def headings(self) -> dict[SymbolId, Heading]:
        """The headings of the sections."""
        return headings(self.title, self.sections)

    def anchor(self, symbol: SymbolId) -> str | None:
        """The anchor of the section that shows a symbol."""
        section = self.sections_of.get(symbol)
        return self.headings[section.id].anchor if section else None


def outline(path: str, symbols: Iterable[Symbol]) -> Outline:
    """Arrange the symbols of one file.  A type and a function of one name both have a section.

    Declarations have one where the file has no definition.
    """
    symbols = list(symbols)
    defined = {symbol.qualified_name for symbol in symbols if symbol.kind != "declaration"}
    by_name: dict[tuple[str, str], list[Symbol]] = defaultdict(list)
    for symbol in symbols:
        if symbol.kind != "declaration" or symbol.qualified_name not in defined:
            by_name[symbol.qualified_name, _family(symbol)].append(symbol)
    mains = (main_definitions(same, or_declarations=True) for same in by_name.values())
    shown = sorted(
        (symbol for main in mains for symbol in main), key=lambda symbol: (symbol.start_byte, symbol.qualified_name)
    )
    containers = {symbol.qualified_name: symbol for symbol in shown if symbol.kind not in MEMBER_KINDS}
    parts: dict[Part, list[Symbol]] = {part: [] for part in Part}
    members: dict[SymbolId, list[Symbol]] = {}
    others: dict[SymbolId, list[Symbol]] = {}
    sections_of: dict[SymbolId, Symbol] = {}
    hidden: set[str] = set()
    for symbol in shown:
        container = _container(symbol, containers)
        is_member = symbol.kind in MEMBER_KINDS and container is not None
        named = by_name[symbol.qualified_name, _family(symbol)]
        same = [other for other in named if other is not symbol and other.kind != "declaration"] if named[1:] else []
        section = container if is_member and container else symbol
        for one in (*same, symbol):
            sections_of[one.id] = section
        if is_member:
            members.setdefault(section.id, []).append(symbol)
        else:
            part = _part(symbol, container, hidden)
            if part is Part.PRIVATE:
                hidden.add(symbol.qualified_name)
            parts[part].append(symbol)
            others[symbol.id] = same
    return Outline(
        title=path.rpartition("/")[2],
        parts={part: inside for part, inside in parts.items() if inside},
        members=members,
        others=others,
        sections_of=sections_of,
    )


@lru_cache(maxsize=20_000)  # asked several times of each file that others use
def is_test_file(path: str) -> bool:
    """Whether a file holds tests, by its name or that of a folder above it."""
    *folders, name = path.split("/")
    return _TEST_FILE.fullmatch(name) is not None or not _TEST_FOLDERS.isdisjoint(folders)


def is_test_folder(folder: str) -> bool:
    """The same for a folder."""
    return not _TEST_FOLDERS.isdisjoint(folder.split("/"))


def _container(symbol: Symbol, containers: dict[str, Symbol]) -> Symbol | None:
    """The symbol around one; the fields of a field without a type of its own are those of what is around both."""
    name = symbol.qualified_name.rpartition(".")[0]
    while name and name not in containers and symbol.kind in MEMBER_KINDS:
        name = name.rpartition(".")[0]
    return containers.get(name)


def _family(symbol: Symbol) -> str:
    if symbol.kind in _CALLABLE_KINDS:
        return "callable"
    return "member" if symbol.kind in MEMBER_KINDS else "other"


def _part(symbol: Symbol, container: Symbol | None, hidden: set[str]) -> Part:
    first, *inner = symbol.qualified_name.split(".")
    if first in {"test", "tests"} and (inner or symbol.kind == "module"):
        return Part.TESTS  # in the file of what they test, as `mod tests` of Rust
    is_local = container is not None and (container.kind in _CALLABLE_KINDS or container.qualified_name in hidden)
    return Part.PUBLIC if symbol.is_public and not is_local and not _is_underscored(symbol.name) else Part.PRIVATE


def _is_underscored(name: str) -> bool:
    """Private by a convention of many languages; `__init__` and its like are not."""
    return name.startswith(("_", "#")) and not (name.startswith("__") and name.endswith("__"))
