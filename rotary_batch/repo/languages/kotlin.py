"""Kotlin."""

from __future__ import annotations

from collections.abc import Iterable

from tree_sitter import Node

from rotary_batch.repo.comments import text_of
from rotary_batch.repo.languages.import_statements import jvm_imports
from rotary_batch.repo.languages.language import Definition, Language
from rotary_batch.repo.languages.statements import around, has_modifier, one_line
from rotary_batch.repo.signatures import limited, on_one_line, shown

_BODIES = (
    "class_body",
    "enum_class_body",
    "source_file",
    "function_body",
    "block",
    "lambda_literal",
    "getter",
    "setter",
)


def _refine(definition: Definition) -> Iterable[Definition]:
    node, body = definition.node, around(definition.node, _BODIES)
    if node.type == "companion_object":
        name = next((text_of(child) for child in node.named_children if child.type == "identifier"), "Companion")
        yield definition._replace(name=name, signature=_head(node))
    elif node.type == "secondary_constructor":
        yield definition._replace(name="constructor")
    elif node.type == "property_declaration":
        if body is None or body.type in {"class_body", "enum_class_body", "source_file"}:  # not a local
            kind = "constant" if has_modifier(node, "const") else "property" if _is_member(body) else "variable"
            yield definition._replace(kind=kind, signature=one_line(node))
    elif node.type in {"class_parameter", "enum_entry"}:
        yield definition._replace(signature=one_line(node))
    elif node.type == "class_declaration":
        yield definition._replace(kind=_kind(node), bases=tuple(_bases(node)), signature=_head(node))
    else:
        yield definition._replace(signature=_head(node))


def _head(node: Node) -> str:
    """The definition without its annotations and up to its body; the grammar does not name bodies."""
    body = next((child for child in node.children if child.type in _BODIES), None)
    annotations = [c for m in node.named_children[:1] for c in m.named_children if c.type == "annotation"]
    start = annotations[-1].end_byte if annotations else None
    return limited(on_one_line(shown(node, start, body.start_byte if body is not None else None)))


def _is_member(body: Node | None) -> bool:
    return body is not None and body.type != "source_file"


def _kind(node: Node) -> str:
    if any(child.type == "interface" for child in node.children):
        return "interface"
    return "enum" if has_modifier(node, "enum") else "annotation" if has_modifier(node, "annotation") else "class"


def _bases(node: Node) -> Iterable[str]:
    for child in node.named_children:
        for specifier in child.named_children if child.type == "delegation_specifiers" else ():
            yield one_line(specifier).split("(")[0]


KOTLIN = Language(
    name="kotlin",
    grammar=("tree_sitter_kotlin", "language"),
    queries=("kotlin",),
    doc_mark="/**",
    endings=(".kt", ".kts"),
    decorators=frozenset({"annotation"}),
    dotted=frozenset({"navigation_expression", "qualified_identifier"}),
    calls_members_by_name=True,
    refine=_refine,
    is_public=lambda definition: not has_modifier(definition.node, "private", "internal", "protected"),
    imports=jvm_imports,
)
