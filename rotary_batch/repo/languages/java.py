"""Java."""

from __future__ import annotations

from rotary_batch.repo.languages.language import Language

JAVA = Language(
    name="java",
    grammar=("tree_sitter_java", "language"),
    queries=("java",),
    endings=(".java",),
    dotted=frozenset({"method_invocation", "scoped_identifier"}),
    calls_members_by_name=True,
)
