"""How one language finds files and names; the default knows the file and its folder only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from rotary_batch.core import CLASS_KINDS, Symbol
from rotary_batch.repo.languages import LANGUAGES
from rotary_batch.repo.resolve.meanings import FileNames, Folder, Meaning, Source

CALLABLE_KINDS = frozenset({"function", "method", "constructor", "property"})
SPACE_KINDS = frozenset({"module", "namespace", "package"})


class Dialect:
    """The rules of a language for names from outside of a file."""

    has_mixins = False  # types inherit from modules, and modules may be spread over files

    def __init__(self, source: Source, files: Callable[[str], FileNames], languages: frozenset[str]) -> None:
        self.source = source
        self.files = files
        self.languages = languages

    @property
    def members_by_name(self) -> bool:
        """Whether a member of the class around a place needs no dot."""
        return any(language in LANGUAGES and LANGUAGES[language].calls_members_by_name for language in self.languages)

    @property
    def paths(self) -> Iterator[str]:
        """Of the files in these languages."""
        return (path for path, language in self.source.languages.items() if language in self.languages)

    def folder(self, path: str, package: str = "") -> Folder:
        """A folder, as files of these languages see it."""
        return Folder(path, min(self.languages), package)

    def modules(self, module: str, here: FileNames) -> Iterable[Meaning]:
        """What a module as written in an import may be, the likeliest first; nothing when it is foreign."""
        return ()

    def root(self, name: str, here: FileNames, around: str) -> Meaning | None:
        """What the first name of a path means when it is a word of the language or the name of a package."""
        return None

    def submodule(self, space: Meaning, name: str) -> Meaning | None:
        """A module within a module or a folder."""
        return None

    def outside(self, name: str, here: FileNames) -> Symbol | None:
        """What a bare name means that the file neither defines nor imports by name."""
        return self.in_folder(name, self.folder(parent_of(here.path)))

    def in_folder(self, name: str, folder: Folder) -> Symbol | None:
        """The one symbol of a name at the top of the files of a folder."""
        return only(symbol for symbol in self.source.named(name, folder.path) if self.is_top(symbol))

    def is_top(self, symbol: Symbol) -> bool:
        """Whether a symbol is in no other but a namespace, and in this language."""
        if self.source.languages.get(symbol.path) not in self.languages:
            return False
        outer = symbol.qualified_name.rpartition(".")[0]
        around = self.files(symbol.path).symbols.get(outer) if outer else None
        return not outer or (around is not None and around.kind in SPACE_KINDS)

    def parts(self, one: Symbol) -> Sequence[Symbol]:
        """The other parts of a type that is written in several."""
        return ()

    def member_elsewhere(self, around: Symbol, name: str) -> Symbol | None:
        """A member of a type that another file defines."""
        return None


def parent_of(path: str) -> str:
    """The folder of a path; "" is the top."""
    return path.rpartition("/")[0]


def joined(folder: str, rest: str) -> str | None:
    """A relative path from a folder, its dots resolved; None when it leaves the repository."""
    parts = folder.split("/") if folder else []
    for part in rest.split("/"):
        if part == "..":
            if not parts:
                return None
            parts.pop()
        elif part not in {"", "."}:
            parts.append(part)
    return "/".join(parts)


def only(symbols: Iterable[Symbol]) -> Symbol | None:
    """The symbol that all of some are, definitions before declarations; None when they are several or none."""
    kept = list(symbols)
    kept = [symbol for symbol in kept if symbol.kind != "declaration"] or kept
    files = {(symbol.path, symbol.qualified_name) for symbol in kept}
    return kept[0] if len(files) == 1 else None


def is_type(symbol: Symbol) -> bool:
    """Whether a symbol has members and values."""
    return symbol.kind in CLASS_KINDS or symbol.kind == "type"


def ancestors(path: str) -> Sequence[str]:
    """The folders around a path, the innermost first, the top ("") last."""
    folders = []
    while path:
        path = parent_of(path)
        folders.append(path)
    return folders
