"""C++, with the words that CUDA adds."""

from __future__ import annotations

from rotary_batch.repo.languages.c_conditionals import without_conditionals
from rotary_batch.repo.languages.c_declarations import definitions, docstring, is_public
from rotary_batch.repo.languages.c_macros import without_macros
from rotary_batch.repo.languages.import_statements import c_imports
from rotary_batch.repo.languages.language import Language

_HEADERS = (".cuh", ".hh", ".hpp", ".hxx", ".h++", ".inl", ".ipp", ".ixx", ".tcc", ".tpp", ".txx")

CPP = Language(
    name="cpp",
    grammar=("tree_sitter_cpp", "language"),
    queries=("c", "cpp"),
    doc_mark="/**",
    endings=(".cc", ".cpp", ".cxx", ".c++", ".cu", *_HEADERS),
    exact_endings=(".C", ".H"),
    headers=(".h", *_HEADERS),
    clean=lambda source: without_macros(without_conditionals(source, is_cpp=True), is_cpp=True),
    dotted=frozenset({"field_expression", "qualified_identifier"}),
    calls_members_by_name=True,
    refine=definitions,
    is_public=is_public,
    docstring=docstring,
    imports=c_imports,
    result="type",
)
