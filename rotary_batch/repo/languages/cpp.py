"""C++."""

from __future__ import annotations

from rotary_batch.repo.languages.import_statements import c_imports
from rotary_batch.repo.languages.language import Language

CPP = Language(
    name="cpp",
    grammar=("tree_sitter_cpp", "language"),
    queries=("c", "cpp"),
    endings=(".cc", ".cpp", ".cxx", ".hh", ".hpp", ".hxx", ".ipp"),
    wrappers=frozenset({"template_declaration"}),
    dotted=frozenset({"field_expression", "qualified_identifier"}),
    calls_members_by_name=True,
    imports=c_imports,
    result="type",
)
