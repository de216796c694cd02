"""The signature of a definition: its source up to the body, on one line, with long literals elided."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tree_sitter import Node

MAX_SIGNATURE_CHARACTERS = 600
MAX_STRING_NBYTES = 40  # of a string literal that is shown whole
MAX_VALUE_NBYTES = 60  # of a value in brackets that is shown whole
_MAX_KEPT_NBYTES = 8 * MAX_SIGNATURE_CHARACTERS  # read of a definition: more than is shown, even of indented code
# Values; the brackets of types and parameters say what a caller has to know, and stay.
_VALUES = {"argument_list", "arguments", "array", "array_expression", "array_initializer", "dictionary", "object"}
_VALUES |= {"initializer_list", "list", "literal_value", "parenthesized_expression", "set", "tuple"}
_VALUES |= {"dictionary_comprehension", "field_initializer_list", "generator_expression", "list_comprehension"}
_VALUES |= {"set_comprehension", "token_tree"}
_OBJECTS = {"object", "object_type"}  # of `export default {}` and `type A = {}`; elsewhere what is direct is a part
_BODIES = {"block", "class_body", "compound_statement", "statement_block"}  # of functions within a value
_ANNOTATIONS = {"annotation", "marker_annotation"}  # of the definition itself; those of its parameters are shown
_END = re.compile(r"(?: ?(?:\{|=>|[=:]))+$")  # what stands between a definition and its body
_FUNCTION_VALUES = {"arrow_function", "function_expression"}
_OPENING = re.compile(rb"""\w{0,3}(#*)("{3}|'{3}|["'`])""")  # also r#" of Rust and b''' of Python


class _Cut(NamedTuple):
    """Bytes of the source that a signature leaves out, and what replaces them."""

    start: int
    end: int
    instead: bytes


def signature_of(node: Node, end: int | None, source: bytes) -> str:
    """The definition up to a byte, or up to its body when that is None, on one line."""
    if end is None:
        body = node.child_by_field_name("body") or node.child_by_field_name("value")
        if body is not None and body.type in _FUNCTION_VALUES:
            body = body.child_by_field_name("body")
        end = _before(body).end_byte if body is not None else _line_end(node, source)
        return limited(_END.sub("", on_one_line(_shown(node, source, end))))
    return limited(on_one_line(_shown(node, source, end)).rstrip(";,{ "))


def signature_from(parts: Sequence[str | Node], source: bytes) -> str:
    """Texts and nodes on one line; what is on one line keeps its spaces."""
    texts = (part if isinstance(part, str) else _shown(part, source, part.end_byte, is_part=True) for part in parts)
    lines = (on_one_line(text) if "\n" in text else text.strip() for text in texts if text)
    return limited(" ".join(lines).rstrip("; "))


def limited(text: str) -> str:
    """A signature that is no longer than pages show."""
    return text if len(text) <= MAX_SIGNATURE_CHARACTERS else text[: MAX_SIGNATURE_CHARACTERS - 1] + "…"


def _line_end(node: Node, source: bytes) -> int:
    """Where the first line of a node ends."""
    newline = source.find(b"\n", node.start_byte, node.end_byte)
    return node.end_byte if newline < 0 else newline


def on_one_line(text: str) -> str:
    """Source with its white space folded."""
    # Runs of white space first: one expression that looked for brackets around them took 80 s for 2,000 line breaks.
    text = re.sub(r"\s+", lambda run: "\n" if "\n" in run[0] else " ", text)
    # A line break within brackets is not a space; the comma before one ends a list whose items had lines of their own.
    text = re.sub(r"([(\[{])\n|,?\n(?=[)\]}])", r"\1", text)
    return " ".join(text.split())


def _shown(node: Node, source: bytes, end: int, *, is_part: bool = False) -> str:
    whole = None if is_part else node  # of a definition, what is directly in it is shown
    kept, nbytes = list[bytes](), 0
    start = max((child.end_byte for child in node.children if child.type == "decorator"), default=node.start_byte)
    for cut in _cuts(node, whole, source, start, end):
        kept += [source[start : cut.start], cut.instead]
        nbytes += cut.start - start
        start = cut.end
        if nbytes > _MAX_KEPT_NBYTES:
            break
    else:
        kept.append(source[start : min(end, start + _MAX_KEPT_NBYTES)])
    return b"".join(kept).decode("utf-8", "replace")


def _cuts(node: Node, whole: Node | None, source: bytes, start: int, end: int) -> Iterator[_Cut]:
    """In their order: comments, the middle of long strings, of long values in brackets and of function bodies."""
    waiting = [node]
    while waiting:
        inner = waiting.pop()
        if (
            start <= inner.start_byte
            and inner.end_byte <= end
            and (cut := _cut(inner, node, whole, source)) is not None
        ):
            yield cut
            continue
        waiting += [child for child in reversed(inner.children) if child.start_byte < end and child.end_byte > start]


def _cut(inner: Node, node: Node, whole: Node | None, source: bytes) -> _Cut | None:
    nbytes = inner.end_byte - inner.start_byte
    if "comment" in inner.type:
        return _Cut(inner.start_byte, inner.end_byte, b"")  # on one line, `//` would swallow the code after it
    if inner.type in _ANNOTATIONS and inner.parent is not None and inner.parent.parent == node:
        return _Cut(inner.start_byte, inner.end_byte, b"")
    if "string" in inner.type and nbytes > MAX_STRING_NBYTES:
        return _string_cut(inner, source)
    is_value = inner.type in _VALUES or (inner.type == "object_type" and node.type == "type_alias_declaration")
    # The size first: deep down, a parent is looked for from the top of the file.
    is_long = is_value and nbytes > MAX_VALUE_NBYTES and not _holds_function(inner)
    if is_long and inner.type not in _OBJECTS and inner.parent == whole:
        return None
    if is_long or (inner.type in _BODIES and nbytes > len("{}")):
        return _Cut(inner.start_byte + 1, inner.end_byte - 1, "…".encode())
    return None


def _holds_function(node: Node) -> bool:
    """Whether an argument is a function, whose parameters are shown, or a call that may be given one."""
    inside = _FUNCTION_VALUES | {"call_expression"}
    return "argument" in node.type and any(child.type in inside for child in node.named_children)


def _string_cut(node: Node, source: bytes) -> _Cut:
    opening = _OPENING.match(source, node.start_byte, node.start_byte + 12)
    if opening is None:
        return _Cut(node.start_byte, node.end_byte, "…".encode())
    return _Cut(opening.end(), node.end_byte - len(opening[1]) - len(opening[2]), "…".encode())


def _before(body: Node) -> Node:
    """The last node before a body that is not a comment."""
    before = body.prev_sibling
    while before is not None and "comment" in before.type:
        before = before.prev_sibling
    return before or body
