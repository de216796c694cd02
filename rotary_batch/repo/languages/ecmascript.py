"""What JavaScript and TypeScript define where their query matches: names, kinds, bases, and what a file exports."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from tree_sitter import Node

from rotary_batch.repo.comments import text_of
from rotary_batch.repo.languages.ecmascript_nodes import (
    FUNCTIONS,
    bases,
    bound_names,
    chain,
    is_import,
    member_name,
    outermost,
    path_of,
    property_name,
    signature_end,
    unwrapped,
)
from rotary_batch.repo.languages.language import Definition
from rotary_batch.repo.signatures import MAX_VALUE_NBYTES

DEFAULT = "default"  # the name of an anonymous `export default`
WHOLE = "module.exports"  # the name of an anonymous `module.exports =`
_EXPORTS = (["exports"], ["module", "exports"])
_NAMESPACES = {"internal_module", "module", "ambient_declaration"}
_GLOBALS = {"window", "globalThis"}
_COPIES = {"assign", "extend"}  # functions that give the members of one object to another
_HOLDERS = {"variable_declarator", "assignment_expression", "pair", "export_statement"}
_HOLDERS |= {"field_definition", "public_field_definition"}
_MAX_NESTED = 10_000  # objects read within one value
_MAX_WRAPPINGS = 5  # as in `memo(forwardRef(function () {}))`
# Functions that give back a function that does the work of the one they are given.
_WRAPPING = re.compile(
    r"memo|forwardRef|lazy|observer|connect|inject|cache|debounce|throttle|once|memoize\w*|promisify|callbackify|curry"
    r"|async\w*|catch\w*|useCallback|with[A-Z]\w*|create\w*Component|define\w*Component"
)


def definitions(match: Definition) -> Iterable[Definition]:
    """The symbols and exports of one match of the query."""
    if match.kind in {"method", "field", "member"}:
        return _member(match)
    return _BY_NODE.get(match.node.type, _declared)(match)


def _export(outer: Node, name: str, target: str | None = None) -> Definition:
    """Says that a file exports a name, and what it is called in the file when that is another symbol."""
    return Definition(outer=outer, node=outer, kind="export", name=name, target=target)


def _declared(match: Definition) -> Iterator[Definition]:
    """Functions, classes, interfaces, types, enums and namespaces."""
    node, outer = match.node, outermost(match.node)
    if node.type in _NAMESPACES:
        yield from _ambient(node)
    if outer.type == "export_statement" or match.kind == "module" or node.type == "ambient_declaration":
        yield _export(outer, match.name)
    end = node.named_children[-1].start_byte if node.type == "ambient_declaration" else _end(node, None)
    yield match._replace(outer=outer, bases=bases(node), span=(node, end))


def _ambient(node: Node) -> Iterator[Definition]:
    """All in a namespace that is only declared is exported, without saying so."""
    body = node.named_children[-1]
    if body.type == "statement_block" and "ambient_declaration" in {node.type, (node.parent or node).type}:
        yield _export(body, "*")


def _member(match: Definition) -> Iterator[Definition]:
    """Methods, fields and enum members."""
    node, kind = match.node, match.kind
    lefts, value = chain(node) if node.type == "assignment_expression" else ([], unwrapped(_value(node)))
    path = path_of(lefts[0]) if lefts else [member_name(node)]
    if lefts and len(path) != 2:  # this.x
        return
    outer = outermost(node) if lefts else node
    if path[-1] == "constructor" and node.type == "method_definition":
        kind = "constructor"
    elif kind == "method":
        kind = "property" if any(child.type in {"get", "set"} for child in node.children) else kind
    elif value is not None and value.type in FUNCTIONS:
        kind = "method"
    if path[-1]:
        yield Definition(outer, node, kind, path[-1], span=(node, _end(node, value)))
        yield from _members_of(value)


def _variables(match: Definition) -> Iterator[Definition]:
    """The names that one declarator binds."""
    node = match.node
    statement, pattern = node.parent, node.child_by_field_name("name")
    lefts, value = chain(_value(node))
    if statement is None or pattern is None or is_import(value):
        return
    is_first = node.prev_named_sibling is None
    around = outermost(statement)
    outer, shown = (around, statement) if is_first else (node, node)
    keyword = statement.child(0)
    plain = "constant" if keyword is not None and keyword.type == "const" else "variable"
    is_exported = around.type == "export_statement" or any(path_of(left) in _EXPORTS for left in lefts)
    is_short = value is not None and value.end_byte - value.start_byte <= MAX_VALUE_NBYTES
    given = text_of(value) if value is not None and is_short else "…"
    for place, name in enumerate(bound_names(pattern)):
        if place:
            outer = name
        if is_exported:
            yield _export(outer, text_of(name))
        if name == pattern:
            yield from _holding(text_of(name), outer, shown, node, value, plain)
        else:
            signature = f"{'const' if plain == 'constant' else 'let'} {{ {text_of(name)} }} = {' '.join(given.split())}"
            yield Definition(outer, name, plain, text_of(name), signature=signature)


def _holding(name: str, outer: Node, shown: Node, last: Node, value: Node | None, plain: str) -> Iterator[Definition]:
    """A symbol that holds a value, and the functions in that value; its signature is from `shown` to `last`."""
    kind = _kind(value, plain)
    extends = bases(value) if value is not None and kind == "class" else ()
    yield Definition(outer, value or last, kind, name, bases=extends, span=(shown, _end(last, value)))
    yield from _members_of(value)


def _kind(value: Node | None, plain: str) -> str:
    if value is None:
        return plain
    if value.type in FUNCTIONS:
        return "function"
    if value.type == "class":
        return "class"
    for _ in range(_MAX_WRAPPINGS):
        if value.type != "call_expression" or not _WRAPPING.fullmatch(_callee(value)):
            break
        arguments = [one for one in map(unwrapped, _arguments(value)) if one is not None]
        if any(one.type in FUNCTIONS | {"class"} for one in arguments):
            return "function"
        value = next(iter(arguments), value)
    return plain


def _callee(call: Node) -> str:
    """The name of the function that is called; that of `connect(a)(b)` is `connect`."""
    function = call.child_by_field_name("function")
    while function is not None and function.type == "call_expression":
        function = function.child_by_field_name("function")
    return (path_of(function) or [""])[-1]


def _arguments(call: Node) -> list[Node]:
    arguments = call.child_by_field_name("arguments")
    return [] if arguments is None or arguments.type != "arguments" else arguments.named_children


def _members_of(value: Node | None) -> Iterator[Definition]:
    """The functions and classes in an object, in objects in it, and in objects that are given to a call."""
    objects = _arguments(value) if value is not None and value.type == "call_expression" else [value]
    waiting = [("", one) for one in map(unwrapped, objects) if one is not None and one.type == "object"]
    for _ in range(_MAX_NESTED):
        if not waiting:
            return
        prefix, one = waiting.pop()
        for child in one.named_children:
            name, inner = member_name(child), unwrapped(_value(child))
            if child.type == "method_definition" and name:
                kind = "property" if any(part.type in {"get", "set"} for part in child.children) else "method"
                yield Definition(child, child, kind, f"{prefix}{name}", span=(child, _end(child, None)))
            elif child.type == "pair" and name and inner is not None and inner.type == "object":
                waiting.append((f"{prefix}{name}.", inner))
            elif child.type == "pair" and name and (kind := _kind(inner, "")):
                kind = "method" if kind == "function" else kind
                yield Definition(child, child, kind, f"{prefix}{name}", span=(child, _end(child, inner)))


def _assigned(match: Definition) -> Iterator[Definition]:
    """`exports.x =`, `Foo.prototype.x =`, `a.b = function`, each alone or in a row."""
    around = match.node.parent
    if around is None or around.type in {"assignment_expression", "variable_declarator"}:
        return
    lefts, value = chain(match.node)
    if value is None or value.text in {b"undefined", b"void 0"}:  # as compilers begin: `exports.a = void 0`
        return
    outer = around if around.type == "expression_statement" else match.node
    is_top = around.parent is not None and around.parent.type == "program"
    for place, left in enumerate(lefts):
        path = path_of(left)
        for item in _assignment(path, outer, match.node, value, is_top=is_top):
            if not place:
                yield item
            elif item.outer == outer and path not in _EXPORTS:
                yield item._replace(outer=left, node=left)  # a range of its own, so that it is not in the one before


def _assignment(path: list[str], outer: Node, node: Node, value: Node, *, is_top: bool) -> Iterator[Definition]:
    if path in _EXPORTS:
        yield from _all_exported(outer, node, value)
        return
    is_export = path[:1] == ["exports"] or path[:2] == ["module", "exports"]
    names = path[1 if path[:1] == ["exports"] else 2 :] if is_export else path
    if not is_export and (len(names) < 2 or names[0] in {"this", "self"}):
        return
    if names[0] in _GLOBALS:
        names, is_export = names[1:], True
    if names[-1:] == ["prototype"] and value.type == "object":  # Foo.prototype = { … }
        yield from _prefixed(".".join(names[:-1]), _members_of(value))
        return
    name = ".".join([*names[:1], *(part for part in names[1:] if part != "prototype")])
    if is_export and len(names) == 1:
        yield _export(outer, name, text_of(value) if value.type == "identifier" else None)
        yield from _holding(name, outer, node, node, value, "variable")
    elif _kind(value, "") or is_top:
        for item in _holding(name, outer, node, node, value, "field"):
            yield item._replace(kind="method") if item.kind == "function" else item


def _all_exported(outer: Node, node: Node, value: Node) -> Iterator[Definition]:
    """`module.exports = …`"""
    if value.type == "identifier":
        yield _export(outer, WHOLE, text_of(value))
    elif value.type == "object":
        yield from _exported_object(value)
    else:
        own = value.child_by_field_name("name") if value.type in FUNCTIONS | {"class"} else None
        name = WHOLE if own is None else text_of(own)
        yield _export(outer, name)
        yield from _holding(name, outer, node, node, value, "variable")


def _exported_object(value: Node) -> Iterator[Definition]:
    """`module.exports = { a, b: c, d() {}, e: function () {}, f: 1 }`"""
    for child in value.named_children:
        if child.type == "shorthand_property_identifier":
            yield _export(child, text_of(child), text_of(child))
            yield Definition(child, child, "variable", text_of(child), span=(child, child.end_byte))
        name, inner = member_name(child), unwrapped(_value(child))
        if child.type == "pair" and name and inner is not None:
            yield _export(child, name, text_of(inner) if inner.type == "identifier" else None)
            yield from _holding(name, child, child, child, inner, "variable")
        elif child.type == "method_definition" and name:
            yield _export(child, name)
            yield Definition(child, child, "function", name, span=(child, _end(child, None)))


def _exported(match: Definition) -> Iterator[Definition]:
    """`export { a as b }`, `export … from`, `export default …` and `export = a`."""
    node = match.node
    value = unwrapped(node.child_by_field_name("value"))
    if value is not None and value.type != "identifier":
        own = value.child_by_field_name("name") if value.type in FUNCTIONS | {"class"} else None
        name = DEFAULT if own is None else text_of(own)
        yield _export(node, name)
        yield from _holding(name, node, node, node, value, "constant")
        return
    for child in node.named_children:
        if child.type == "identifier":
            yield _export(node, DEFAULT, text_of(child))
        elif child.type == "namespace_export":
            name = property_name(child.named_children[0])
            yield _export(node, name)
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
    yield _export(item, name, None if source else own)
    if name != DEFAULT:
        signature = f"export {{ {' '.join(text_of(item).split())} }}" + (f" from {text_of(source)}" if source else "")
        yield Definition(item, item, "declaration", name, signature=signature)


def _defined_by_call(match: Definition) -> Iterator[Definition]:
    """`Object.assign(a, { … })` and `define…(a, "name", function () {})`."""
    callee = _callee(match.node)
    target, *others = _arguments(match.node)
    path = [name for name in path_of(target) if name != "prototype"]
    if not path:
        return
    if callee in _COPIES:
        for other in others:
            if other.type == "object" and path in _EXPORTS:
                yield from _exported_object(other)
            elif other.type == "object":
                yield from _prefixed(".".join(path), _members_of(other))
    elif re.match(r"_*define", callee) and len(others) > 1 and others[0].type == "string":
        yield from _accessor(match.node, path, property_name(others[0]), unwrapped(others[1]))


def _returned(match: Definition) -> Iterator[Definition]:
    """The functions and classes in an object that a function returns."""
    return _members_of(match.node)


def _expression(match: Definition) -> Iterator[Definition]:
    """A function or class with a name within an expression, unless what holds it is the symbol."""
    node = match.node
    last, around = node, node.parent
    for _ in range(2 * _MAX_WRAPPINGS):
        if around is None or around.type not in {"arguments", "call_expression", "parenthesized_expression"}:
            break
        last, around = around, around.parent
    is_defining = last.type == "call_expression" and re.match(r"_*define", _callee(last))
    if is_defining or (around is not None and around.type in _HOLDERS):
        return
    kind = "class" if node.type == "class" else "function"
    yield Definition(node, node, kind, match.name, bases=bases(node), span=(node, _end(node, None)))


def _accessor(call: Node, path: list[str], name: str, value: Node | None) -> Iterator[Definition]:
    if value is None or value.type not in FUNCTIONS | {"object"} or name.startswith("__"):
        return
    outer = outermost(call)
    if path in _EXPORTS:
        yield _export(outer, name)
    else:
        name = ".".join([*path, name])
    yield Definition(outer, value, "property", name, span=(call, _end(call, value)))


def _prefixed(prefix: str, members: Iterable[Definition]) -> Iterator[Definition]:
    for item in members:
        yield item._replace(name=f"{prefix}.{item.name}")


def _value(node: Node) -> Node | None:
    return node.child_by_field_name("value")


_end = signature_end
_BY_NODE = {
    "variable_declarator": _variables,
    "assignment_expression": _assigned,
    "call_expression": _defined_by_call,
    "export_statement": _exported,
    "function_expression": _expression,
    "generator_function": _expression,
    "class": _expression,
    "object": _returned,
}
