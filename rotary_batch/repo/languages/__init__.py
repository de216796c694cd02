"""Which language a file is in, and how each language is read: one module and one query for each."""

from __future__ import annotations

import ctypes
import hashlib
import importlib
import importlib.metadata
import re
from collections.abc import Sequence
from functools import cache
from importlib import resources

import tree_sitter

from rotary_batch.repo.languages import (
    bash,
    c,
    c_sharp,
    components,
    cpp,
    data,
    go,
    java,
    javascript,
    kotlin,
    lua,
    markdown,
    php,
    python,
    ruby,
    rust,
    scala,
    sql,
    swift,
    typescript,
)
from rotary_batch.repo.languages.language import Definition, Language

__all__ = ["LANGUAGES", "Definition", "Language", "grammar", "language_of", "language_of_script", "query", "version"]

_ALL = (
    python.PYTHON,
    python.NOTEBOOK,
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
    bash.BASH,
    c_sharp.C_SHARP,
    kotlin.KOTLIN,
    lua.LUA,
    php.PHP,
    ruby.RUBY,
    scala.SCALA,
    sql.SQL,
    swift.SWIFT,
    markdown.MARKDOWN,
    data.YAML,
    data.TOML,
    data.JSON,
    data.DOCKERFILE,
    data.MAKE,
)
_CAPSULE_NAME = b"tree_sitter.Language"  # must live as long as the capsules
LANGUAGES = {language.name: language for language in _ALL}
_BY_NAME = {name: language.name for language in _ALL for name in language.file_names}
_BY_ENDING = {ending: language.name for language in _ALL for ending in language.endings}
_BY_INTERPRETER = {interpreter: language.name for language in _ALL for interpreter in language.interpreters}
_READING = (  # modules of the package above
    *("chunks", "comment_text", "comments", "expressions", "files", "generated", "headers", "notebooks", "notices"),
    *("own_pages", "scopes", "secrets", "section_titles", "signatures", "source_text", "stubs", "symbols"),
)
_SHEBANG = re.compile(rb"#![ \t]*(\S+)((?:[ \t]+\S+){0,9})")
_BY_EXACT_ENDING = {ending: language.name for language in _ALL for ending in language.exact_endings}


def language_of(path: str) -> str | None:
    """The language of a file by its name or its ending, or None."""
    name = path.rpartition("/")[2]
    if name in _BY_NAME:
        return _BY_NAME[name]
    stem, _, ending = name.rpartition(".")
    exact = None if stem.isupper() else _BY_EXACT_ENDING.get(f".{ending}")  # NAME.C was C, where names are in capitals
    return exact or _BY_ENDING.get(f".{ending.lower()}") if stem else None


def language_of_script(text: bytes) -> str | None:
    """The language of a file by the interpreter in its first line, or None."""
    match = _SHEBANG.match(text[:500].split(b"\n", 1)[0])
    if match is None:
        return None
    words = [match[1], *match[2].split()]
    if words[0].rpartition(b"/")[2] == b"env":  # its options, and settings of variables
        words = [word for word in words[1:] if not word.startswith(b"-") and b"=" not in word]
    name = words[0].rpartition(b"/")[2].decode("ascii", "replace") if words else ""
    return _BY_INTERPRETER.get(name) or _BY_INTERPRETER.get(name.rstrip("0123456789.")) or _of_runner(name, words)


def _of_runner(name: str, words: Sequence[bytes]) -> str | None:
    """Of tools that run scripts of one language: `uv run --script`, `pipx run`."""
    return "python" if name in {"uv", "pipx"} and b"run" in words[1:] else None


@cache
def grammar(name: str) -> tree_sitter.Language:
    """The tree-sitter grammar; each comes in a wheel of its own."""
    module, function = LANGUAGES[name].grammar
    pointer = getattr(importlib.import_module(module), function)()
    return tree_sitter.Language(_capsule(pointer) if isinstance(pointer, int) else pointer)


def _capsule(pointer: int) -> object:
    """Grammars built with old tools give a number, for which tree-sitter warns."""
    make = ctypes.pythonapi.PyCapsule_New
    make.restype, make.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
    return make(pointer, _CAPSULE_NAME, None)


@cache
def query(name: str) -> tree_sitter.Query:
    """Our own query.  Its captures:

    - `@definition.KIND` around a definition, with `@name`: a symbol of that kind; a function inside a class or a scope
      is a method.  `::` in a name becomes a dot.  KIND `declaration` is a definition elsewhere.  Without `@name`, the
      language's `refine` gives the name.
    - `@receiver` in the same pattern: the type that a method is defined on (Go, C++).
    - `@base` in the same pattern, each time: a type that this one extends or implements.
    - `@scope` with `@name`: names what is inside, and is not a symbol itself (Rust's `impl`).
    - `@reference`: a name that is used; `repo.resolve` says which symbol it is.
    - `@import`: a name that an import binds.
    - `@import.statement`: a statement that the language's `imports` reads.
    - `@local.scope`, `@local.class`: a node in which names are bound; those of a class are its fields.
    - `@local`: a name, or a pattern of names, that is bound in the scope around it, or a field such as `self.x`; with
      `@local.type` its declared type, with `@local.value` the expression that it is bound to, or with `@local.entered`
      that of a context manager, in the same pattern.
    - `@local.field`: the same for a parameter that is a field of the class around it too.
    - `@local.free`: a name that is not bound in the scope around it after all.
    """
    files = resources.files("rotary_batch.repo.languages")
    text = "\n".join((files / f"{name}.scm").read_text(encoding="utf-8") for name in LANGUAGES[name].queries)
    return tree_sitter.Query(grammar(name), text)


@cache
def version() -> str:
    """A digest of all that decides what is read out of a file: these modules and queries, and the grammars."""
    package = resources.files("rotary_batch.repo")
    files = [package / f"{name}.py" for name in _READING]
    files.append(resources.files("rotary_batch") / "readme.py")
    files += [file for file in (package / "languages").iterdir() if file.name.endswith((".py", ".scm"))]
    wheels = {language.grammar[0].replace("_", "-") for language in _ALL} | {"tree-sitter", "detect-secrets"}
    parts = [file.read_bytes() for file in sorted(files, key=lambda file: file.name)]
    parts += [f"{wheel} {importlib.metadata.version(wheel)}".encode() for wheel in sorted(wheels)]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()
