"""Which language a path is in, and the grammar and query of a language."""

from __future__ import annotations

import importlib
from functools import cache
from importlib import resources

from tree_sitter import Language, Query

# language -> (grammar module, function in it, queries to concatenate)
_GRAMMARS = {
    "python": ("tree_sitter_python", "language", ("python",)),
    "javascript": ("tree_sitter_javascript", "language", ("javascript",)),
    "typescript": ("tree_sitter_typescript", "language_typescript", ("javascript", "typescript")),
    "tsx": ("tree_sitter_typescript", "language_tsx", ("javascript", "typescript")),
    "go": ("tree_sitter_go", "language", ("go",)),
    "rust": ("tree_sitter_rust", "language", ("rust",)),
    "java": ("tree_sitter_java", "language", ("java",)),
    "c": ("tree_sitter_c", "language", ("c",)),
    "cpp": ("tree_sitter_cpp", "language", ("c", "cpp")),
}
_ENDINGS = {
    ".py": "python",
    ".pyi": "python",
    ".pyw": "python",
    ".js": "javascript",
    ".mjs": "javascript",
    ".cjs": "javascript",
    ".jsx": "javascript",
    ".ts": "typescript",
    ".mts": "typescript",
    ".cts": "typescript",
    ".tsx": "tsx",
    ".go": "go",
    ".rs": "rust",
    ".java": "java",
    ".c": "c",
    ".h": "c",
    ".cc": "cpp",
    ".cpp": "cpp",
    ".cxx": "cpp",
    ".hh": "cpp",
    ".hpp": "cpp",
    ".hxx": "cpp",
    ".ipp": "cpp",
}
LANGUAGES = tuple(_GRAMMARS)
_BARE_MEMBERS = {"java", "c", "cpp"}  # "c" for the headers of C++


def calls_members_by_name(path: str) -> bool:
    """Whether code of this file may call a member of its class without a dot."""
    return language_of(path) in _BARE_MEMBERS


def language_of(path: str) -> str | None:
    """The language of a file by its ending, or None."""
    stem, _, ending = path.rpartition("/")[2].rpartition(".")
    return _ENDINGS.get(f".{ending.lower()}") if stem else None


@cache
def grammar(language: str) -> Language:
    """The tree-sitter grammar; each comes in a wheel of its own."""
    module, function, _ = _GRAMMARS[language]
    return Language(getattr(importlib.import_module(module), function)())


@cache
def query(language: str) -> Query:
    """Our own query.  Its captures:

    - `@definition.KIND` around a definition, with `@name`: a symbol of that kind; a function inside a class or a scope
      is a method.  `::` in a name becomes a dot.  KIND `declaration` is a definition elsewhere.
    - `@receiver` in the same pattern: the type that a method is defined on (Go, C++).
    - `@scope` with `@name`: names what is inside, and is not a symbol itself (Rust's `impl`, a C++ namespace).
    - `@reference`: a name that is used; graph.py resolves it.
    - `@import`: a name that an import binds.
    """
    files = resources.files("rotary_batch.repo") / "queries"
    text = "\n".join((files / f"{name}.scm").read_text(encoding="utf-8") for name in _GRAMMARS[language][2])
    return Query(grammar(language), text)
