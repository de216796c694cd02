"""Python: modules and packages, with and without `__init__`, from any source root."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator

from rotary_batch.core import Symbol
from rotary_batch.repo.resolve.dialect import Dialect, ancestors, parent_of
from rotary_batch.repo.resolve.meanings import FileNames, Folder, Meaning, Module, Source

_ROOTS = ("src", "lib", "python")
_PROJECTS = ("pyproject.toml", "setup.py", "setup.cfg")


class Python(Dialect):
    """Names come from the file and its imports alone."""

    def __init__(self, source: Source, files: Callable[[str], FileNames], languages: frozenset[str]) -> None:
        super().__init__(source, files, languages)
        ours = list(self.paths)
        self._modules = set(ours)
        self._packages = {parent_of(path) for path in ours if path.rpartition("/")[2].startswith("__init__.py")}
        self._folders = {folder for path in {parent_of(path) for path in ours} for folder in (path, *ancestors(path))}
        projects = {parent_of(path) for path in source.manifests if path.rpartition("/")[2] in _PROJECTS} | {""}
        within = {f"{project}/{name}" if project else name for project in projects for name in _ROOTS}
        self._roots = sorted(projects | (within & self._folders))
        # The folder above an outermost package is where its imports start.
        self._above: dict[str, set[str]] = {}
        for package in self._packages:
            above = parent_of(package)
            if above not in self._packages:
                self._above.setdefault(package.rpartition("/")[2], set()).add(above)

    def modules(self, module: str, here: FileNames) -> Iterator[Meaning]:
        """`..a.b` from here, or `a.b` from a source root."""
        if module.startswith("."):
            name = module.lstrip(".")
            folders = ancestors(here.path)
            place = len(module) - len(name) - 1
            if place < len(folders):
                yield from self._below(folders[place], name)
            return
        for root in self._roots_for(module.partition(".")[0], here):
            yield from self._below(root, module)

    def _roots_for(self, top: str, here: FileNames) -> Iterable[str]:
        """Where an absolute import may start: a script's own folder, those around it, the roots of projects."""
        around = [folder for folder in ancestors(here.path) if folder not in self._packages]
        if top in sys.stdlib_module_names:
            return around
        above = self._above.get(top, set())
        return dict.fromkeys([*around, *self._roots, *(above if len(above) == 1 else ())])

    def _below(self, folder: str, module: str) -> Iterator[Meaning]:
        """The module of a dotted name below a folder; "" is the folder itself."""
        path = "/".join(filter(None, [folder, module.replace(".", "/")]))
        found = self._at(path)
        if found is not None:
            yield found

    def _at(self, path: str) -> Meaning | None:
        start = f"{path}/" if path else ""
        for name in (f"{start}__init__.py", f"{path}.py", f"{start}__init__.pyi", f"{path}.pyi"):
            if name in self._modules:
                return Module(name)
        return self.folder(path) if path in self._folders else None

    def submodule(self, space: Meaning, name: str) -> Meaning | None:
        """`a.b` of a package `a`."""
        if isinstance(space, Module) and space.path.rpartition("/")[2].startswith("__init__.py"):
            return next(self._below(parent_of(space.path), name), None)
        return next(self._below(space.path, name), None) if isinstance(space, Folder) else None

    def outside(self, name: str, here: FileNames) -> Symbol | None:
        """Builtins are not of the repository."""
        return None
