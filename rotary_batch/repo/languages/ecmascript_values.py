"""Values in JavaScript and TypeScript: what kind of symbol holds one, and the functions in it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from tree_sitter import Node

from rotary_batch.repo.languages.ecmascript_nodes import (
    FUNCTIONS,
    bases,
    member_name,
    path_of,
    signature_end,
    unwrapped,
)
from rotary_batch.repo.languages.language import Definition

# Functions that give back a function that does the work of the one they are given.
_WRAPPING = re.compile(
    r"memo|forwardRef|lazy|observer|connect|inject|cache|debounce|throttle|once|memoize\w*|promisify|callbackify|curry"
    r"|async\w*|catch\w*|useCallback|with[A-Z]\w*|create\w*Component|define\w*Component"
)
_MAX_NESTED = 10_000  # objects read within one value
MAX_WRAPPINGS = 5  # as in `memo(forwardRef(function () {}))`


def export(outer: Node, name: str, target: str | None = None) -> Definition:
    """Says that a file exports a name, and what it is called in the file when that is another symbol."""
    return Definition(outer=outer, node=outer, kind="export", name=name, target=target)


def holding(name: str, outer: Node, shown: Node, last: Node, value: Node | None, plain: str) -> Iterator[Definition]:
    """A symbol that holds a value, and the functions in that value; its signature is from `shown` to `last`."""
    kind = kind_of(value, plain)
    extends = bases(value) if value is not None and kind == "class" else ()
    yield Definition(outer, value or last, kind, name, bases=extends, span=(shown, signature_end(last, value)))
    yield from members_of(value)


def kind_of(value: Node | None, plain: str) -> str:
    """The kind of a symbol that holds a value; `plain` if that is neither a function nor a class."""
    if value is None:
        return plain
    if value.type in FUNCTIONS:
        return "function"
    if value.type == "class":
        return "class"
    for _ in range(MAX_WRAPPINGS):
        if value.type != "call_expression" or not _WRAPPING.fullmatch(called_name(value)):
            break
        arguments = [one for one in map(unwrapped, arguments_of(value)) if one is not None]
        if any(one.type in FUNCTIONS | {"class"} for one in arguments):
            return "function"
        value = next(iter(arguments), value)
    return plain


def called_name(call: Node) -> str:
    """The name of the function that is called; that of `connect(a)(b)` is `connect`."""
    function = call.child_by_field_name("function")
    while function is not None and function.type == "call_expression":
        function = function.child_by_field_name("function")
    return (path_of(function) or [""])[-1]


def arguments_of(call: Node) -> list[Node]:
    """What a function is called with; [] when that is a template."""
    arguments = call.child_by_field_name("arguments")
    return [] if arguments is None or arguments.type != "arguments" else arguments.named_children


def members_of(value: Node | None) -> Iterator[Definition]:
    """The functions and classes in an object, in objects in it, and in objects that are given to a call."""
    objects = arguments_of(value) if value is not None and value.type == "call_expression" else [value]
    waiting = [("", one) for one in map(unwrapped, objects) if one is not None and one.type == "object"]
    for _ in range(_MAX_NESTED):
        if not waiting:
            return
        prefix, one = waiting.pop()
        for child in one.named_children:
            name, inner = member_name(child), unwrapped(value_of(child))
            if child.type == "method_definition" and name:
                kind = "property" if any(part.type in {"get", "set"} for part in child.children) else "method"
                yield Definition(child, child, kind, f"{prefix}{name}", span=(child, signature_end(child, None)))
            elif child.type == "pair" and name and inner is not None and inner.type == "object":
                waiting.append((f"{prefix}{name}.", inner))
            elif child.type == "pair" and name and (kind := kind_of(inner, "")):
                kind = "method" if kind == "function" else kind
                yield Definition(child, child, kind, f"{prefix}{name}", span=(child, signature_end(child, inner)))


def prefixed(prefix: str, members: Iterable[Definition]) -> Iterator[Definition]:
    """Members of what is called `prefix`."""
    for item in members:
        yield item._replace(name=f"{prefix}.{item.name}")


def value_of(node: Node) -> Node | None:
    """What a declaration, a property or a field begins with."""
    return node.child_by_field_name("value")
