"""Scala 2 and 3."""

from __future__ import annotations

from collections.abc import Iterable

from rotary_batch.repo.languages.import_statements import jvm_imports
from rotary_batch.repo.languages.language import Definition, Language
from rotary_batch.repo.languages.statements import around, bases_in, has_modifier, one_line

_BODIES = (
    "template_body",
    "enum_body",
    "compilation_unit",
    "package_clause",
    "block",
    "indented_block",
    "function_definition",
)
_HOLDERS = {"template_body", "enum_body", "compilation_unit", "package_clause"}
_VALUES = {"val_definition", "var_definition", "val_declaration"}


def _refine(definition: Definition) -> Iterable[Definition]:
    node, body = definition.node, around(definition.node, _BODIES)
    if node.type in _VALUES:
        if body is None or body.type in _HOLDERS:  # not a local
            is_top = body is None or body.type in {"compilation_unit", "package_clause"}
            yield definition._replace(kind="variable" if is_top else "property", signature=one_line(node))
    elif node.type in {"type_definition", "simple_enum_case", "full_enum_case", "given_definition"}:
        yield definition._replace(signature=one_line(node))
    elif definition.kind in {"class", "trait", "enum"}:
        yield definition._replace(bases=bases_in(node, "extends_clause"))
    else:
        yield definition


SCALA = Language(
    name="scala",
    grammar=("tree_sitter_scala", "language"),
    queries=("scala",),
    doc_mark="/**",
    endings=(".scala", ".sc", ".sbt"),
    decorators=frozenset({"annotation"}),
    dotted=frozenset({"field_expression"}),
    calls_members_by_name=True,
    refine=_refine,
    is_public=lambda definition: not has_modifier(definition.node, "private", "protected"),
    imports=jvm_imports,
)
