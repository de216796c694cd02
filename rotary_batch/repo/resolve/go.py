"""Go: a package is the files of one folder, called by the path of its module and folder."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from rotary_batch.core import Symbol
from rotary_batch.repo.resolve.dialect import Dialect, only, parent_of
from rotary_batch.repo.resolve.meanings import FileNames, Folder, Meaning, Source

_MODULE = re.compile(rb"^module\s+\"?([^\s\"]+)", re.MULTILINE)


class Go(Dialect):
    """All files of a package share their names."""

    def __init__(self, source: Source, files: Callable[[str], FileNames], languages: frozenset[str]) -> None:
        super().__init__(source, files, languages)
        found = {
            parent_of(path): _MODULE.search(data)
            for path, data in source.manifests.items()
            if path.rpartition("/")[2] == "go.mod"
        }
        modules = [(name[1].decode("utf-8", "replace"), folder) for folder, name in found.items() if name]
        self._modules = sorted(modules, key=lambda one: (-len(one[0]), one))
        self._folders = {parent_of(path) for path in self.paths}

    def modules(self, module: str, here: FileNames) -> Iterator[Meaning]:
        """The folder of a package of this repository."""
        for name, folder in self._modules:
            if module == name or module.startswith(f"{name}/"):
                path = "/".join(filter(None, [folder, module[len(name) + 1 :]]))
                if path in self._folders:
                    yield self.folder(path)
                return

    def outside(self, name: str, here: FileNames) -> Symbol | None:
        """A name of the package."""
        return self.in_folder(name, self.folder(parent_of(here.path), here.package))

    def in_folder(self, name: str, folder: Folder) -> Symbol | None:
        """A name of a package; seen from elsewhere, tests are no part of it."""
        found = [symbol for symbol in self.source.named(name, folder.path) if self.is_top(symbol)]
        if folder.package:
            return only(symbol for symbol in found if self.files(symbol.path).package == folder.package)
        return only(symbol for symbol in found if not symbol.path.endswith("_test.go"))

    def member_elsewhere(self, around: Symbol, name: str) -> Symbol | None:
        """A method in another file of the package."""
        folder, package = parent_of(around.path), self.files(around.path).package
        found = self.source.named(name, folder)
        wanted = f"{around.name}.{name}"
        return only(s for s in found if s.qualified_name == wanted and self.files(s.path).package == package)
