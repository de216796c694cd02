"""Python."""

from __future__ import annotations

import ast
import inspect

from tree_sitter import Node

from rotary_batch.repo.comments import leading_comment, text_of
from rotary_batch.repo.languages.language import Language
from rotary_batch.repo.notices import about_the_code

PYTHON = Language(
    name="python",
    grammar=("tree_sitter_python", "language"),
    queries=("python",),
    endings=(".py", ".pyi", ".pyw"),
    interpreters=("python", "python2", "python3"),
    wrappers=frozenset({"decorated_definition"}),
    decorators=frozenset({"decorator"}),
    dotted=frozenset({"attribute"}),
    docstring=lambda definition: _docstring_of(definition.node.child_by_field_name("body")),
    file_docstring=lambda root: _about_file(root) or leading_comment(root, may_touch=True),
)


def _docstring_of(body: Node | None) -> str | None:
    first = next((child for child in body.named_children if child.type != "comment"), None) if body else None
    if first is None or first.type != "expression_statement" or first.named_child_count != 1:
        return None
    if first.named_children[0].type != "string":
        return None
    try:
        value = ast.literal_eval(text_of(first.named_children[0]))
    except (ValueError, SyntaxError, MemoryError):
        return None
    return about_the_code(inspect.cleandoc(value), is_comment=False) if isinstance(value, str) else None


def _about_file(root: Node) -> str | None:
    return about_the_code(_docstring_of(root) or "", is_file=True, is_comment=False)
