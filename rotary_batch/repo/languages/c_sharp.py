"""C#."""

from __future__ import annotations

from collections.abc import Iterable

from rotary_batch.repo.languages.language import Definition, Language
from rotary_batch.repo.languages.namespace_imports import c_sharp_imports
from rotary_batch.repo.languages.statements import around, bases_in, comment_above_statement, has_modifier, in_statement

_STATEMENTS = ("field_declaration", "event_field_declaration")
_ALWAYS_PUBLIC = {"interface_declaration", "enum_declaration"}  # what they hold

_TYPES = (
    "class_declaration",
    "struct_declaration",
    "record_declaration",
    "interface_declaration",
    "enum_declaration",
)


def _refine(definition: Definition) -> Iterable[Definition]:
    if definition.node.type == "variable_declarator":
        statement = around(definition.node, _STATEMENTS)
        is_constant = statement is not None and has_modifier(statement, "const")
        yield in_statement(definition._replace(kind="constant" if is_constant else "field"), _STATEMENTS)
    elif definition.node.type == "operator_declaration":
        operator = definition.node.child_by_field_name("operator")
        yield definition._replace(name=f"operator{operator.type}" if operator else "operator")
    elif definition.node.type in _TYPES:
        yield definition._replace(bases=bases_in(definition.node, "base_list"))
    else:
        yield definition


def _is_public(definition: Definition) -> bool:
    if has_modifier(definition.outer, "public", "protected"):
        return True
    if has_modifier(definition.outer, "private", "internal"):
        return False
    type_around = around(definition.node, _TYPES)
    if type_around is None:
        return True  # of the namespace: a file that holds nothing public would be empty
    return type_around.type in _ALWAYS_PUBLIC


C_SHARP = Language(
    name="c_sharp",
    grammar=("tree_sitter_c_sharp", "language"),
    queries=("c_sharp",),
    doc_mark="///",
    endings=(".cs", ".csx"),
    decorators=frozenset({"attribute_list"}),
    dotted=frozenset({"member_access_expression", "qualified_name"}),
    calls_members_by_name=True,
    refine=_refine,
    is_public=_is_public,
    docstring=lambda definition: comment_above_statement(definition, _STATEMENTS),
    imports=c_sharp_imports,
)
