"""TypeScript, with and without JSX."""

from __future__ import annotations

from dataclasses import replace

from rotary_batch.repo.languages.javascript import JAVASCRIPT

TYPESCRIPT = replace(
    JAVASCRIPT,
    name="typescript",
    grammar=("tree_sitter_typescript", "language_typescript"),
    queries=("javascript", "typescript"),
    endings=(".ts", ".mts", ".cts"),
    interpreters=("ts-node", "tsx"),
)
TSX = replace(
    TYPESCRIPT,
    name="tsx",
    grammar=("tree_sitter_typescript", "language_tsx"),
    endings=(".tsx",),
    interpreters=(),
)
