"""Lua."""

from __future__ import annotations

from collections.abc import Iterable

from rotary_batch.repo.languages.language import Definition, Language
from rotary_batch.repo.languages.namespace_imports import lua_imports
from rotary_batch.repo.languages.statements import around, one_line


def _refine(definition: Definition) -> Iterable[Definition]:
    node = definition.node
    named = definition._replace(name=definition.name.replace(":", "."))
    if definition.kind == "variable":
        if around(node, ("block",)) is None:  # not within a function
            yield named._replace(signature=one_line(node))
    elif "[" not in named.name:  # a computed name is no name
        is_assigned = node.type in {"field", "assignment_statement"}
        signature = one_line(node).split(")")[0] + ")" if is_assigned else None
        yield named._replace(kind="method" if ":" in definition.name else "function", signature=signature)


LUA = Language(
    name="lua",
    grammar=("tree_sitter_lua", "language"),
    queries=("lua",),
    doc_mark="---",
    endings=(".lua",),
    interpreters=("lua", "luajit"),
    wrappers=frozenset({"variable_declaration"}),
    dotted=frozenset({"dot_index_expression", "method_index_expression"}),
    refine=_refine,
    is_public=lambda definition: (
        definition.outer.type != "variable_declaration"
        and not any(child.type == "local" for child in definition.node.children)
    ),
    imports=lua_imports,
)
