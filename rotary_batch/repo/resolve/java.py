"""Java, Kotlin and Scala: names by package, which may be spread over several source folders."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator

from rotary_batch.core import Symbol
from rotary_batch.repo.resolve.dialect import only, parent_of
from rotary_batch.repo.resolve.meanings import FileNames, Meaning, Module, Source
from rotary_batch.repo.resolve.namespaces import Namespaces

_MAX_FOLDERS = 16  # of one package


class Java(Namespaces):
    """The classes of a package see each other."""

    def __init__(self, source: Source, files: Callable[[str], FileNames], languages: frozenset[str]) -> None:
        super().__init__(source, files, languages)
        self._folders: dict[str, list[str]] = defaultdict(list)  # by their last name
        for folder in sorted({parent_of(path) for path in self.paths}):
            self._folders[folder.rpartition("/")[2]].append(folder)

    def modules(self, module: str, here: FileNames) -> Iterator[Meaning]:
        """The folders of a package, or the file of a class; a package whose folders are not called so is one too."""
        folders = self._package(module, here)
        for folder in folders:
            yield self.folder(folder)
        if not folders:
            yield self.folder("", module)
        package, _, name = module.rpartition(".")
        for folder in self._package(package, here):
            path = f"{folder}/{name}.java" if folder else f"{name}.java"
            if path in self.source.languages:
                yield Module(path)

    def _package(self, package: str, here: FileNames) -> list[str]:
        """Folders whose path ends with a package's; of several, those nearest to here first."""
        path = package.replace(".", "/")
        if not path:
            return [parent_of(here.path)]
        ends = [f for f in self._folders.get(path.rpartition("/")[2], ()) if f == path or f.endswith(f"/{path}")]
        return sorted(ends, key=lambda folder: (-_shared(folder, here.path), folder))[:_MAX_FOLDERS]

    def outside(self, name: str, here: FileNames) -> Symbol | None:
        """A class of the package."""
        for folder in self._package(here.package, here):
            found = only(s for s in self.source.named(name, folder) if self.is_top(s))
            if found is not None:
                return found
        is_elsewhere = here.package and not self._package(here.package, here)
        return self.in_folder(name, self.folder("", here.package)) if is_elsewhere else None

    def submodule(self, space: Meaning, name: str) -> Meaning | None:
        """The file of a class is the class."""
        if isinstance(space, Module):
            own = self.files(space.path).symbols
            stem = space.path.rpartition("/")[2].removesuffix(".java")
            return own.get(f"{stem}.{name}")
        return super().submodule(space, name)


def _shared(one: str, other: str) -> int:
    """How many characters two paths have in common at their start."""
    size = min(len(one), len(other))
    return next((place for place in range(size) if one[place] != other[place]), size)
