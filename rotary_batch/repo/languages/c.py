"""C."""

from __future__ import annotations

from rotary_batch.repo.languages.import_statements import c_imports
from rotary_batch.repo.languages.language import Language

C = Language(
    name="c",
    grammar=("tree_sitter_c", "language"),
    queries=("c",),
    endings=(".c", ".h"),
    dotted=frozenset({"field_expression"}),
    calls_members_by_name=True,  # headers of C++ may be read as C
    imports=c_imports,
    result="type",
)
