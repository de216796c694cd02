"""C."""

from __future__ import annotations

from rotary_batch.repo.languages.c_conditionals import without_conditionals
from rotary_batch.repo.languages.c_declarations import definitions, docstring, is_public
from rotary_batch.repo.languages.c_macros import without_macros
from rotary_batch.repo.languages.import_statements import c_imports
from rotary_batch.repo.languages.language import Language

C = Language(
    name="c",
    grammar=("tree_sitter_c", "language"),
    queries=("c",),
    doc_mark="/**",
    endings=(".c", ".h"),
    headers=(".h",),
    clean=lambda source: without_macros(without_conditionals(source, is_cpp=False), is_cpp=False),
    dotted=frozenset({"field_expression"}),
    calls_members_by_name=True,  # headers of C++ may be read as C
    refine=definitions,
    is_public=is_public,
    docstring=docstring,
    imports=c_imports,
    result="type",
)
