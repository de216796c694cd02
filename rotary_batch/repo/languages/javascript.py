"""JavaScript."""

from __future__ import annotations

from rotary_batch.repo.languages.language import Language

JAVASCRIPT = Language(
    name="javascript",
    grammar=("tree_sitter_javascript", "language"),
    queries=("javascript",),
    endings=(".js", ".mjs", ".cjs", ".jsx"),
    interpreters=("node", "nodejs", "bun", "deno"),
    wrappers=frozenset({"export_statement", "lexical_declaration"}),  # `export`; `const` and `let`
    decorators=frozenset({"decorator"}),
    dotted=frozenset({"member_expression"}),
)
