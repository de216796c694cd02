"""A source without the docs of some of its symbols: their comments and docstrings are taken out, all other stays.

Knows syntax trees; knows nothing of sentences or prompts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from tree_sitter import Node, Tree

from rotary_batch.core import Symbol

_BETWEEN = {"attribute_item", "decorator", "annotation", "marker_annotation", "attribute_list", "modifiers", "export"}
_MAX_COMMENTS = 400


class Span(NamedTuple):
    """Bytes that are replaced."""

    start: int
    end: int
    text: bytes = b""


def hidden(source: bytes, tree: Tree, symbols: Sequence[Symbol], language: str) -> bytes:
    """The source without the docs of the symbols; those of Python that have no other body get `...`."""
    starts = {symbol.start_byte for symbol in symbols}
    lines = {symbol.start_line for symbol in symbols}
    spans: list[Span] = []
    if language == "python":
        spans += _docstrings(tree.root_node, starts, source)
    spans += _comments_above(tree.root_node, lines, source)
    return _without(source, spans)


def without_file_docs(source: bytes, language: str, tree: Tree) -> bytes:
    """The source without a Python module's docstring."""
    first = next((child for child in tree.root_node.children if "comment" not in child.type), None)
    if language == "python" and first is not None and _is_string(first):
        return _without(source, [_whole_lines(first.start_byte, first.end_byte, source)])
    return source


def _without(source: bytes, spans: Collection[Span]) -> bytes:
    parts, place = [], 0
    for span in sorted(spans):
        if span.start < place:
            continue
        parts += [source[place : span.start], span.text]
        place = span.end
    return b"".join([*parts, source[place:]])


def _walk(root: Node) -> Iterator[Node]:
    waiting = [root]
    while waiting:
        node = waiting.pop()
        yield node
        waiting += reversed(node.children)


def _is_string(node: Node) -> bool:
    return node.type == "expression_statement" and node.child_count == 1 and node.children[0].type == "string"


def _docstrings(root: Node, starts: set[int], source: bytes) -> Iterator[Span]:
    for node in _walk(root):
        if node.type not in {"function_definition", "class_definition"}:
            continue
        outer = node.parent if node.parent is not None and node.parent.type == "decorated_definition" else node
        body = node.child_by_field_name("body")
        if not starts & {outer.start_byte, node.start_byte} or body is None or not body.children:
            continue
        held = [child for child in body.children if "comment" not in child.type]
        if held and _is_string(held[0]):
            document = held[0]
            if len(held) == 1:
                yield Span(document.start_byte, document.end_byte, b"...")
            else:
                yield _whole_lines(document.start_byte, document.end_byte, source)


def _whole_lines(start: int, end: int, source: bytes) -> Span:
    """With the indentation before and the end of the line behind, where nothing else stands on those lines."""
    begin = source.rfind(b"\n", 0, start) + 1
    stop = source.find(b"\n", end)
    stop = len(source) if stop < 0 else stop + 1
    if not source[begin:start].strip() and not source[end:stop].strip():
        while source[stop : stop + 1] == b"\n":
            stop += 1
        return Span(begin, stop)
    return Span(start, end)


def _comments_above(root: Node, lines: set[int], source: bytes) -> Iterator[Span]:
    """Comments that end on the line before a symbol, with those they touch, and those behind it on its line."""
    comments = sorted(
        (n for n in _walk(root) if "comment" in n.type and (n.parent is None or "comment" not in n.parent.type)),
        key=lambda n: n.start_byte,
    )
    ends: dict[int, list[Node]] = {}
    for node in comments:
        ends.setdefault(_last_row(node), []).append(node)
    attributes = {_last_row(node): node.start_point.row for node in _walk(root) if node.type in _BETWEEN}
    for line in lines:
        row = line - 1
        if row in attributes:
            row = min(row, attributes[row])
        row -= 1
        for _ in range(_MAX_COMMENTS):
            if row in ends:
                above = [
                    n for n in ends[row] if not source[source.rfind(b"\n", 0, n.start_byte) + 1 : n.start_byte].strip()
                ]
                if not above:
                    break
                yield _whole_lines(above[0].start_byte, above[-1].end_byte, source)
                row = above[0].start_point.row - 1
            elif row in attributes:
                row = attributes[row] - 1
            else:
                break


def _last_row(node: Node) -> int:
    return node.end_point.row - (node.end_point.column == 0)
