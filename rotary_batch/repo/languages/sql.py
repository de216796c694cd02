"""SQL, of the common dialects."""

from __future__ import annotations

from collections.abc import Iterable

from rotary_batch.repo.comments import comment_above
from rotary_batch.repo.languages.language import Definition, Language
from rotary_batch.repo.languages.statements import one_line


def _refine(definition: Definition) -> Iterable[Definition]:
    named = definition._replace(name=definition.name.replace('"', "").replace("`", ""))
    if definition.kind == "table":
        yield named._replace(signature=one_line(definition.node).split("(")[0].rstrip())
    else:
        yield named._replace(signature=one_line(definition.node))


SQL = Language(
    name="sql",
    grammar=("tree_sitter_sql", "language"),
    queries=("sql",),
    doc_mark="--",
    endings=(".sql", ".ddl"),
    wrappers=frozenset({"statement"}),
    refine=_refine,
    docstring=lambda definition: comment_above(definition.outer),
)
