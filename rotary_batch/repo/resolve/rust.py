"""Rust: paths of modules within a crate, and the crates of the workspace."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from rotary_batch.core import Symbol
from rotary_batch.repo.resolve.dialect import Dialect, ancestors, only, parent_of
from rotary_batch.repo.resolve.meanings import FileNames, Meaning, Module, Source

_NAME = re.compile(rb"^\s*\[(package|lib)\][^\[]*?^\s*name\s*=\s*\"([^\"]+)\"", re.MULTILINE | re.DOTALL)
_ROOT_FILES = ("lib.rs", "main.rs")


class Rust(Dialect):
    """A module sees what it defines and uses."""

    def __init__(self, source: Source, files: Callable[[str], FileNames], languages: frozenset[str]) -> None:
        super().__init__(source, files, languages)
        self._crates: dict[str, str] = {}  # name -> root file
        for path in sorted(source.manifests):
            if path.rpartition("/")[2] == "Cargo.toml":
                self._add_crate(parent_of(path), source.manifests[path])

    def _add_crate(self, folder: str, manifest: bytes) -> None:
        sources = f"{folder}/src" if folder else "src"
        roots = [f"{sources}/{name}" for name in _ROOT_FILES if f"{sources}/{name}" in self.source.languages]
        for _, name in _NAME.findall(manifest):
            if roots and roots[0].endswith("lib.rs"):
                self._crates.setdefault(name.decode("utf-8", "replace").replace("-", "_"), roots[0])

    def modules(self, module: str, here: FileNames) -> Iterator[Meaning]:
        """`crate::a`, `super::a`, `self::a`, `a` of this module, or of a crate of the workspace."""
        found = self._from(module.split("::"), here)
        if found is not None:
            yield found

    def _from(self, parts: list[str], here: FileNames) -> Meaning | None:
        first, rest = parts[0], parts[1:]
        if first == "crate":
            start: Meaning | None = self._crate_root(here.path)
        elif first == "self":
            start = Module(here.path)
        elif first == "super":
            start = self._parent(here.path)
        else:
            start = self.submodule(Module(here.path), first) or self._crate(first)
        for name in rest:
            if not isinstance(start, Module):
                return None
            if name == "super":
                start = self._parent(start.path)
                continue
            symbol = self.files(start.path).symbols.get(name)
            start = self.submodule(start, name) or (symbol if len(rest) and symbol else None)
        return start

    def root(self, name: str, here: FileNames, around: str) -> Meaning | None:
        """`crate` and the names of crates."""
        if name == "crate":
            return self._crate_root(here.path)
        return self.submodule(Module(here.path), name) or self._crate(name)

    def parent(self, here: FileNames) -> Meaning | None:
        """`super` of a module."""
        return self._parent(here.path)

    def _crate(self, name: str) -> Meaning | None:
        return Module(self._crates[name]) if name in self._crates else None

    def _crate_root(self, path: str) -> Meaning | None:
        for folder in ancestors(path):
            start = f"{folder}/" if folder else ""
            for name in _ROOT_FILES:
                if f"{start}{name}" in self.source.languages:
                    return Module(f"{start}{name}")
        return Module(path)

    def _parent(self, path: str) -> Meaning | None:
        folder, _, name = path.rpartition("/")
        if name in _ROOT_FILES:
            return None
        above = parent_of(folder) if name == "mod.rs" else folder
        stem = folder.rpartition("/")[2] if name != "mod.rs" else parent_of(folder).rpartition("/")[2]
        outer = parent_of(above)
        named = f"{outer}/{stem}.rs" if outer else f"{stem}.rs"
        for file in (*(f"{above}/{root}" for root in (*_ROOT_FILES, "mod.rs")), named):
            if file.lstrip("/") in self.source.languages and file != path:
                return Module(file.lstrip("/"))
        return None

    def submodule(self, space: Meaning, name: str) -> Meaning | None:
        """The file of `mod name;`."""
        if not isinstance(space, Module):
            return None
        folder, _, file = space.path.rpartition("/")
        inside = folder if file in {*_ROOT_FILES, "mod.rs"} else space.path.removesuffix(".rs")
        for path in (f"{inside}/{name}.rs", f"{inside}/{name}/mod.rs"):
            if path.lstrip("/") in self.source.languages:
                return Module(path.lstrip("/"))
        return None

    def outside(self, name: str, here: FileNames) -> Symbol | None:
        """Macros are seen in the whole crate."""
        root = self._crate_root(here.path)
        folder = parent_of(root.path) if isinstance(root, Module) else parent_of(here.path)
        return only(s for s in self.source.members_named(name, name, folder) if s.kind == "macro")

    def member_elsewhere(self, around: Symbol, name: str) -> Symbol | None:
        """A member from an `impl` in another file of the crate."""
        root = self._crate_root(around.path)
        folder = parent_of(root.path) if isinstance(root, Module) else parent_of(around.path)
        return only(self.source.members_named(name, f"{around.name}.{name}", folder))
