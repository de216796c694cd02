"""The signature of a definition: its source up to the body, on one line."""

from __future__ import annotations

import re

from tree_sitter import Node

MAX_SIGNATURE_CHARACTERS = 600


def signature_of(node: Node, source: bytes) -> str:
    """The definition up to its body, on one line."""
    body = node.child_by_field_name("body") or node.child_by_field_name("value")
    if body is not None and body.type in {"arrow_function", "function_expression"}:
        body = body.child_by_field_name("body")
    end = _before(body).end_byte if body is not None else node.end_byte
    text = _without_comments(node, source, end).decode("utf-8", "replace")
    text = text if body is not None else text.split("\n", 1)[0]
    # Runs of white space first: one expression that looked for brackets around them took 80 s for 2,000 line breaks.
    text = re.sub(r"\s+", lambda run: "\n" if "\n" in run[0] else " ", text)
    text = re.sub(r"([(\[{])\n|\n(?=[)\]}])", r"\1", text)  # a line break within brackets is not a space
    folded = " ".join(text.split()).rstrip("{=:> ").rstrip()
    return folded if len(folded) <= MAX_SIGNATURE_CHARACTERS else folded[: MAX_SIGNATURE_CHARACTERS - 1] + "…"


def _without_comments(node: Node, source: bytes, end: int) -> bytes:
    """The source of a node up to a byte; joined onto one line, a `//` comment would swallow the code after it."""
    kept, start, waiting = [], node.start_byte, [node]
    while waiting:
        inner = waiting.pop()
        if "comment" in inner.type:
            kept.append(source[start : inner.start_byte])
            start = inner.end_byte
        else:
            waiting += [child for child in reversed(inner.children) if child.start_byte < end]
    return b"".join([*kept, source[start:end]])


def _before(body: Node) -> Node:
    """The last node before a body that is not a comment."""
    before = body.prev_sibling
    while before is not None and "comment" in before.type:
        before = before.prev_sibling
    return before or body
