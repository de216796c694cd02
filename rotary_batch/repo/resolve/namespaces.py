"""PHP and C#, whose names are in namespaces, wherever the files are; and what other languages share with them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rotary_batch.core import Symbol, is_part
from rotary_batch.repo.resolve.dialect import Dialect, is_type, joined, only, parent_of
from rotary_batch.repo.resolve.meanings import FileNames, Folder, Meaning, Module

_MAX_PARTS = 50  # of one type


def _is_part(symbol: Symbol) -> bool:
    return is_part(symbol.kind, symbol.signature)


def _place(symbol: Symbol) -> tuple[str, int]:
    return symbol.path, symbol.start_byte


class Namespaces(Dialect):
    """A folder with a package is a namespace: what files say to be in it, in any folder.

    That of a path such as `A.B.C` ends with a dot: it has namespaces within, of which nobody knows whether they exist.
    The one at the top is a dot.
    """

    def in_folder(self, name: str, folder: Folder) -> Symbol | None:
        """The one symbol of a name in a namespace."""
        if not folder.package:
            return super().in_folder(name, folder)
        wanted = f"{folder.package.removesuffix('.')}.{name}".removeprefix(".")
        found = [one for one in self.source.named(name, None) if self.is_top(one) and self._whole_name(one) == wanted]
        return min(found, key=_place) if found and all(map(_is_part, found)) else only(found)

    def parts(self, one: Symbol) -> Sequence[Symbol]:
        """The other parts of a `partial` type, in any file."""
        if not _is_part(one):
            return ()
        whole, languages = self._whole_name(one), self.source.languages
        same = [other for other in self.source.named(one.name, None) if _is_part(other) and other.id != one.id]
        same = [other for other in same if languages.get(other.path) in self.languages]
        return sorted((other for other in same if self._whole_name(other) == whole), key=_place)[:_MAX_PARTS]

    def _whole_name(self, symbol: Symbol) -> str:
        return ".".join(filter(None, [self.files(symbol.path).package, symbol.qualified_name]))

    def submodule(self, space: Meaning, name: str) -> Meaning | None:
        """The file of what is in a namespace, else a namespace within."""
        if not isinstance(space, Folder) or not space.package:
            return None
        found = self.in_folder(name, space)
        if found is not None:
            return Module(found.path)
        return self.folder("", f"{space.package}{name}.".lstrip(".")) if space.package.endswith(".") else None


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
        """`A` of `A.B.C`; of PHP, as `repo.expressions` writes it, the top or a namespace as the file calls it."""
        if "php" not in self.languages:
            return self.folder("", f"{name}.")
        if not name.startswith("\\"):
            return None
        return self.folder("", ".".join([*self._called(name[1:], here, around), ""]) if name != "\\" else ".")

    def _called(self, name: str, here: FileNames, around: str) -> list[str]:
        """The namespaces that `A` of PHP's `A\\B` stands for: what the file uses as `A`, else `A` within its own."""
        for one in here.imports.get(name, ()):
            return [one.module, *filter(None, [one.name])]
        own = here.package
        while around and not own:
            known = here.symbols.get(around)
            own = around if known is not None and known.kind == "namespace" else ""
            around = around.rpartition(".")[0]
        return list(filter(None, [own, name.removeprefix("namespace")]))

    def outside(self, name: str, here: FileNames) -> Symbol | None:
        """A name of the namespace; of C# also of those around it, of PHP also a function at the top."""
        packages = self._packages(here)
        if not packages:
            found = super().outside(name, here)
            return found if found is not None and not self.files(found.path).package else None
        for package in packages:
            found = self.in_folder(name, self.folder("", package))
            if found is not None:
                return found
        found = self.in_folder(name, self.folder("", ".")) if "php" in self.languages else None
        return found if found is not None and found.kind == "function" else None

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
