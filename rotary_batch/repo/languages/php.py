"""PHP."""

from __future__ import annotations

from collections.abc import Iterable

from rotary_batch.repo.comments import text_of
from rotary_batch.repo.languages.language import Definition, Language
from rotary_batch.repo.languages.namespace_imports import php_imports
from rotary_batch.repo.languages.statements import (
    around,
    bases_in,
    comment_above_statement,
    has_modifier,
    in_statement,
    one_line,
)

_STATEMENTS = ("const_declaration", "property_declaration")
_TYPES = {"class_declaration", "interface_declaration", "trait_declaration", "enum_declaration"}


def _refine(definition: Definition) -> Iterable[Definition]:
    node = definition.node
    if node.type in {"const_element", "property_element"}:
        yield in_statement(definition._replace(name=definition.name.lstrip("$")), _STATEMENTS)
    elif node.type == "property_promotion_parameter":
        class_around = around(node, _TYPES)
        name = class_around.child_by_field_name("name") if class_around is not None else None
        receiver = text_of(name) if name is not None else None
        yield definition._replace(name=definition.name.lstrip("$"), receiver=receiver, signature=one_line(node))
    elif node.type in _TYPES:
        yield definition._replace(bases=bases_in(node, "base_clause", "class_interface_clause"))
    elif definition.kind == "namespace":
        yield definition._replace(name=definition.name.replace("\\", "."))
    else:
        is_constructor = definition.kind == "method" and definition.name == "__construct"
        yield definition._replace(kind="constructor" if is_constructor else definition.kind)


def _is_public(definition: Definition) -> bool:
    statement = (
        definition.outer if definition.outer.type != "property_element" else around(definition.outer, _STATEMENTS)
    )
    return statement is None or not has_modifier(statement, "private", "protected")


PHP = Language(
    name="php",
    grammar=("tree_sitter_php", "language_php"),
    queries=("php",),
    doc_mark="/**",
    endings=(".php", ".phtml", ".inc"),
    interpreters=("php",),
    decorators=frozenset({"attribute_list"}),
    dotted=frozenset(
        {
            "member_call_expression",
            "nullsafe_member_call_expression",
            "qualified_name",
            "relative_name",
            "scoped_call_expression",
        }
    ),
    refine=_refine,
    is_public=_is_public,
    docstring=lambda definition: comment_above_statement(definition, _STATEMENTS),
    imports=php_imports,
)
