"""Rust."""

from __future__ import annotations

from rotary_batch.repo.languages.language import Language

RUST = Language(
    name="rust",
    grammar=("tree_sitter_rust", "language"),
    queries=("rust",),
    endings=(".rs",),
    dotted=frozenset({"field_expression", "scoped_identifier"}),
)
