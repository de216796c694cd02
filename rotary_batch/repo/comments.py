"""Comments around definitions: which belong to what, and their text."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tree_sitter import Node

from rotary_batch.repo.comment_text import comment_text

_LICENCE = re.compile(
    r"copyright\b|\(c\)|spdx-|licen[cs]ed under|all rights reserved|permission is hereby|redistribution and use"
    r"|this (file|program|software|source|library|code|work)\b.*(licen[cs]|copyright|free software)",
    re.IGNORECASE | re.DOTALL,
)


def text_of(node: Node) -> str:
    """The source of a node."""
    return (node.text or b"").decode("utf-8", "replace")


def comment_above(node: Node) -> str | None:
    """The comment that ends on the line before, with those it touches; attributes may be between them."""
    comments: list[Node] = []
    line, above = node.start_point.row, node.prev_sibling
    while above is not None and last_row(above) >= line - 1:
        if "comment" in above.type:
            # A comment at the end of another statement's line belongs to that statement.
            before = above.prev_sibling
            if before is not None and last_row(before) == above.start_point.row and "comment" not in before.type:
                break
            if above.child_by_field_name("inner") is not None:  # Rust's `//!` is about what is around it
                break
            comments.insert(0, above)
        elif above.type != "attribute_item":
            break
        line, above = above.start_point.row, above.prev_sibling
    return clean_comments(comments)


def leading_comment(root: Node, *, may_touch: bool = False) -> str | None:
    """The first comment of a file, without its licence.

    A comment that touches what follows belongs to that, unless `may_touch` is true.
    """
    first = next((child for child in root.children if child.type not in {"hash_bang_line", "preproc_ifdef"}), None)
    comments: list[Node] = []
    while first is not None and "comment" in first.type:
        if comments and first.start_point.row > last_row(comments[-1]) + 1:
            break
        comments.append(first)
        first = first.next_sibling
    if first is not None and comments and not may_touch and first.start_point.row <= last_row(comments[-1]) + 1:
        return None
    text = clean_comments(comments) or ""
    paragraphs = [part for part in re.split(r"\n\s*\n", text) if not _LICENCE.match(part.strip())]
    return "\n\n".join(paragraphs).strip() or None


def last_row(node: Node) -> int:
    """The last row that a node has text on; directives and doc comments end at the start of the row after."""
    return node.end_point.row - (node.end_point.column == 0)


def clean_comments(comments: Sequence[Node]) -> str | None:
    """Their text without its marks, or None."""
    return comment_text([text_of(comment) for comment in comments])


def comment_before(node: Node) -> str | None:
    """The comment between brackets that ends on the line of a node, right before it."""
    before = node.prev_sibling
    is_near = before is not None and "comment" in before.type and before.end_point.row == node.start_point.row
    return clean_comments([before]) if before is not None and is_near else None


def comment_after(node: Node) -> str | None:
    """The comment that follows a node on its line, with those below it that are aligned with it."""
    after = node.next_sibling
    while after is not None and after.type in {",", ";"}:
        after = after.next_sibling
    if after is None or "comment" not in after.type or after.start_point.row != last_row(node):
        return None
    comments, column = [after], after.start_point.column
    below = after.next_sibling
    while below is not None and "comment" in below.type and below.start_point.column == column:
        if below.start_point.row != last_row(comments[-1]) + 1:
            break
        comments.append(below)
        below = below.next_sibling
    if below is not None and below.is_named and below.start_point.row == last_row(comments[-1]):
        return None  # it belongs to what follows it
    return clean_comments(comments)
