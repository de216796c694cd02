"""Ruby and Lua, which load files by their paths; and Swift, whose modules are folders."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator

from rotary_batch.core import Symbol
from rotary_batch.repo.resolve.dialect import Dialect, ancestors, joined, only, parent_of
from rotary_batch.repo.resolve.meanings import FileNames, Folder, Meaning, Module, Source

_LOAD_PATHS = ("lib", "spec", "test")  # of Ruby
_LUA_ROOTS = ("", "lua", "src", "lib")


class _ByName(Dialect):
    """Knows the files of a name."""

    def __init__(self, source: Source, files: Callable[[str], FileNames], languages: frozenset[str]) -> None:
        super().__init__(source, files, languages)
        self._by_name: dict[str, list[str]] = defaultdict(list)
        for path in sorted(self.paths):
            self._by_name[path.rpartition("/")[2]].append(path)

    def _ending(self, end: str) -> list[str]:
        """The files whose path ends so."""
        return [path for path in self._by_name.get(end.rpartition("/")[2], ()) if f"/{path}".endswith(f"/{end}")]


class Ruby(_ByName):
    """Names come from the file and what it requires; modules and classes may be opened in several files."""

    has_mixins = True

    def modules(self, module: str, here: FileNames) -> Iterator[Meaning]:
        """The file of a path, from here or from a load path."""
        if module.startswith("./"):
            path = f"{joined(parent_of(here.path), module)}.rb"
            found = [path] if path in self.source.languages else []
        else:
            found = [path for root in _LOAD_PATHS for path in self._ending(f"{root}/{module}.rb")]
        if len(found) == 1:
            yield Module(found[0])

    def member_elsewhere(self, around: Symbol, name: str) -> Symbol | None:
        """A member that the same module or class has in another file."""
        wanted = f"{around.qualified_name}.{name}"
        return only(one for one in self.source.members_named(name, wanted, "") if one.qualified_name == wanted)


class Lua(_ByName):
    """A file gives what it returns, usually a table of functions."""

    def modules(self, module: str, here: FileNames) -> Iterator[Meaning]:
        """`a.b`: from the top, from a source root, from a folder around here, else the only path that ends so."""
        path = module.replace(".", "/")
        names = (f"{path}.lua", f"{path}/init.lua")
        for root in dict.fromkeys([*_LUA_ROOTS, *ancestors(here.path)]):
            for name in names:
                if (whole := f"{root}/{name}" if root else name) in self.source.languages:
                    yield Module(whole)
                    return
        found = [one for name in names for one in self._ending(name)] if "/" in path else []
        if len(found) == 1:
            yield Module(found[0])

    def root(self, name: str, here: FileNames, around: str) -> Meaning | None:
        """The table that the file returns."""
        return Module(here.path) if name == _returned(here) else None

    def submodule(self, space: Meaning, name: str) -> Meaning | None:
        """A member of the table that a file returns."""
        if not isinstance(space, Module):
            return None
        there = self.files(space.path)
        return there.symbols.get(f"{_returned(there)}.{name}")


def _returned(here: FileNames) -> str:
    return next((one.name or "" for one in here.imports.get("return", ())), "")


class Swift(Dialect):
    """All files of a module see each other: `Sources/NAME` and `Tests/NAME` of a package."""

    def __init__(self, source: Source, files: Callable[[str], FileNames], languages: frozenset[str]) -> None:
        super().__init__(source, files, languages)
        self._modules: dict[str, set[str]] = defaultdict(set)
        for path in self.paths:
            folder = _module_folder(path)
            if folder:
                self._modules[folder.rpartition("/")[2]].add(folder)

    def modules(self, module: str, here: FileNames) -> Iterator[Meaning]:
        """The folder of a module; tests see what is not public too."""
        folders = self._modules.get(module, set())
        if len(folders) == 1:
            is_test = "Tests" in here.path.split("/")
            yield self.folder(next(iter(folders)), "testable" if is_test else "public")

    def outside(self, name: str, here: FileNames) -> Symbol | None:
        """A name of the module."""
        folder = _module_folder(here.path)
        return self.in_folder(name, self.folder(folder, "own")) if folder else super().outside(name, here)

    def in_folder(self, name: str, folder: Folder) -> Symbol | None:
        """The one symbol of a name at the top of any file of a module."""
        if not folder.package:
            return super().in_folder(name, folder)
        found = [one for one in self.source.named(name, None) if one.path.startswith(f"{folder.path}/")]
        is_open = folder.package != "public"
        return only(one for one in found if self.is_top(one) and one.is_public and (is_open or is_exported(one)))

    def member_elsewhere(self, around: Symbol, name: str) -> Symbol | None:
        """A member of an extension in another file of the module."""
        folder, wanted = _module_folder(around.path), f"{around.qualified_name}.{name}"
        found = self.source.members_named(name, wanted, folder) if folder else ()
        return only(one for one in found if one.is_public and one.qualified_name == wanted)


def is_exported(symbol: Symbol) -> bool:
    """Whether other modules of Swift see a symbol."""
    return not {"public", "open"}.isdisjoint(symbol.signature.split("(")[0].split())


def _module_folder(path: str) -> str:
    """`Sources/NAME` of a path; "" where there is none."""
    parts = path.split("/")
    for place in range(len(parts) - 2):
        if parts[place] in {"Sources", "Tests"}:
            return "/".join(parts[: place + 2])
    return ""
