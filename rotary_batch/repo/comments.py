"""Comments around definitions: which belong to what, and their text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import islice

from tree_sitter import Node

from rotary_batch.repo.comment_text import comment_text
from rotary_batch.repo.notices import about_the_code, has_licence, speaks_for_file

_MAX_COMMENTS = 1000  # line comments around one thing; to find the one before takes tree-sitter a walk over all
_MAX_TOP_NODES = 200
_GUARDS = {"preproc_ifdef", "preproc_if"}
# Nodes before and between which the comment of a file may be.
_TRANSPARENT = {
    "hash_bang_line",
    "preproc_call",
    "package_declaration",
    "inner_attribute_item",
    "php_tag",
    "empty_statement",
}
_BEHIND = re.compile(rb"//[/!]<|/\*[*!]<")
_STYLE = re.compile(rb"/\*[*!]?|//[/!]?|#!?|--")
# What no comment documents: one that touches them belongs to the file.
_NOT_DOCUMENTED = re.compile(
    r"preproc_(include|call)|.*import.*|package_.*|use_.*|using_.*|namespace_.*|linkage_.*|extern_.*"
)

_FOR_IMPORT = re.compile(
    r"\s*(?:(?:is|are|also|only|just)\s+){0,2}(?:(?:needed|required|used|included|imported|necessary)\s+)?"
    r"(?:for|because\s+of|by)\s+[^\n]{1,80}\Z",
    re.IGNORECASE,
)


def text_of(node: Node) -> str:
    """The source of a node."""
    return (node.text or b"").decode("utf-8", "replace")


def comment_above(node: Node) -> str | None:
    """The comment that ends on the line before, with those it touches; attributes may be between them."""
    comments: list[Node] = []
    line, above = node.start_point.row, node.prev_sibling
    doc: Node | None = None  # the last one that says something about the code
    while above is not None and last_row(above) >= line - 1 and len(comments) < _MAX_COMMENTS:
        if "comment" in above.type:
            if _is_inner(above):
                break
            # A comment at the end of another statement's line belongs to that statement.
            before = above.prev_sibling
            if before is not None and last_row(before) == above.start_point.row and "comment" not in before.type:
                if comments and comments[-1].start_point.column == above.start_point.column:
                    return None  # they go on with it
                break
            if is_behind(above):
                break
            if about_the_code(_clean([above])):
                if doc is not None and not _look_alike(above, doc):
                    break
                doc = above
            comments.append(above)
        elif above.type != "attribute_item":
            break
        line, above = above.start_point.row, above.prev_sibling
    text = clean_comments(comments[::-1] or _right_before(node))
    return None if text and speaks_for_file(text) else text


def _right_before(node: Node) -> list[Node]:
    """The comment before a node on its line, as in `{ /* a */ b, /** c */ d }`.

    One that is not marked as documentation belongs, behind a comma, to what is before that.
    """
    before = node.prev_sibling
    if before is None or "comment" not in before.type or last_row(before) != node.start_point.row or is_behind(before):
        return []
    opens = before.prev_sibling is not None and before.prev_sibling.type in {"{", "("}
    return [before] if opens or _style(before) in {"/**", "/*!"} else []


def is_behind(comment: Node) -> bool:
    """Whether a comment says that it belongs to what is before it: `///<`, `/**<`."""
    return _BEHIND.match((comment.text or b"")[:4]) is not None


def leading_comment(root: Node, *, may_touch: bool = False) -> str | None:
    """The first comment of a file that says something about it: behind the licence, inside an include guard.

    A comment that touches a definition belongs to that, unless `may_touch` is true or it has a tag such as `@file`.
    """
    in_licence = False
    is_first = True  # nothing but guards and the like is before it
    nodes = list(islice(_top_nodes(root), _MAX_TOP_NODES))
    for group in _groups(nodes):
        if "comment" not in group[0].type:
            is_first = is_first and (group[0].type in _TRANSPARENT or _is_text_only(group[0]))
            continue
        after = nodes[nodes.index(group[-1]) + 1] if group[-1] is not nodes[-1] else None
        touches = after is not None and after.start_point.row <= last_row(group[-1]) + 1 and "comment" not in after.type
        text = _clean(group)
        is_own = may_touch or not touches or after is None or _belongs_to_no_symbol(text, after)
        is_about_file = speaks_for_file(text) or _is_inner(group[0]) or (is_first and is_own)
        if is_about_file and (cleaned := about_the_code(text, is_file=True, in_licence=in_licence)):
            return cleaned
        in_licence = in_licence or has_licence(text)
    return None


def _belongs_to_no_symbol(text: str, after: Node) -> bool:
    """Whether a comment is above something that none documents, and does not say what an import is for."""
    return _NOT_DOCUMENTED.fullmatch(after.type) is not None and not _FOR_IMPORT.match(text)


def _top_nodes(root: Node) -> Iterator[Node]:
    """The nodes of a file, with those inside its include guard."""
    waiting = list(reversed(root.children))
    while waiting:
        node = waiting.pop()
        defines = [child for child in node.children[:8] if child.type == "preproc_def"] if node.type in _GUARDS else []
        if defines:
            inside = [child for child in node.children if child.start_point.row > node.start_point.row]
            waiting += [child for child in reversed(inside) if child.id != defines[0].id]
        else:
            yield node


def last_row(node: Node) -> int:
    """The last row that a node has text on; directives and doc comments end at the start of the row after."""
    return node.end_point.row - (node.end_point.column == 0)


def clean_comments(comments: Sequence[Node]) -> str | None:
    """Their text without its marks, licences, rulers and lines for tools, or None."""
    return about_the_code(_clean(comments))


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
        if below.start_point.row != last_row(comments[-1]) + 1 or len(comments) == _MAX_COMMENTS:
            break
        comments.append(below)
        below = below.next_sibling
    if below is not None and below.is_named and below.start_point.row == last_row(comments[-1]):
        return None  # it belongs to what follows it
    return clean_comments(comments)


def _groups(nodes: Sequence[Node]) -> Iterator[list[Node]]:
    """Comments that touch and look alike, as one; every other node alone."""
    group: list[Node] = []
    for node in nodes:
        touches = bool(group) and node.start_point.row <= last_row(group[-1]) + 1
        are_comments = bool(group) and "comment" in node.type and "comment" in group[-1].type
        if group and not (touches and are_comments and _look_alike(group[-1], node)):
            yield group
            group = []
        group.append(node)
    if group:
        yield group


def _look_alike(one: Node, other: Node) -> bool:
    """Whether two comments, one after the other, may be parts of one; a block of several lines is whole."""
    is_block = any(_style(node).startswith("/*") and last_row(node) > node.start_point.row for node in (one, other))
    return not is_block and _style(one) == _style(other)


def _style(comment: Node) -> str:
    """The mark that a comment begins with; documentation has one of its own in many languages."""
    match = _STYLE.match((comment.text or b"")[:4])
    return match.group().decode() if match else ""


def _is_inner(comment: Node) -> bool:
    """Whether a comment documents what is around it: `//!` of Rust."""
    return any(child.type == "inner_doc_comment_marker" for child in comment.children[:3])


def _is_text_only(node: Node) -> bool:
    """`"use strict"` and the like."""
    return node.type == "expression_statement" and [child.type for child in node.named_children] == ["string"]


def _clean(comments: Sequence[Node]) -> str:
    """The text of comments without its marks; a shebang is no comment."""
    texts = [text_of(node) for node in comments if node.start_byte or not (node.text or b"").startswith(b"#!")]
    return "\n".join(_without_box((comment_text(texts) or "").split("\n")))


def _without_box(lines: list[str]) -> list[str]:
    """Without the right side of a box, when every line ends with it."""
    full = [line for line in lines if line.strip()]
    for mark in "*#|/":
        if (
            len(full) > 1
            and all(line.endswith(mark) for line in full)
            and any(f"  {mark}" in line[-3:] for line in full)
        ):
            return [line.rstrip(mark).rstrip() for line in lines]
    return lines
