"""Which language a file is in, and how each language is read: one module and one query for each."""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
from functools import cache
from importlib import resources

import tree_sitter

from rotary_batch.repo.languages import c, components, cpp, go, java, javascript, python, rust, typescript
from rotary_batch.repo.languages.language import Definition, Language

__all__ = ["LANGUAGES", "Definition", "Language", "grammar", "language_of", "query", "version"]

_ALL = (
    python.PYTHON,
    javascript.JAVASCRIPT,
    typescript.TYPESCRIPT,
    typescript.TSX,
    components.VUE,
    components.SVELTE,
    go.GO,
    rust.RUST,
    java.JAVA,
    c.C,
    cpp.CPP,
)
LANGUAGES = {language.name: language for language in _ALL}
_BY_ENDING = {ending: language.name for language in _ALL for ending in language.endings}


def language_of(path: str) -> str | None:
    """The language of a file by its ending, or None."""
    stem, _, ending = path.rpartition("/")[2].rpartition(".")
    return _BY_ENDING.get(f".{ending.lower()}") if stem else None


@cache
def grammar(name: str) -> tree_sitter.Language:
    """The tree-sitter grammar; each comes in a wheel of its own."""
    module, function = LANGUAGES[name].grammar
    return tree_sitter.Language(getattr(importlib.import_module(module), function)())


@cache
def query(name: str) -> tree_sitter.Query:
    """Our own query.  Its captures:

    - `@definition.KIND` around a definition, with `@name`: a symbol of that kind; a function inside a class or a scope
      is a method.  `::` in a name becomes a dot.  KIND `declaration` is a definition elsewhere.  Without `@name`, the
      language's `refine` gives the name.
    - `@receiver` in the same pattern: the type that a method is defined on (Go, C++).
    - `@base` in the same pattern, each time: a type that this one extends or implements.
    - `@scope` with `@name`: names what is inside, and is not a symbol itself (Rust's `impl`).
    - `@reference`: a name that is used; graph.py resolves it.
    - `@import`: a name that an import binds.
    """
    files = resources.files("rotary_batch.repo.languages")
    text = "\n".join((files / f"{name}.scm").read_text(encoding="utf-8") for name in LANGUAGES[name].queries)
    return tree_sitter.Query(grammar(name), text)


@cache
def version() -> str:
    """A digest of all that decides what is read out of a file: these modules and queries, and the grammars."""
    package = resources.files("rotary_batch.repo")
    files = [package / name for name in ("chunks.py", "comments.py", "signatures.py", "stubs.py", "symbols.py")]
    files += [file for file in (package / "languages").iterdir() if file.name.endswith((".py", ".scm"))]
    wheels = {language.grammar[0].replace("_", "-") for language in _ALL} | {"tree-sitter"}
    parts = [file.read_bytes() for file in sorted(files, key=lambda file: file.name)]
    parts += [f"{wheel} {importlib.metadata.version(wheel)}".encode() for wheel in sorted(wheels)]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()
