"""Import statements that name namespaces or modules: PHP, C#, Swift; and those that load files: PHP, Ruby, Lua.

In what these return, the parts of a namespace are separated by dots, and a path from the folder of the file begins
with `./`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tree_sitter import Node

from rotary_batch.repo.comments import text_of
from rotary_batch.repo.languages.language import Imported

MAX_STATEMENT_NBYTES = 5000  # of an import statement that is read
_MAX_NAMES = 1000  # of one statement
_WHITE = re.compile(r"\s+")
_QUOTED = re.compile(r"""\(?\s*(["'])([^"'\\$#{}\n]{1,500})\1\s*\)?""")
_BESIDE = re.compile(r"__DIR__\s*\.\s*|dirname\(\s*__FILE__\s*\)\s*\.\s*")
_ABOVE = re.compile(r"dirname\(\s*__DIR__\s*\)\s*\.\s*")
_REQUIRED = re.compile(r"""require\s*\(?\s*(["'])([\w./-]{1,500})\1\s*\)?\s*(?:\.\s*(\w+))?""")

_BOUND = re.compile(r"local\s+(\w+)\s*(?:<\w+>\s*)?=\s*")


def _text(node: Node) -> str:
    return text_of(node) if node.end_byte - node.start_byte <= MAX_STATEMENT_NBYTES else ""


def php_imports(node: Node) -> Iterator[Imported]:
    """`namespace A\\B;`, `use A\\B as C, A\\{D, E}`, `use function A\\f`, `require __DIR__ . '/a.php'`."""
    if node.type == "namespace_definition":
        name = node.child_by_field_name("name")
        if name is not None and node.child_by_field_name("body") is None:
            yield Imported(_dotted(_text(name)), None, "")
    elif node.type == "namespace_use_declaration":
        prefix = next((_dotted(_text(child)) for child in node.named_children if child.type == "namespace_name"), "")
        group = node.child_by_field_name("body") or node
        for clause in group.named_children[:_MAX_NAMES]:
            if clause.type == "namespace_use_clause":
                yield from _use_clause(clause, prefix)
    else:
        yield from _included(_text(node))


def _use_clause(clause: Node, prefix: str) -> Iterator[Imported]:
    alias = clause.child_by_field_name("alias")
    path = re.sub(r"^(function|const)\s+|\s+as\s.*", "", _text(clause), flags=re.DOTALL)
    module, _, name = ".".join(filter(None, [prefix, _dotted(path)])).rpartition(".")
    if name:
        yield Imported(module, name, text_of(alias) if alias is not None else name)


def _included(statement: str) -> Iterator[Imported]:
    """A file that is named relative to this one."""
    path = re.sub(r"^(require|include)(_once)?\b\s*\(?\s*", "", statement)
    above = _ABOVE.match(path)
    beside = above or _BESIDE.match(path)
    quoted = _QUOTED.fullmatch(path[beside.end() if beside else 0 :].strip())
    if quoted is not None:
        yield Imported(f"./{'../' if above else ''}{quoted[2].lstrip('/') if beside else quoted[2]}", "*", "")


def _dotted(name: str) -> str:
    return _WHITE.sub("", name).strip("\\").replace("\\", ".")


def c_sharp_imports(node: Node) -> Iterator[Imported]:
    """`using A.B;`, `using static A.B;`, `using C = A.B;`, `namespace A.B;`."""
    if node.type == "file_scoped_namespace_declaration":
        name = node.child_by_field_name("name")
        yield Imported(_WHITE.sub("", _text(name)) if name is not None else "", None, "")
        return
    paths = [child for child in node.named_children if child.type in {"identifier", "qualified_name"}]
    name = node.child_by_field_name("name")
    if not paths:
        return
    path = paths[-1]
    whole = _WHITE.sub("", _text(path)).removeprefix("global::")
    module, _, last = whole.rpartition(".")
    yield Imported(module, last, text_of(name)) if name is not None and module else Imported(whole, "*", "")


def swift_imports(node: Node) -> Iterator[Imported]:
    """`import A`, `import struct A.B`."""
    path = next((_text(child) for child in node.named_children if child.type == "identifier"), "")
    module, _, name = path.partition(".")
    if module:
        yield Imported(module, name, name) if name and "." not in name else Imported(module, "*", "")


def ruby_imports(node: Node) -> Iterator[Imported]:
    """`require "a/b"`, `require_relative "b"`."""
    method, arguments = node.child_by_field_name("method"), node.child_by_field_name("arguments")
    if method is None or arguments is None or node.child_by_field_name("receiver") is not None:
        return
    quoted = _QUOTED.fullmatch(_text(arguments).strip())
    if quoted is not None:
        path = quoted[2].removesuffix(".rb")
        yield Imported(f"./{path}" if text_of(method) == "require_relative" else path, "*", "")


def lua_imports(node: Node) -> Iterator[Imported]:
    """`local a = require("b.c")`, `require "d"`, and `return M`, which is what others get."""
    if node.type == "return_statement":
        returned = re.fullmatch(r"return\s+(\w+)\s*;?", _text(node))
        if returned is not None:
            yield Imported("", returned[1], "return")
    elif node.type == "function_call":
        if required := _REQUIRED.fullmatch(_text(node)):
            yield Imported(required[2].replace("/", "."), "*", "")
    else:
        bound = _BOUND.match(_text(node))
        required = bound and _REQUIRED.fullmatch(_text(node)[bound.end() :].strip())
        if bound and required:
            yield Imported(required[2].replace("/", "."), required[3], bound[1])
