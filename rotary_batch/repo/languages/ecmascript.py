"""What JavaScript and TypeScript define where their query matches: names, kinds, bases, and what a file exports."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from tree_sitter import Node

from rotary_batch.repo.comments import text_of
from rotary_batch.repo.languages.ecmascript_modules import EXPORTS, assigned, defined_by_call, exported
from rotary_batch.repo.languages.ecmascript_nodes import (
    FUNCTIONS,
    bases,
    bound_names,
    chain,
    is_import,
    member_name,
    outermost,
    overload_before,
    path_of,
    signature_end,
    unwrapped,
)
from rotary_batch.repo.languages.ecmascript_values import (
    MAX_WRAPPINGS,
    called_name,
    export,
    holding,
    members_of,
    value_of,
)
from rotary_batch.repo.languages.language import Definition
from rotary_batch.repo.signatures import MAX_VALUE_NBYTES

_NAMESPACES = {"internal_module", "module", "ambient_declaration"}
_HOLDERS = {"variable_declarator", "assignment_expression", "pair", "export_statement"}
_HOLDERS |= {"field_definition", "public_field_definition"}


def definitions(match: Definition) -> Iterable[Definition]:
    """The symbols and exports of one match of the query."""
    if match.kind in {"method", "field", "member"}:
        return _member(match)
    return _BY_NODE.get(match.node.type, _declared)(match)


def _declared(match: Definition) -> Iterator[Definition]:
    """Functions, classes, interfaces, types, enums and namespaces."""
    node, outer = match.node, outermost(match.node)
    if node.type in _NAMESPACES:
        yield from _ambient(node)
    if outer.type == "export_statement" or match.kind == "module" or node.type == "ambient_declaration":
        yield export(outer, match.name)
    end = node.named_children[-1].start_byte if node.type == "ambient_declaration" else signature_end(node, None)
    overload = overload_before(node, outer) if node.type == "function_declaration" else None
    span = (overload, overload.end_byte) if overload is not None else (node, end)
    yield match._replace(outer=outer, bases=bases(node), span=span)


def _ambient(node: Node) -> Iterator[Definition]:
    """All in a namespace that is only declared is exported, without saying so."""
    body = node.named_children[-1]
    if body.type == "statement_block" and "ambient_declaration" in {node.type, (node.parent or node).type}:
        yield export(body, "*")


def _member(match: Definition) -> Iterator[Definition]:
    """Methods, fields and enum members."""
    node, kind = match.node, match.kind
    lefts, value = chain(node) if node.type == "assignment_expression" else ([], unwrapped(value_of(node)))
    path = path_of(lefts[0]) if lefts else [member_name(node)]
    if lefts and len(path) != 2:  # this.x
        return
    outer = outermost(node) if lefts else node
    if path[-1] == "constructor" and node.type in {"method_definition", "method_signature"}:
        kind = "constructor"
    elif kind == "method":
        kind = "property" if any(child.type in {"get", "set"} for child in node.children) else kind
    elif value is not None and value.type in FUNCTIONS:
        kind = "method"
    overload = overload_before(node, outer) if node.type == "method_definition" else None
    if path[-1]:
        span = (overload, overload.end_byte) if overload is not None else (node, signature_end(node, value))
        yield Definition(outer, node, kind, path[-1], span=span)
        yield from members_of(value)


def _variables(match: Definition) -> Iterator[Definition]:
    """The names that one declarator binds."""
    node = match.node
    statement, pattern = node.parent, node.child_by_field_name("name")
    lefts, value = chain(value_of(node))
    if statement is None or pattern is None or is_import(value):
        return
    is_first = node.prev_named_sibling is None
    around = outermost(statement)
    outer, shown = (around, statement) if is_first else (node, node)
    keyword = statement.child(0)
    plain = "constant" if keyword is not None and keyword.type == "const" else "variable"
    is_exported = around.type == "export_statement" or any(path_of(left) in EXPORTS for left in lefts)
    is_short = value is not None and value.end_byte - value.start_byte <= MAX_VALUE_NBYTES
    given = text_of(value) if value is not None and is_short else "…"
    for place, name in enumerate(bound_names(pattern)):
        if place:
            outer = name
        if is_exported:
            yield export(outer, text_of(name))
        if name == pattern:
            yield from holding(text_of(name), outer, shown, node, value, plain)
        else:
            signature = f"{'const' if plain == 'constant' else 'let'} {{ {text_of(name)} }} = {' '.join(given.split())}"
            yield Definition(outer, name, plain, text_of(name), signature=signature)


def _returned(match: Definition) -> Iterator[Definition]:
    """The functions and classes in an object that a function returns."""
    return members_of(match.node)


def _expression(match: Definition) -> Iterator[Definition]:
    """A function or class with a name within an expression, unless what holds it is the symbol."""
    node = match.node
    last, around = node, node.parent
    for _ in range(2 * MAX_WRAPPINGS):
        if around is None or around.type not in {"arguments", "call_expression", "parenthesized_expression"}:
            break
        last, around = around, around.parent
    is_defining = last.type == "call_expression" and re.match(r"_*define", called_name(last))
    if is_defining or (around is not None and around.type in _HOLDERS):
        return
    kind = "class" if node.type == "class" else "function"
    yield Definition(node, node, kind, match.name, bases=bases(node), span=(node, signature_end(node, None)))


_BY_NODE = {
    "variable_declarator": _variables,
    "assignment_expression": assigned,
    "call_expression": defined_by_call,
    "export_statement": exported,
    "function_expression": _expression,
    "generator_function": _expression,
    "class": _expression,
    "object": _returned,
}
