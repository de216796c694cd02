"""What a name can mean, and where the names of files come from."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol, TypeAlias

from rotary_batch.core import Import, Symbol, ValueType, main_definitions

MAX_CACHED_SYMBOLS = 200_000  # about 60 MB


class Module(NamedTuple):
    """A file, by what it exports."""

    path: str


class Folder(NamedTuple):
    """A folder, by what its files define; of Go only those of one package."""

    path: str
    language: str
    package: str = ""


class Instance(NamedTuple):
    """A value of a type."""

    type: Symbol


Meaning: TypeAlias = Symbol | Module | Folder | Instance


class Source(Protocol):
    """The index of a repository, as far as names are concerned."""

    @property
    def languages(self) -> Mapping[str, str]:
        """Path -> language of all source files."""
        ...

    @property
    def manifests(self) -> Mapping[str, bytes]:
        """Path -> content of the files that say what packages are called, such as `go.mod`."""
        ...

    def facts(self, path: str) -> tuple[Sequence[Symbol], Sequence[Import], Sequence[ValueType]]:
        """What one file defines, imports, and says of types."""
        ...

    def named(self, name: str, folder: str | None) -> Sequence[Symbol]:
        """Symbols of a name directly in a folder, or anywhere; none when they are very many."""
        ...

    def members_named(self, name: str, qualified_name: str, folder: str) -> Sequence[Symbol]:
        """Symbols of a qualified name, or one that ends with it, below a folder; none when they are very many."""
        ...


class FileNames:
    """What names mean at the top of one file, and within its types."""

    def __init__(
        self, path: str, symbols: Sequence[Symbol], imports: Iterable[Import], value_types: Iterable[ValueType]
    ) -> None:
        self.path = path
        main = {symbol.qualified_name: symbol for symbol in main_definitions(symbols)}
        declared = {symbol.qualified_name: symbol for symbol in reversed(symbols) if symbol.kind == "declaration"}
        self.symbols = declared | main
        self.names = {symbol.start_byte: symbol.qualified_name for symbol in symbols}
        self.values = {(one.owner, one.name): one.value for one in value_types}
        self.imports: dict[str, list[Import]] = {}
        self.stars: list[Import] = []
        self.package = ""
        for one in imports:
            if one.name == "*":
                self.stars.append(one)
            elif one.alias:
                self.imports.setdefault(one.alias, []).append(one)
            else:
                self.package = one.module


class Files:
    """The names of files, with the last used in memory."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._cached: OrderedDict[str, FileNames] = OrderedDict()
        self._num_symbols = 0

    def __getitem__(self, path: str) -> FileNames:
        names = self._cached.get(path)
        if names is not None:
            self._cached.move_to_end(path)
            return names
        names = self._cached[path] = FileNames(path, *self._source.facts(path))
        self._num_symbols += _size(names)
        while self._num_symbols > MAX_CACHED_SYMBOLS and len(self._cached) > 1:
            self._num_symbols -= _size(self._cached.popitem(last=False)[1])
        return names


def _size(names: FileNames) -> int:
    return 4 + len(names.names) + len(names.imports) + len(names.values)
