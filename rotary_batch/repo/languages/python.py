"""Python."""

from __future__ import annotations

import ast
import inspect
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from tree_sitter import Node

from rotary_batch.core import Symbol
from rotary_batch.repo.comments import comment_above, comment_after, last_row, leading_comment, text_of
from rotary_batch.repo.languages import python_assignments
from rotary_batch.repo.languages.import_statements import python_imports
from rotary_batch.repo.languages.language import MAX_SHARING, Definition, Language, Scoping
from rotary_batch.repo.languages.python_lines import breaks_within_brackets
from rotary_batch.repo.languages.visibility import within_private
from rotary_batch.repo.notices import about_the_code

_PROPERTIES = {
    *("property", "cached_property", "functools.cached_property", "abc.abstractproperty", "abstractproperty"),
    *("types.DynamicClassAttribute", "enum.property"),
}


def _refine(definition: Definition) -> Iterable[Definition]:
    node = definition.node
    if node.type == "module":
        return [*python_assignments.exports(node), *python_assignments.definitions(node)]
    if node.type == "block":
        return python_assignments.definitions(node)
    outer = node.parent if node.parent is not None and node.parent.type == "decorated_definition" else node
    definition = definition._replace(outer=outer, name=_normalised(definition.name), last=_last_node(node))
    if node.type == "class_definition":
        return [definition._replace(bases=tuple(_bases(node)))]
    return [definition._replace(kind=_kind(outer, definition.name))]


def _kind(outer: Node, name: str) -> str:
    """Of a function.  The setter of a property of the same class only gives its name to what is inside."""
    decorators = [_decorator_name(child) for child in outer.named_children if child.type == "decorator"]
    if any(decorator in {f"{name}.setter", f"{name}.deleter"} for decorator in decorators):
        return "scope"
    is_property = any(one in _PROPERTIES or one.endswith((".setter", ".getter", ".deleter")) for one in decorators)
    return "property" if is_property else "function"


def _decorator_name(decorator: Node) -> str:
    called = decorator.named_children[0] if decorator.named_child_count else decorator
    return text_of(called.child_by_field_name("function") or called)


def _bases(node: Node) -> Iterator[str]:
    superclasses = node.child_by_field_name("superclasses")
    for base in superclasses.named_children if superclasses is not None else ():
        if base.type not in {"keyword_argument", "comment"}:
            yield " ".join(text_of(base).split())[:200]


def _last_node(node: Node) -> Node | None:
    """The last node of a block that ends with comments: they are no part of it for Python."""
    cursor = node.walk()
    while cursor.goto_last_child():
        pass
    if cursor.node is None or cursor.node.type != "comment":
        return None
    last = node
    while inner := next((child for child in reversed(last.children) if child.type != "comment"), None):
        last = inner
    return last


def _normalised(name: str) -> str:
    """Python takes names that differ only in form for one (https://docs.python.org/3/reference/lexical_analysis.html)."""
    return name if name.isascii() else unicodedata.normalize("NFKC", name)


def _is_public(definition: Definition) -> bool:
    name = definition.name
    if definition.node.type in {"function_definition", "class_definition"}:
        return not name.startswith("_") or (name.startswith("__") and name.endswith("__"))
    return not name.startswith("_")


def _complete(symbols: Sequence[Symbol], exports: Sequence[Definition]) -> Sequence[Symbol]:
    """At the top of a module that has `__all__`, what it names is public and nothing else."""
    names = {export.name for export in exports}
    if names:
        symbols = [one if "." in one.qualified_name else replace(one, is_public=one.name in names) for one in symbols]
    return within_private(symbols)


def _docstring(definition: Definition) -> str | None:
    if definition.node.type in {"function_definition", "class_definition"}:
        return _docstring_of(definition.node.child_by_field_name("body"))
    return _docs_around(definition.node)


def _docs_around(name: Node) -> str | None:
    """Of an assignment: the string below it, else a `#:` beside it, the comment above it, any comment beside it."""
    statement, around = name, name.parent
    is_pattern = around is not None and around.type.endswith(("_pattern", "_list"))
    if is_pattern and around is not None and around.named_child_count > MAX_SHARING:
        return None
    while statement.parent is not None and statement.parent.type not in {"module", "block"}:
        statement = statement.parent
    below = statement.next_sibling
    if below is not None and below.start_point.row <= last_row(statement) + 1 and (text := _string(below)):
        return text
    beside = statement.next_sibling
    is_meant = beside is not None and beside.type == "comment" and text_of(beside).startswith("#:")
    block = statement.parent
    is_first = statement.prev_sibling is None and block is not None and block.type == "block"
    # A comment before the first statement of a block is before the block.
    above = None if is_meant else comment_above(block if is_first and block is not None else statement)
    return above or comment_after(statement)


def _docstring_of(body: Node | None) -> str | None:
    first = next((child for child in body.named_children if child.type != "comment"), None) if body else None
    return _string(first) if first is not None else None


def _string(statement: Node) -> str | None:
    """The text of a statement that is a string alone."""
    if statement.type != "expression_statement" or statement.named_child_count != 1:
        return None
    if statement.named_children[0].type != "string":
        return None
    try:
        value = ast.literal_eval(text_of(statement.named_children[0]))
    except (ValueError, SyntaxError, MemoryError):
        return None
    return about_the_code(inspect.cleandoc(value), is_comment=False) if isinstance(value, str) else None


def _about_file(root: Node) -> str | None:
    return about_the_code(_docstring_of(root) or "", is_file=True, is_comment=False)


PYTHON = Language(
    name="python",
    grammar=("tree_sitter_python", "language"),
    queries=("python",),
    doc_mark='"""',
    endings=(".py", ".pyi", ".pyw"),
    interpreters=("python", "python2", "python3"),
    misread_breaks=breaks_within_brackets,
    decorators=frozenset({"decorator"}),
    dotted=frozenset({"attribute"}),
    refine=_refine,
    is_public=_is_public,
    complete=_complete,
    docstring=_docstring,
    file_docstring=lambda root: _about_file(root) or leading_comment(root, may_touch=True),
    scoping=Scoping(hoists=True, is_closed=True),
    imports=python_imports,
)
NOTEBOOK = replace(PYTHON, name="notebook", endings=(".ipynb",), interpreters=(), doc_mark=None)
