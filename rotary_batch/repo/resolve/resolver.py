"""Resolve references: a name links only where scope says so.

Precision comes before recall.  A bare name is, in this order, of the functions around it, of the types around it where
the language says so, of the file, of its imports, of its package.  Behind a dot, what is before is evaluated as far as
types are known.  What is not known links to nothing.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator
from functools import lru_cache

from rotary_batch.core import Import, Inheritance, Reference, Symbol, SymbolId
from rotary_batch.repo.expressions import type_expression
from rotary_batch.repo.resolve.cfamily import CFamily
from rotary_batch.repo.resolve.dialect import CALLABLE_KINDS, SPACE_KINDS, Dialect, is_type
from rotary_batch.repo.resolve.ecmascript import EcmaScript
from rotary_batch.repo.resolve.go import Go
from rotary_batch.repo.resolve.java import Java
from rotary_batch.repo.resolve.loaded import Lua, Ruby, Swift
from rotary_batch.repo.resolve.meanings import FileNames, Files, Folder, Instance, Meaning, Module, Source
from rotary_batch.repo.resolve.namespaces import PhpOrCSharp
from rotary_batch.repo.resolve.python import Python
from rotary_batch.repo.resolve.rust import Rust

MAX_ANCESTORS = 64  # types looked through for one member; a chain of 100,000 would be walked for every reference
_MAX_DEPTH = 6  # of values that depend on other values, and of exports of exports
_MAX_STARS = 50  # modules imported as a whole that are looked through for one name
_SELF = {"self", "cls", "this", "Self"}
_TYPEDEF = re.compile(r"typedef\s+(?:const\s+)?(?:(?:struct|class|union|enum)\s+)?([\w:]+)[\s*]+\w+\s*;?")
_DIALECTS: tuple[tuple[type[Dialect], frozenset[str]], ...] = (
    (Python, frozenset({"python", "notebook"})),
    (EcmaScript, frozenset({"javascript", "typescript", "tsx", "vue", "svelte"})),
    (Go, frozenset({"go"})),
    (Rust, frozenset({"rust"})),
    (Java, frozenset({"java", "kotlin", "scala"})),
    (CFamily, frozenset({"c", "cpp"})),
    (PhpOrCSharp, frozenset({"php"})),
    (PhpOrCSharp, frozenset({"c_sharp"})),
    (Ruby, frozenset({"ruby"})),
    (Lua, frozenset({"lua"})),
    (Swift, frozenset({"swift"})),
)


class Resolver:
    """What names mean in one repository.  What it knows of files is read when asked for, and some of it kept."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._files = Files(source)
        self._dialects: dict[str, Dialect] = {}  # by language
        self._ancestors_at = lru_cache(10_000)(self._ancestors_of)
        self._level = 0  # how many types are asked for their ancestors now, each because of the one before
        self._star_spaces = lru_cache(10_000)(self._star_spaces_of)

    @property
    def paths(self) -> Iterable[str]:
        """Of all source files."""
        return self._source.languages

    def target(self, reference: Reference) -> Symbol | None:
        """The symbol that a reference means, if there is exactly one."""
        here = self._files[reference.path]
        around = here.names.get(reference.caller.start_byte, "") if reference.caller else ""
        if reference.receiver is None and reference.name in _SELF:
            found: Meaning | None = self._around(here, around, 0)
        elif reference.receiver is None:
            found = self._named(reference.name, here, around, 0)
        elif reference.receiver == "@":
            found = self._imported_name(reference.name, here, 0)
        else:
            before = self._value(reference.receiver, here, around, 0)
            found = None if before is None else self._member(before, reference.name, 0)
        return found if isinstance(found, Symbol) else None

    def bases(self, path: str) -> Iterator[Inheritance]:
        """What the types of a file extend and implement, in its order, as far as it is in the repository."""
        for symbol in self._files[path].symbols.values():
            if is_type(symbol):
                for base in self._types(symbol, symbol.bases):
                    yield Inheritance(symbol.id, base.id)

    def imported(self, one: Import) -> str | None:
        """The file that an import is about, or the folder, whose path ends with a slash."""
        if not one.module or not (one.name or one.alias):
            return None
        for space in self._spaces(one, self._files[one.path]):
            if isinstance(space, Module):
                inner = self._dialect(one.path).submodule(space, one.name) if one.name else None
                return inner.path if isinstance(inner, Module) else space.path
            if isinstance(space, Folder):
                inner = self._dialect(one.path).submodule(space, one.name) if one.name else None
                if isinstance(inner, Module) or space.path or not space.package:
                    return inner.path if isinstance(inner, Module) else f"{space.path}/"
        return None

    def _dialect(self, path: str) -> Dialect:
        return self._dialect_of(self._source.languages.get(path, ""))

    def _dialect_of(self, language: str) -> Dialect:
        if language not in self._dialects:
            kind, languages = next((one for one in _DIALECTS if language in one[1]), (Dialect, frozenset({language})))
            self._dialects |= dict.fromkeys(languages, kind(self._source, self._files.__getitem__, languages))
        return self._dialects[language]

    def _named(self, name: str, here: FileNames, around: str, depth: int) -> Meaning | None:
        """What a bare name means within the symbol of a qualified name."""
        rules = self._dialect(here.path)
        outer = around
        while outer:
            kind = here.symbols[outer].kind if outer in here.symbols else ""
            if kind in CALLABLE_KINDS or kind in SPACE_KINDS or (rules.members_by_name and kind not in {"", "type"}):
                found = here.symbols.get(f"{outer}.{name}")
                if found is not None:
                    return found
            if rules.members_by_name and (kind == "" or kind not in CALLABLE_KINDS):
                of_type = self._type_named(outer, here, depth)
                inherited = self._member(of_type, name, depth) if of_type else None
                if inherited is not None:
                    return inherited
            outer = outer.rpartition(".")[0]
        top = self._own(name, here)
        if top is not None and top.kind != "declaration":
            return top
        found_import = self._imported_name(name, here, depth)
        if found_import is not None or name in here.imports:
            return found_import
        if ("", name) in here.values:
            return self._value(here.values["", name], here, "", depth + 1)
        starred = self._starred(name, here, depth)
        return starred or rules.outside(name, here) or top

    def _own(self, name: str, here: FileNames) -> Symbol | None:
        """What a file defines at its top; a variable that holds what an import binds is that."""
        own = here.symbols.get(name)
        is_definition = own is not None and (is_type(own) or own.kind in CALLABLE_KINDS)
        return own if is_definition or name not in here.imports else None

    def _type_named(self, qualified_name: str, here: FileNames, depth: int) -> Symbol | None:
        """The type that a qualified name means in a file, also when another file defines it."""
        own = here.symbols.get(qualified_name)
        if own is not None:
            return own if is_type(own) else None
        if depth > _MAX_DEPTH:
            return None
        found = self._path(qualified_name.split("."), here, "", depth + 1)
        return found if isinstance(found, Symbol) and is_type(found) else None

    def _path(self, names: list[str], here: FileNames, around: str, depth: int) -> Meaning | None:
        return self._value(".".join(names), here, around, depth)

    def _imported_name(self, name: str, here: FileNames, depth: int) -> Meaning | None:
        for one in here.imports.get(name, ()):
            found = self._follow(one, here, depth + 1)
            if found is not None:
                return found
        return None

    def _follow(self, one: Import, here: FileNames, depth: int) -> Meaning | None:
        """What an import binds."""
        if depth > _MAX_DEPTH:
            return None
        if not one.module:  # another name for something of this file
            return self._path((one.name or "").split("."), here, "", depth + 1)
        for space in self._spaces(one, here):
            found = space if one.name is None else self._member(space, one.name, depth + 1)
            if found is not None:
                return found
        return None

    def _spaces(self, one: Import, here: FileNames) -> Iterable[Meaning]:
        return self._dialect(here.path).modules(one.module, here)

    def _starred(self, name: str, here: FileNames, depth: int) -> Meaning | None:
        """A name from what is imported as a whole."""
        if depth > _MAX_DEPTH or isinstance(self._dialect(here.path), CFamily):
            return None
        for space in self._star_spaces(here.path):
            if isinstance(space, Module):
                found = self._in_module(space, name, depth + 1)
            else:
                found = self._member(space, name, depth + 1)
            if found is not None:
                return found
        return None

    def _star_spaces_of(self, path: str) -> tuple[Meaning, ...]:
        """What a file imports as a whole, and what that imports as a whole: each once, the nearest first."""
        spaces: dict[Meaning, None] = {}
        waiting = self._own_star_spaces(path)
        while waiting and len(spaces) < _MAX_STARS:
            space = waiting.pop()
            if space in spaces or space == Module(path):
                continue
            spaces[space] = None
            if isinstance(space, Module):
                waiting += self._own_star_spaces(space.path)
        return tuple(spaces)

    def _own_star_spaces(self, path: str) -> list[Meaning]:
        """The last first, to be popped."""
        here = self._files[path]
        return [space for star in here.stars[:_MAX_STARS] for space in self._spaces(star, here)][::-1]

    def _value(self, text: str, here: FileNames, around: str, depth: int) -> Meaning | None:
        """Evaluate an expression in the notation of `repo.expressions`."""
        if depth > _MAX_DEPTH:
            return None
        first, *rest = text.split(".")
        found = self._first(first, here, around, depth)
        for part in rest:
            found = self._settled(found, depth) if found is not None else None
            if found is None:
                return None
            name = part.rstrip("(){}")
            found = self._applied(self._member(found, name, depth), part[len(name) :], depth)
        return self._settled(found, depth) if found is not None else None

    def _first(self, part: str, here: FileNames, around: str, depth: int) -> Meaning | None:
        name = part.rstrip("(){}")
        rules = self._dialect(here.path)
        found: Meaning | None
        if name == "super" and isinstance(rules, Rust):
            found = rules.parent(here)
        elif name.startswith("@"):
            found = self._imported_name(name[1:], here, depth)
        elif name.startswith("\\"):
            found = rules.root(name, here, around)
        elif name in _SELF or name == "super":
            found = self._self(name, here, around, depth)
        else:
            found = self._named(name, here, around, depth) or rules.root(name, here, around)
        return self._applied(found, part[len(name) :], depth)

    def _self(self, name: str, here: FileNames, around: str, depth: int) -> Meaning | None:
        """The instance around a place; for `super`, as its first base has it."""
        if name == "self" and isinstance(self._dialect(here.path), Rust) and not self._around(here, around, depth):
            return Module(here.path)
        own = self._around(here, around, depth)
        if own is None or name != "super":
            return Instance(own) if own else None
        bases = self._bases_of(own)
        return Instance(bases[0]) if bases else None

    def _around(self, here: FileNames, around: str, depth: int) -> Symbol | None:
        """The innermost type around a place."""
        outer = around
        while outer:
            known = here.symbols.get(outer)
            if known is None or known.kind not in CALLABLE_KINDS:
                own = self._type_named(outer, here, depth)
                if own is not None:
                    return own
            outer = outer.rpartition(".")[0]
        return None

    def _applied(self, found: Meaning | None, suffix: str, depth: int) -> Meaning | None:
        """What a call gives, or a value of a type is."""
        while found is not None and suffix:
            if suffix.startswith("{}"):
                found = Instance(found) if isinstance(found, Symbol) and is_type(found) else None
            else:
                found = self._result(found, depth)
            suffix = suffix[2:]
        return found

    def _result(self, found: Meaning, depth: int) -> Meaning | None:
        if not isinstance(found, Symbol):
            return None
        if is_type(found):
            return Instance(found)
        return self._value_of(found, (found.qualified_name, "()"), found.qualified_name, depth)

    def _value_of(self, symbol: Symbol, key: tuple[str, str], around: str, depth: int) -> Meaning | None:
        """What is known of a value, evaluated in the file that says so."""
        there = self._files[symbol.path]
        text = there.values.get(key)
        return None if text is None else self._value(text, there, around, depth + 1)

    def _settled(self, found: Meaning, depth: int) -> Meaning | None:
        """What a variable, a field or a property holds."""
        if not isinstance(found, Symbol) or is_type(found) or found.kind in SPACE_KINDS:
            return found
        owner, _, name = found.qualified_name.rpartition(".")
        if found.kind == "property":
            return self._result(found, depth)
        if found.kind in CALLABLE_KINDS:
            return found
        return self._value_of(found, (owner, name), owner, depth)

    def _member(self, space: Meaning, name: str, depth: int) -> Meaning | None:
        """What a name means behind a dot."""
        if isinstance(space, Module):
            return self._exported(space, name, depth)
        if isinstance(space, Folder):
            rules = self._dialect_of(space.language)
            return rules.in_folder(name, space) or rules.submodule(space, name)
        if isinstance(space, Symbol) and not is_type(space):
            own = self._files[space.path].symbols.get(f"{space.qualified_name}.{name}")
            rules = self._dialect(space.path)
            return rules.member_elsewhere(space, name) if own is None and rules.has_mixins else own
        one = space.type if isinstance(space, Instance) else space
        for type_ in (one, *self._ancestors(one.id)):
            found = self._own_member(type_, name, depth)
            if found is not None:
                return found
        return None

    def _own_member(self, one: Symbol, name: str, depth: int) -> Meaning | None:
        there = self._files[one.path]
        found = there.symbols.get(f"{one.qualified_name}.{name}")
        if found is None and one.qualified_name != one.name:
            found = there.symbols.get(f"{one.name}.{name}")  # an `impl` gives only the last name
        if found is None or found.kind == "declaration":
            found = self._dialect(one.path).member_elsewhere(one, name) or found
        if found is None and (one.qualified_name, name) in there.values:
            return self._value(there.values[one.qualified_name, name], there, one.qualified_name, depth + 1)
        return found

    def _exported(self, module: Module, name: str, depth: int) -> Meaning | None:
        """A name of a module: its own, or one of what it imports as a whole."""
        found = self._in_module(module, name, depth)
        if found is None and name != "default":
            found = self._starred(name, self._files[module.path], depth)
        return found

    def _in_module(self, module: Module, name: str, depth: int) -> Meaning | None:
        """What a module defines or imports by name; or a module within."""
        if depth > _MAX_DEPTH:
            return None
        there = self._files[module.path]
        is_renamed = any(not one.module for one in there.imports.get(name, ()))  # as by `export { a as b }`
        own = self._own(name, there)
        if own is not None and not is_renamed:
            return own
        found = self._imported_name(name, there, depth)
        if found is None and ("", name) in there.values:
            found = self._value(there.values["", name], there, "", depth + 1)
        if found is None and name != "default":
            found = self._dialect(module.path).submodule(module, name)
            if found is None and "default" in there.imports:  # CommonJS: what `module.exports` is, has the members
                whole = self._imported_name("default", there, depth)
                found = self._member(whole, name, depth + 1) if whole and depth < _MAX_DEPTH else None
        return found

    def _ancestors(self, one: SymbolId) -> tuple[Symbol, ...]:
        """The types that one inherits from, the nearest first.

        `class A(B.C)` asks B for its ancestors.  Such chains may be endless, as in `class A(A.B)`, so they are cut.
        Answers are kept for each level, or else they would depend on what was asked before.
        """
        return self._ancestors_at(one, self._level) if self._level <= _MAX_DEPTH else ()

    def _ancestors_of(self, one: SymbolId, level: int) -> tuple[Symbol, ...]:
        start = self._symbol(one)
        if start is None:
            return ()
        self._level = level + 1
        try:
            return self._all_ancestors(start)
        finally:
            self._level = level

    def _all_ancestors(self, start: Symbol) -> tuple[Symbol, ...]:
        known, waiting = {start.id: start}, deque([start])
        while waiting and len(known) < MAX_ANCESTORS:
            one = waiting.popleft()
            for base in (*self._dialect(one.path).parts(one), *self._bases_of(one)):
                if base.id not in known:
                    known[base.id] = base
                    waiting.append(base)
        return tuple(known.values())[1:]

    def _symbol(self, one: SymbolId) -> Symbol | None:
        here = self._files[one.path]
        return here.symbols.get(here.names.get(one.start_byte, ""))

    def _bases_of(self, one: Symbol) -> tuple[Symbol, ...]:
        """The types whose members a type has: its bases, or the one that an alias stands for."""
        return self._types(one, one.bases or _aliased(one))

    def _types(self, one: Symbol, expressions: Iterable[str]) -> tuple[Symbol, ...]:
        """The types that expressions in a type mean."""
        here = self._files[one.path]
        outer = one.qualified_name.rpartition(".")[0]
        found = []
        for written in expressions:
            text = type_expression(written)
            base = self._value(text.removesuffix("{}"), here, outer, 1) if text else None
            is_mixin = isinstance(base, Symbol) and base.kind in SPACE_KINDS and self._dialect(one.path).has_mixins
            if isinstance(base, Symbol) and (is_type(base) or is_mixin) and base.id != one.id:
                found.append(base)
        return tuple(dict.fromkeys(found))


def _aliased(symbol: Symbol) -> tuple[str, ...]:
    """The type that an alias stands for: `B` of `type A = B` and of `typedef B A`."""
    if symbol.kind != "type":
        return ()
    if typedef := _TYPEDEF.fullmatch(symbol.signature):
        return (typedef[1],)
    _, equals, value = symbol.signature.partition("=")
    return (value.strip(),) if equals else ()
