"""JavaScript."""

from __future__ import annotations

import re

from tree_sitter import Node

from rotary_batch.repo.comments import (
    clean_comments,
    comment_above,
    comment_after,
    comment_before,
    last_row,
    leading_comment,
)
from rotary_batch.repo.languages.ecmascript import definitions
from rotary_batch.repo.languages.ecmascript_exports import PRIVATE_TAG, complete
from rotary_batch.repo.languages.import_statements import ecmascript_imports
from rotary_batch.repo.languages.language import Definition, Language, Scoping

_DEPENDENCIES = re.compile(r"(module |internal |external )?(dependencies|imports)\b", re.IGNORECASE)
_VALUES = {"field", "member", "constant", "variable"}


def docstring(definition: Definition) -> str | None:
    """The comment above a definition and its decorators, else that before it or after it on its line."""
    outer, node = definition.outer, definition.node
    while outer.type in {"member_expression", "subscript_expression"} and outer.parent is not None:
        outer = outer.parent  # `b` of `a = b = function () {}` has the comment of both
        while outer.parent is not None and outer.parent.type in {"assignment_expression", "expression_statement"}:
            outer = outer.parent
    text = comment_before(outer) or comment_above(outer)
    before = outer.prev_named_sibling
    while text is None and before is not None and before.type == "decorator":
        text, before = comment_above(before), before.prev_named_sibling
    if text is None and outer.type == "export_statement" and node.parent == outer:
        text = comment_before(node) or comment_above(node)  # between a decorator and `export`
    return text or (comment_after(outer) if definition.kind in _VALUES else None) or _jsdoc_above(outer)


def _jsdoc_above(node: Node) -> str | None:
    """The `/** … */` before a definition with empty lines between; the first of a file is the file's."""
    above = node.prev_sibling
    if above is None or above.type != "comment" or not (above.text or b"").startswith(b"/**"):
        return None
    before = above.prev_sibling
    is_own = before is not None and last_row(before) < above.start_point.row
    return clean_comments([above]) if is_own else None


def file_docstring(root: Node) -> str | None:
    """The first comment of a file, unless it is about what the file needs for itself."""
    text = leading_comment(root)
    return None if text and (PRIVATE_TAG.search(text) or _DEPENDENCIES.match(text)) else text


def is_public(definition: Definition) -> bool:
    """Whether a name is meant for others; what a file exports is known when all of it was read."""
    name = definition.name.rpartition(".")[2]
    if name.startswith("#") or (name.startswith("_") and name.strip("_")):
        return False
    return all(child.text != b"private" for child in definition.node.children if child.type == "accessibility_modifier")


JAVASCRIPT = Language(
    name="javascript",
    grammar=("tree_sitter_javascript", "language"),
    queries=("javascript", "javascript_fields"),
    doc_mark="/**",
    endings=(".js", ".mjs", ".cjs", ".jsx"),
    interpreters=("node", "nodejs", "bun", "deno"),
    decorators=frozenset({"decorator"}),
    dotted=frozenset({"member_expression"}),
    refine=definitions,
    complete=complete,
    is_public=is_public,
    docstring=docstring,
    file_docstring=file_docstring,
    scoping=Scoping(hoists=True, is_closed=True),
    imports=ecmascript_imports,
)
