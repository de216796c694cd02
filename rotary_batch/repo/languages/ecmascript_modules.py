"""What JavaScript and TypeScript files export and assign: `exports.x =`, `Foo.prototype.x =`, `export { a as b }`."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tree_sitter import Node

from rotary_batch.repo.comments import text_of
from rotary_batch.repo.languages.ecmascript_nodes import (
    FUNCTIONS,
    chain,
    member_name,
    outermost,
    path_of,
    property_name,
    signature_end,
    unwrapped,
)
from rotary_batch.repo.languages.ecmascript_values import (
    arguments_of,
    called_name,
    export,
    holding,
    kind_of,
    members_of,
    prefixed,
    value_of,
)
from rotary_batch.repo.languages.language import Definition

DEFAULT = "default"  # the name of an anonymous `export default`
WHOLE = "module.exports"  # the name of an anonymous `module.exports =`
EXPORTS = (["exports"], ["module", "exports"])
_GLOBALS = {"window", "globalThis"}
_COPIES = {"assign", "extend"}  # functions that give the members of one object to another
_NOTHING = {b"undefined", b"void 0"}  # as compilers begin: `exports.a = void 0`
_MAX_CLIMB = 30  # nodes from a statement to the function that it is in


def assigned(match: Definition) -> Iterator[Definition]:
    """`exports.x =`, `Foo.prototype.x =`, `a.b = function`, each alone or in a row."""
    around = match.node.parent
    if around is None or around.type in {"assignment_expression", "variable_declarator"}:
        return
    lefts, value = chain(match.node)
    if value is None or (value.type in {"undefined", "unary_expression"} and value.text in _NOTHING):
        return
    outer = around if around.type == "expression_statement" else match.node
    is_top = around.parent is not None and around.parent.type == "program"
    for place, left in enumerate(lefts):
        path = path_of(left)
        for item in _assignment(path, outer, match.node, value, is_top=is_top):
            if not place:
                yield item
            elif item.outer == outer and path not in EXPORTS:
                yield item._replace(outer=left, node=left)  # a range of its own, so that it is not in the one before


def _assignment(path: list[str], outer: Node, node: Node, value: Node, *, is_top: bool) -> Iterator[Definition]:
    if path in EXPORTS:
        return _all_exported(outer, node, value)
    if path[:1] == ["exports"] or path[:2] == ["module", "exports"]:
        return _named(path[path.index("exports") + 1 :], outer, node, value, is_export=True)
    if path[:1] == ["this"]:
        return _own(path[1:], outer, node, value)
    if path[:1] == ["self"] or not path or not (is_top or kind_of(value, "") or path[-1] == "prototype"):
        return iter(())
    is_global = path[0] in _GLOBALS and len(path) > 1
    return _named(path[is_global:], outer, node, value, is_export=is_global)


def _named(names: list[str], outer: Node, node: Node, value: Node, *, is_export: bool) -> Iterator[Definition]:
    """The value of `a.b.c =`, a part of what is called `a.b` if there is such a symbol."""
    if names[-1] == "prototype" and value.type == "object":  # Foo.prototype = { … }
        yield from prefixed(".".join(names[:-1]), members_of(value))
        return
    name = ".".join([*names[:1], *(part for part in names[1:] if part != "prototype")])
    if len(names) > 1:
        for item in holding(name, outer, node, node, value, "field"):
            yield item._replace(kind="method") if item.kind == "function" else item
    elif is_export:
        yield export(outer, name, text_of(value) if value.type == "identifier" else None)
        yield from holding(name, outer, node, node, value, "variable")
    elif value.type in FUNCTIONS | {"class"}:  # `var f; f = function () {}`
        yield from holding(name, outer, node, node, value, "variable")


def _own(names: list[str], outer: Node, node: Node, value: Node) -> Iterator[Definition]:
    """`this.x = function () {}`: a field is one of the class around it, a method one of the function around it."""
    if len(names) == 1 and value.type in FUNCTIONS:
        kind = "field" if _is_in_class(node) else "method"
        yield Definition(outer, value, kind, names[0], span=(node, signature_end(node, value)))


def _is_in_class(node: Node) -> bool:
    """Whether `this` is an object of a class."""
    around = node.parent
    for _ in range(_MAX_CLIMB):
        if around is None or around.type in {"function_declaration", "function_expression", "method_definition"}:
            break
        around = around.parent
    return around is not None and around.type == "method_definition"


def _all_exported(outer: Node, node: Node, value: Node) -> Iterator[Definition]:
    """`module.exports = …`"""
    if value.type == "identifier":
        yield export(outer, WHOLE, text_of(value))
    elif value.type == "object":
        yield from _exported_object(value)
    else:
        own = value.child_by_field_name("name") if value.type in FUNCTIONS | {"class"} else None
        name = WHOLE if own is None else text_of(own)
        yield export(outer, name)
        yield from holding(name, outer, node, node, value, "variable")


def _exported_object(value: Node) -> Iterator[Definition]:
    """`module.exports = { a, b: c, d() {}, e: function () {}, f: 1 }`"""
    for child in value.named_children:
        if child.type == "shorthand_property_identifier":
            yield export(child, text_of(child), text_of(child))
            yield Definition(child, child, "variable", text_of(child), span=(child, child.end_byte))
        name, inner = member_name(child), unwrapped(value_of(child))
        if child.type == "pair" and name and inner is not None:
            yield export(child, name, text_of(inner) if inner.type == "identifier" else None)
            yield from holding(name, child, child, child, inner, "variable")
        elif child.type == "method_definition" and name:
            yield export(child, name)
            yield Definition(child, child, "function", name, span=(child, signature_end(child, None)))


def exported(match: Definition) -> Iterator[Definition]:
    """`export { a as b }`, `export … from`, `export default …` and `export = a`."""
    node = match.node
    value = unwrapped(node.child_by_field_name("value"))
    if value is not None and value.type != "identifier":
        own = value.child_by_field_name("name") if value.type in FUNCTIONS | {"class"} else None
        name = DEFAULT if own is None else text_of(own)
        yield export(node, name)
        yield from holding(name, node, node, node, value, "constant")
        return
    for child in node.named_children:
        if child.type == "identifier":
            yield export(node, DEFAULT, text_of(child))
        elif child.type == "namespace_export":
            name = property_name(child.named_children[0])
            yield export(node, name)
            yield Definition(node, child, "declaration", name, span=(node, node.end_byte))
        elif child.type == "export_clause":
            for item in child.named_children:
                yield from _specified(item, node.child_by_field_name("source"))


def _specified(item: Node, source: Node | None) -> Iterator[Definition]:
    """One name of `export { a as b }`."""
    own = property_name(item.child_by_field_name("name"))
    name = property_name(item.child_by_field_name("alias")) or own
    if not own:
        return
    yield export(item, name, None if source else own)
    if name != DEFAULT:
        signature = f"export {{ {' '.join(text_of(item).split())} }}" + (f" from {text_of(source)}" if source else "")
        yield Definition(item, item, "declaration", name, signature=signature)


def defined_by_call(match: Definition) -> Iterator[Definition]:
    """`Object.assign(a, { … })` and `define…(a, "name", function () {})`."""
    callee = called_name(match.node)
    target, *others = arguments_of(match.node)
    path = [name for name in path_of(target) if name != "prototype"]
    if not path:
        return
    if callee in _COPIES:
        for other in others:
            if other.type == "object" and path in EXPORTS:
                yield from _exported_object(other)
            elif other.type == "object":
                yield from prefixed(".".join(path), members_of(other))
    elif re.match(r"_*define", callee) and len(others) > 1 and others[0].type == "string":
        yield from _accessor(match.node, path, property_name(others[0]), unwrapped(others[1]))


def _accessor(call: Node, path: list[str], name: str, value: Node | None) -> Iterator[Definition]:
    if value is None or value.type not in FUNCTIONS | {"object"} or name.startswith("__"):
        return
    outer = outermost(call)
    if path in EXPORTS:
        yield export(outer, name)
    else:
        name = ".".join([*path, name])
    yield Definition(outer, value, "property", name, span=(call, signature_end(call, value)))
