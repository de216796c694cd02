"""PHP and C#, whose names are in namespaces, wherever the files are; and what other languages share with them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rotary_batch.core import Symbol
from rotary_batch.repo.resolve.dialect import Dialect, is_type, joined, only, parent_of
from rotary_batch.repo.resolve.meanings import FileNames, Folder, Meaning, Module


class Namespaces(Dialect):
    """A folder with a package is a namespace: what files say to be in it, in any folder.

    That of a path such as `A.B.C` ends with a dot: it has namespaces within, of which nobody knows whether they exist.
    """

    def in_folder(self, name: str, folder: Folder) -> Symbol | None:
        """The one symbol of a name in a namespace."""
        if not folder.package:
            return super().in_folder(name, folder)
        wanted = f"{folder.package.removesuffix('.')}.{name}"
        return only(
            symbol
            for symbol in self.source.named(name, None)
            if self.source.languages.get(symbol.path) in self.languages and self._whole_name(symbol) == wanted
        )

    def _whole_name(self, symbol: Symbol) -> str:
        return ".".join(filter(None, [self.files(symbol.path).package, symbol.qualified_name]))

    def submodule(self, space: Meaning, name: str) -> Meaning | None:
        """The file of what is in a namespace, else a namespace within."""
        if not isinstance(space, Folder) or not space.package:
            return None
        found = self.in_folder(name, space)
        if found is not None:
            return Module(found.path)
        return self.folder("", f"{space.package}{name}.") if space.package.endswith(".") else None


class PhpOrCSharp(Namespaces):
    """Names come from the namespace of the file, and from what it uses."""

    def modules(self, module: str, here: FileNames) -> Iterator[Meaning]:
        """A file, or a namespace, or a type whose members are imported."""
        if module.startswith("./"):
            path = joined(parent_of(here.path), module)
            if path is not None and path in self.source.languages:
                yield Module(path)
            return
        yield self.folder("", module)
        around, _, name = module.rpartition(".")
        found = self.in_folder(name, self.folder("", around)) if around else None
        if found is not None and is_type(found):
            yield found

    def root(self, name: str, here: FileNames, around: str) -> Meaning | None:
        """`A` of `A.B.C`."""
        return self.folder("", f"{name}.")

    def outside(self, name: str, here: FileNames) -> Symbol | None:
        """A name of the namespace; of C# also of those around it."""
        packages = self._packages(here)
        if not packages:
            found = super().outside(name, here)
            return found if found is not None and not self.files(found.path).package else None
        for package in packages:
            found = self.in_folder(name, self.folder("", package))
            if found is not None:
                return found
        return None

    def _packages(self, here: FileNames) -> Sequence[str]:
        """The namespace that all of a file is in, the innermost first."""
        if "php" in self.languages and here.package:
            return [here.package]
        package = here.package
        if not package:
            spaces = [one.qualified_name for one in here.symbols.values() if one.kind == "namespace"]
            package = spaces[0] if len(spaces) == 1 else ""
        parts = package.split(".") if package else []
        return [".".join(parts[:end]) for end in range(len(parts), 0, -1)][: 1 if "php" in self.languages else None]
