"""What names mean within one file: locals shadow, and their values are followed as far as their types are known."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import NamedTuple

from tree_sitter import Node

from rotary_batch.core import CLASS_KINDS, Import, Reference, Symbol, ValueType
from rotary_batch.repo.comments import text_of
from rotary_batch.repo.expressions import MAX_EXPRESSION, expression, receiver_of, type_of
from rotary_batch.repo.languages.language import Language

_MAX_SCOPES = 100  # around a name that are looked through; deeper, nothing is known
_SELF = {"self", "this", "cls", "Self", "super"}
_INNER_NAMES = {
    "identifier",
    "shorthand_property_identifier_pattern",
    "shorthand_field_identifier",
    "field_identifier",
    "property_identifier",
    "private_property_identifier",
    "variable_name",
    "simple_identifier",
    "implicit_parameter",
}
_NOT_NAMES = {"value", "right", "type", "default_value", "key", "path", "return_type", "parameters", "size"}
_MEMBERS = {"attribute", "member_expression"}
_PARAMETERS = {"required_parameter", "optional_parameter"}  # TypeScript's, whose parts are captured too
_MAX_NAMES = 1000  # of one pattern
_NONE = {"none", "null", "nil", "undefined", "null_literal"}
_NO_VALUE = ""  # stands for a value of no type
_FUNCTIONS = {"arrow_function", "function_expression", "function", "generator_function", "class"}


class Binding(NamedTuple):
    """A name that is bound, and what is known of its value."""

    node: Node  # the pattern
    type: Node | None
    value: Node | None
    suffix: str = ""  # of what the value is: a context manager gives the result of a method


class Scoped(NamedTuple):
    """What the uses of names in one file come to."""

    references: tuple[Reference, ...]
    imports: tuple[Import, ...]
    value_types: tuple[ValueType, ...]


class Uses:
    """Collects what a query says of scopes, imports and uses of names."""

    def __init__(self) -> None:
        self._references: list[Node] = []
        self._scopes: list[tuple[Node, bool]] = []
        self._bindings: list[Binding] = []
        self._fields: list[Binding] = []
        self._free: list[Node] = []
        self._imports: list[Node] = []

    def take(self, captures: Mapping[str, Sequence[Node]]) -> bool:
        """Keep one match, if it is about these."""
        if "local" in captures or "local.field" in captures:
            typed, value = (_first(captures, name) for name in ("local.type", "local.value"))
            entered = _first(captures, "local.entered")
            for name, kept in (("local", self._bindings), ("local.field", self._fields)):
                nodes = [node for node in captures.get(name, ()) if node.type not in _PARAMETERS]
                suffix = ".__enter__()" if "local.entered" in captures else ""
                kept += [Binding(node, typed, value or entered, suffix) for node in nodes]
        elif "reference" in captures:
            self._references += captures["reference"]
        elif "local.scope" in captures or "local.class" in captures:
            self._scopes += [(node, False) for node in captures.get("local.scope", ())]
            self._scopes += [(node, True) for node in captures.get("local.class", ())]
        elif "import.statement" in captures:
            self._imports += captures["import.statement"]
        elif "local.free" in captures:
            self._free += captures["local.free"]
        else:
            return False
        return True

    def read(self, root: Node, rules: Language, symbols: Sequence[Symbol], path: str) -> Scoped:
        """What all of them mean together."""
        imports = [one for node in self._imports for one in rules.imports(node)]
        names = Names(root, rules, self._scopes, symbols)
        names.bind(self._bindings, self._fields, self._free)
        names.bind_imports((node.start_byte, one.alias) for node in self._imports for one in rules.imports(node))
        known: set[str] | None = None
        if rules.scoping.is_closed and not any(one.name == "*" for one in imports):
            known = {symbol.name for symbol in symbols} | {one.alias for one in imports} | names.of_file
        return Scoped(
            references=tuple(names.references(self._references, path, known)),
            imports=tuple(dict.fromkeys(Import(path, *one) for one in imports)),
            value_types=tuple(names.value_types(path)),
        )


class _Scope:
    """A function, block, class or file: `names` has, for each name, where it is bound and to which expression."""

    def __init__(self, start: int, end: int, parent: _Scope | None, *, is_class: bool) -> None:
        self.start, self.end, self.parent, self.is_class = start, end, parent, is_class
        self.names: dict[str, list[tuple[int, str | None]]] = {}

    def bind(self, name: str, at: int, value: str | None, *, is_hoisted: bool) -> None:
        """Where binding is hoisted, all values of a name count as one: unknown if they differ."""
        known = self.names.setdefault(name, [])
        if is_hoisted and known:
            known[0] = (known[0][0], _merged(known[0][1], value))
        else:
            known.append((at, value))

    def value(self, name: str, at: int, *, is_hoisted: bool) -> tuple[bool, str | None]:
        """Whether a name is bound here, and what it stands for at a byte."""
        known = self.names.get(name)
        if not known:
            return False, None
        place = 1 if is_hoisted else bisect_right(known, at, key=lambda one: one[0])
        return (True, known[place - 1][1] or None) if place else (False, None)


class Names:
    """The scopes of one file."""

    def __init__(
        self, root: Node, rules: Language, scopes: Sequence[tuple[Node, bool]], symbols: Sequence[Symbol]
    ) -> None:
        self._rules = rules
        self._root = _Scope(root.start_byte, root.end_byte + 1, None, is_class=False)
        self._scopes = [self._root]
        self._symbols = symbols
        self._fields: dict[tuple[str, str], str | None] = {}
        open_scopes = [self._root]
        for node, is_class in sorted(scopes, key=lambda one: (one[0].start_byte, -one[0].end_byte)):
            while open_scopes[-1].end <= node.start_byte and open_scopes[-1] is not self._root:
                open_scopes.pop()
            scope = _Scope(node.start_byte, node.end_byte, open_scopes[-1], is_class=is_class)
            open_scopes.append(scope)
            self._scopes.append(scope)

    @property
    def of_file(self) -> set[str]:
        """The names that are bound outside of functions and classes."""
        return set(self._root.names)

    def bind(self, bindings: Iterable[Binding], fields: Sequence[Binding], free: Iterable[Node]) -> None:
        """Enter names into their scopes, then take out those that `global` and the like say are of an outer one."""
        distinct: dict[int, Binding] = {}
        for one in bindings:
            known = distinct.get(one.node.start_byte)
            if known is None or _knowledge(one) > _knowledge(known):
                distinct[one.node.start_byte] = one
        in_order = sorted(distinct.values(), key=lambda one: one.node.start_byte)
        starts = [one.node.start_byte for one in in_order]
        for one, scope, around in zip(in_order, self._innermost(starts), _around(self._symbols, starts), strict=True):
            self._bind(one, scope, around)
        starts = [one.node.start_byte for one in fields]
        for one, scope, around in zip(fields, self._innermost(starts), _around(self._symbols, starts), strict=True):
            self._put_field(_class_around(around), text_of(one.node), self._value(one, scope, 0, 1))
        outer = sorted(free, key=attrgetter("start_byte"))
        for node, scope in zip(outer, self._innermost([node.start_byte for node in outer]), strict=True):
            scope.names.pop(text_of(node), None)

    def bind_imports(self, imported: Iterable[tuple[int, str]]) -> None:
        """Enter what is imported within functions, where it shadows what the file calls so."""
        in_order = sorted((at, alias) for at, alias in imported if alias)
        for (at, alias), scope in zip(in_order, self._innermost([at for at, _ in in_order]), strict=True):
            if scope is not self._root and not scope.is_class:
                scope.names[alias] = [(at, f"@{alias}")]

    def _bind(self, one: Binding, scope: _Scope, around: Sequence[Symbol]) -> None:
        if one.node.type in _MEMBERS:
            self._bind_field(one, scope, around)
            return
        names = _names_of(one.node, self._rules)
        for place, node in enumerate(names):
            name = text_of(node)
            if one.value is not None and one.value.type in _FUNCTIONS and _declares(around, name, scope):
                continue
            value = self._value(one, scope, place, len(names))
            if scope.is_class:
                self._put_field(_class_around(around), name, value)
            scope.bind(name, node.start_byte, value, is_hoisted=self._rules.scoping.hoists)

    def _bind_field(self, one: Binding, scope: _Scope, around: Sequence[Symbol]) -> None:
        """`self.x = ...` in a method."""
        name = expression(one.node)
        if name is not None and name.startswith(("self.", "cls.")) and name.count(".") == 1:
            self._put_field(_class_around(around), name.partition(".")[2], self._value(one, scope, 0, 1))

    def _put_field(self, owner: str | None, name: str, value: str | None) -> None:
        if owner is not None:
            key = owner, name
            self._fields[key] = _merged(self._fields[key], value) if key in self._fields else value

    def _value(self, one: Binding, scope: _Scope, place: int, count: int) -> str | None:
        if one.type is not None and (declared := type_of(one.type)) is not None:
            return declared if count == 1 or one.node.type in {"identifier", "field_identifier"} else None
        if (
            one.type is not None
            and text_of(one.type) not in {"auto", "var"}
            and one.type.type != "placeholder_type_specifier"
        ):
            return None
        value = one.value
        if value is not None and value.type in _NONE:
            return _NO_VALUE
        if value is not None and value.type in {"expression_list", "tuple"} and value.named_child_count > 1:
            value = value.named_children[place] if value.named_child_count == count else None
        elif count > 1 and (place > 0 or not self._rules.scoping.first_result_counts):
            value = None
        text = expression(value)
        return None if text is None else self._substituted(text + one.suffix, scope, one.node.start_byte)

    def _substituted(self, text: str, scope: _Scope | None, at: int) -> str | None:
        """An expression with its first name replaced by what a local of that name stands for; None when unknown."""
        first, dot, rest = text.partition(".")
        name = first.rstrip("(){}")
        if first.endswith("{}") or name in _SELF:
            return text
        is_local, value = self.local(name, scope, at)
        if not is_local:
            return text
        longer = None if value is None else value + first[len(name) :] + dot + rest
        return longer if longer is not None and len(longer) <= MAX_EXPRESSION else None

    def local(self, name: str, scope: _Scope | None, at: int) -> tuple[bool, str | None]:
        """Whether a name is local at a place, not of the file or from elsewhere; and what it stands for."""
        for _ in range(_MAX_SCOPES):
            if scope is None or scope is self._root:
                return False, None
            if not scope.is_class:
                is_bound, value = scope.value(name, at, is_hoisted=self._rules.scoping.hoists)
                if is_bound:
                    return True, value
            scope = scope.parent
        return True, None

    def _innermost(self, starts: Sequence[int]) -> Iterator[_Scope]:
        """The innermost scope around each of some bytes, in their order."""
        waiting, scope = iter(self._scopes[1:]), self._root
        following = next(waiting, None)
        for start in starts:
            while following is not None and following.start <= start:
                scope, following = following, next(waiting, None)
            while scope.end <= start and scope.parent is not None:
                scope = scope.parent
            yield scope

    def references(self, names: Sequence[Node], path: str, known: set[str] | None) -> Iterator[Reference]:
        """Uses of names that may mean something of the repository, each with what is before its dot.

        `known` has the names of the file, where no others can come from elsewhere.  Uses outside of all symbols are
        left out: nobody is their caller.
        """
        in_order = sorted(names, key=attrgetter("start_byte"))
        starts = [node.start_byte for node in in_order]
        for node, scope, around in zip(in_order, self._innermost(starts), _around(self._symbols, starts), strict=True):
            if not around or node.end_byte - node.start_byte > MAX_EXPRESSION:
                continue
            meant = self._meant(node, scope, around[-1])
            if meant is None:
                continue
            receiver, name = meant
            root = name if receiver is None or receiver == "@" else receiver.partition(".")[0].strip("@(){}")
            if known is None or root in known or root in _SELF:
                yield Reference(
                    path=path,
                    name=name,
                    line=node.start_point.row + 1,
                    start_byte=node.start_byte,
                    caller=around[-1].id,
                    receiver=receiver,
                )

    def _meant(self, node: Node, scope: _Scope, around: Symbol) -> tuple[str | None, str] | None:
        """What is before a name's dot, and the name; None when nothing is known of it.

        A local that is another name for something means that: `put` of `put = self.queue.put`.
        """
        is_member, receiver = receiver_of(node, self._rules.dotted)
        name = text_of(node)
        if is_member:
            receiver = None if receiver is None else self._substituted(receiver, scope, node.start_byte)
            return None if receiver is None else (receiver, name)
        if self._rules.scoping.separate_functions or (name == "cls" and _is_class_method(around)):
            return None, name
        is_local, value = self.local(name, scope, node.start_byte)
        if not is_local:
            return None, name
        if value is None or value.endswith((")", "}")):
            return None
        before, _, last = value.rpartition(".")
        return ("@", last[1:]) if last.startswith("@") else (before or None, last)

    def value_types(self, path: str) -> Iterator[ValueType]:
        """What is known of fields, and of the variables of the file."""
        for (owner, name), value in self._fields.items():
            if value:
                yield ValueType(path, owner, name, value)
        for name, known in self._root.names.items():
            value = known[0][1] if len(known) == 1 else None
            if value:
                yield ValueType(path, "", name, value)


def result_type(node: Node, qualified_name: str, rules: Language, path: str) -> list[ValueType]:
    """What is declared of the result of a function."""
    typed = node.child_by_field_name(rules.result) or _of_function_value(node)
    value = type_of(typed) if typed is not None else None
    return [ValueType(path, qualified_name, "()", value)] if value else []


def _of_function_value(node: Node) -> Node | None:
    """The type of the result of `const f = (): T => ...`."""
    value = node.child_by_field_name("value")
    return value.child_by_field_name("return_type") if value is not None and value.type in _FUNCTIONS else None


def _merged(one: str | None, other: str | None) -> str | None:
    """What is known of a name that has two values: None, or nothing, says nothing of its type."""
    return one if other == _NO_VALUE or one == other else other if one == _NO_VALUE else None


def _first(captures: Mapping[str, Sequence[Node]], name: str) -> Node | None:
    return captures[name][0] if name in captures else None


def _knowledge(one: Binding) -> int:
    return 2 * (one.type is not None) + (one.value is not None)


def _names_of(pattern: Node, rules: Language) -> list[Node]:
    """The names that a pattern binds, in order; declared functions of C and C++ bind none."""
    names: list[Node] = []
    waiting = [pattern]
    while waiting and len(names) < _MAX_NAMES:
        node = waiting.pop()
        if node.type in _INNER_NAMES:
            if not rules.scoping.capital_is_constant or not text_of(node)[:1].isupper():
                names.append(node)
        elif node.type == "function_declarator":
            inner = node.child_by_field_name("declarator")
            if inner is not None and inner.type == "parenthesized_declarator":
                waiting.append(inner)
        elif node.type not in _MEMBERS | {"subscript", "subscript_expression", "call", "call_expression"}:
            inside = [
                child
                for place, child in enumerate(node.children)
                if child.is_named and node.field_name_for_child(place) not in _NOT_NAMES
            ]
            waiting += reversed(inside)
    return names


def _around(symbols: Sequence[Symbol], starts: Sequence[int]) -> Iterator[Sequence[Symbol]]:
    """The symbols around each of some bytes, in their order, the innermost last.  The list is reused."""
    waiting, around = list(reversed(symbols)), list[Symbol]()
    for start in starts:
        while waiting and waiting[-1].start_byte <= start:
            around.append(waiting.pop())
            while len(around) > 1 and around[-2].end_byte <= around[-1].start_byte:
                del around[-2]
        while around and around[-1].end_byte <= start:
            around.pop()
        yield around


def _class_around(around: Sequence[Symbol]) -> str | None:
    """The qualified name of the innermost type around a place."""
    for symbol in reversed(around):
        if symbol.kind in CLASS_KINDS:
            return symbol.qualified_name
        if symbol.kind in {"method", "constructor", "property"}:
            return symbol.qualified_name.rpartition(".")[0] or None
    return None


def _is_class_method(symbol: Symbol) -> bool:
    return symbol.name == "__new__" or any("classmethod" in decorator for decorator in symbol.decorators)


def _declares(around: Sequence[Symbol], name: str, scope: _Scope) -> bool:
    """Whether the innermost symbol around a name is what that name declares."""
    return bool(around) and around[-1].name == name and around[-1].start_byte >= scope.start
