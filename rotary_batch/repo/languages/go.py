"""Go."""

from __future__ import annotations

from rotary_batch.repo.languages.language import Language

GO = Language(
    name="go",
    grammar=("tree_sitter_go", "language"),
    queries=("go",),
    endings=(".go",),
    wrappers=frozenset({"type_declaration"}),
    dotted=frozenset({"selector_expression"}),
)
