"""Swift."""

from __future__ import annotations

from collections.abc import Iterable

from tree_sitter import Node

from rotary_batch.repo.languages.language import Definition, Language
from rotary_batch.repo.languages.namespace_imports import swift_imports
from rotary_batch.repo.languages.statements import around, comment_above_statement, has_modifier, one_line

_KINDS = {"struct": "struct", "enum": "enum", "actor": "class", "class": "class"}
_BODIES = (
    "class_body",
    "enum_class_body",
    "source_file",
    "protocol_body",
    "function_body",
    "computed_property",
    "lambda_literal",
)


def _refine(definition: Definition) -> Iterable[Definition]:
    node, body = definition.node, around(definition.node, _BODIES)
    if definition.kind == "scope":
        yield definition._replace(name=definition.name.split("<")[0])
    elif node.type == "property_declaration":
        if body is None or body.type in {"class_body", "enum_class_body", "source_file"}:  # not a local
            is_top = body is None or body.type == "source_file"
            is_constant = one_line(node).split("=")[0].split(":")[0].split()[-2:-1] == ["let"]
            kind = ("constant" if is_constant else "variable") if is_top else "property"
            yield definition._replace(kind=kind, signature=one_line(node))
    elif definition.kind == "member":
        yield definition._replace(signature=one_line(node.parent or node))
    elif node.type in {"class_declaration", "protocol_declaration"}:
        kind = next((_KINDS[child.type] for child in node.children if child.type in _KINDS), definition.kind)
        yield definition._replace(kind=kind, bases=tuple(_bases(node)))
    else:
        yield definition


def _bases(node: Node) -> Iterable[str]:
    for child in node.named_children:
        if child.type == "inheritance_specifier":
            yield one_line(child)


SWIFT = Language(
    name="swift",
    grammar=("tree_sitter_swift", "language"),
    queries=("swift",),
    doc_mark="///",
    endings=(".swift",),
    decorators=frozenset({"attribute"}),
    dotted=frozenset({"navigation_expression", "navigation_suffix"}),
    calls_members_by_name=True,
    refine=_refine,
    docstring=lambda definition: comment_above_statement(definition, ("enum_entry",)),
    is_public=lambda definition: not has_modifier(definition.node, "private", "fileprivate"),
    imports=swift_imports,
)
