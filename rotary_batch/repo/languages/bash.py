"""Bash and other shells."""

from __future__ import annotations

from collections.abc import Iterable

from rotary_batch.repo.languages.language import Definition, Language
from rotary_batch.repo.languages.statements import in_statement, one_line

_DECLARATION = ("declaration_command",)


def _refine(definition: Definition) -> Iterable[Definition]:
    if definition.kind != "variable":
        yield definition
        return
    node, parent = definition.node, definition.node.parent
    if parent is not None and parent.type in _DECLARATION:
        declared = in_statement(definition, _DECLARATION)
        yield declared._replace(kind="constant" if one_line(parent).startswith("readonly") else "variable")
    else:
        yield definition._replace(signature=one_line(node))


BASH = Language(
    name="bash",
    grammar=("tree_sitter_bash", "language"),
    queries=("bash",),
    doc_mark="#",
    endings=(".sh", ".bash", ".zsh", ".ksh", ".bats"),
    interpreters=("bash", "sh", "dash", "zsh", "ksh", "bats"),
    refine=_refine,
)
