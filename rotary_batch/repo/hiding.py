"""A source without what its authors say of its symbols, so that a model can be asked for what they said."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

from tree_sitter import Node, Tree

from rotary_batch.core import Symbol
from rotary_batch.repo.symbols import parse

_PYTHON_BODIES = {"function_definition", "class_definition"}
_BETWEEN = (b"#[", b"@")  # attributes and annotations between a comment and what it is about


def without_docstrings(language: str, source: bytes, symbols: Sequence[Symbol]) -> bytes:
    """The source without the docstrings of these symbols and the comments right above them.

    Whole lines go, so that nothing tells where they were.  A Python body that is nothing but its docstring becomes
    `...`.
    """
    tree = parse(language, source)
    documented = [symbol for symbol in symbols if symbol.docstring]
    if language == "python":
        starts = {symbol.start_byte for symbol in documented}
        spans = [*_docstrings_in_bodies(tree, source, starts), *_comments_above(tree, source, documented)]
    else:
        spans = list(_comments_above(tree, source, documented))
    return _replaced(source, spans)


Span = tuple[int, int, bytes]


def _replaced(source: bytes, spans: Iterable[Span]) -> bytes:
    parts, place = list[bytes](), 0
    for start, end, text in sorted(set(spans)):
        if start >= place:
            parts += [source[place:start], text]
            place = end
    return b"".join([*parts, source[place:]])


def _docstrings_in_bodies(tree: Tree, source: bytes, starts: Collection[int]) -> Iterator[Span]:
    """Of the definitions that start at these bytes, decorators included."""
    outer_starts: dict[int, int] = {}  # of definitions below decorators
    for node in _all_nodes(tree):
        if node.type == "decorated_definition" and (inner := node.child_by_field_name("definition")) is not None:
            outer_starts[inner.start_byte] = node.start_byte
        is_wanted = node.type in _PYTHON_BODIES and outer_starts.get(node.start_byte, node.start_byte) in starts
        body = node.child_by_field_name("body") if is_wanted else None
        children = [] if body is None else [child for child in body.named_children if child.type != "comment"]
        if body is None or not children or not _is_string(children[0]):
            continue
        first = children[0]
        if len(children) == 1:
            yield first.start_byte, first.end_byte, b"..."
        elif _is_alone(first, source):
            yield *_lines(first.start_byte, first.end_byte, source), b""


def _is_string(node: Node) -> bool:
    return node.type == "expression_statement" and [child.type for child in node.named_children] == ["string"]


def _comments_above(tree: Tree, source: bytes, symbols: Sequence[Symbol]) -> Iterator[Span]:
    """The comments that end on the line above a symbol, and those above these."""
    ending_on: dict[int, Node] = {}
    for node in _all_nodes(tree):
        if "comment" in node.type:  # the outermost comes first
            ending_on.setdefault(node.end_point.row - (node.end_point.column == 0), node)
    lines = source.split(b"\n")
    for symbol in symbols:
        row = symbol.start_line - 2
        while row >= 0:
            comment = ending_on.get(row)
            if comment is not None and _is_alone(comment, source):
                yield *_lines(comment.start_byte, comment.end_byte, source), b""
                row = comment.start_point.row - 1
            elif lines[row].lstrip().startswith(_BETWEEN):
                row -= 1
            else:
                break


def _is_alone(node: Node, source: bytes) -> bool:
    """Whether nothing else is on the lines of a node."""
    start, end = _lines(node.start_byte, node.end_byte, source)
    return not source[start : node.start_byte].strip() and not source[node.end_byte : end].strip()


def _lines(start: int, end: int, source: bytes) -> tuple[int, int]:
    """A span, extended to whole lines."""
    if end > start and source[end - 1 : end] == b"\n":
        return source.rfind(b"\n", 0, start) + 1, end
    return source.rfind(b"\n", 0, start) + 1, source.find(b"\n", end) + 1 or len(source)


def _all_nodes(tree: Tree) -> Iterator[Node]:
    """Every node, without recursion: code may be nested deeply."""
    cursor, goes_down = tree.walk(), True
    while True:
        if goes_down and cursor.node is not None:
            yield cursor.node
        if goes_down and cursor.goto_first_child():
            continue
        if cursor.goto_next_sibling():
            goes_down = True
        elif cursor.goto_parent():
            goes_down = False
        else:
            return
