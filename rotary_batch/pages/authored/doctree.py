"""The document tree of docutils as blocks.  Its depth is bounded by `restructured.py`, so recursion is too."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rotary_batch.pages.authored.blocks import (
    Block,
    Heading,
    ItemList,
    Notice,
    Paragraph,
    Table,
    code_block,
    fold,
    paragraphs,
    span,
)
from rotary_batch.pages.authored.python_fields import field_blocks

_ERROR = 3  # a level of docutils' messages
Node = Any  # docutils has no types


def document_blocks(node: Node) -> list[Block]:
    """The blocks of all that a node holds; nodes without a reader of their own are what they hold."""
    blocks: list[Block] = []
    for child in node.children:
        blocks += _READERS.get(type(child).__name__, document_blocks)(child)
    return blocks


def _nothing(_: Node) -> list[Block]:
    return []


def _paragraph(node: Node) -> list[Block]:
    return paragraphs(_inline(node))


def _heading(node: Node) -> list[Block]:
    return [Heading(text)] if (text := _inline(node)) else []


def _code(node: Node) -> list[Block]:
    return code_block(node.astext(), node.get("language") or "text")


def _doctest(node: Node) -> list[Block]:
    return code_block(node.astext(), "pycon")


def _bullets(node: Node) -> list[Block]:
    return [ItemList(tuple(tuple(document_blocks(item)) for item in node.children))]


def _numbers(node: Node) -> list[Block]:
    return [ItemList(tuple(tuple(document_blocks(item)) for item in node.children), is_ordered=True)]


def _definitions(node: Node) -> list[Block]:
    return [ItemList(tuple(tuple(_definition(item)) for item in node.children))]


def _definition(item: Node) -> list[Block]:
    """A term, then what is said of it."""
    kinds: dict[str, list[Node]] = {}
    for child in item.children:
        kinds.setdefault(type(child).__name__, []).append(child)
    terms = [_inline(child) for kind in ("term", "option_group") for child in kinds.get(kind, ())]
    classes = ", ".join(_inline(child) for child in kinds.get("classifier", ()))
    term = " ".join([*terms, *([f"({classes})"] if classes else [])])
    said = [
        block for kind in ("definition", "description") for c in kinds.get(kind, ()) for block in document_blocks(c)
    ]
    if said and isinstance(said[0], Paragraph):
        return [Paragraph(f"{term}: {said[0].text}"), *said[1:]]
    return [*paragraphs(term), *said]


def _lines(node: Node) -> list[Block]:
    items = [paragraphs(_inline(line)) for line in node.children if type(line).__name__ == "line"]
    return [ItemList(tuple(map(tuple, items)))]


def _fields(node: Node) -> list[Block]:
    return field_blocks([(field[0].astext(), document_blocks(field[1])) for field in node.children])


def _notice(node: Node) -> list[Block]:
    return [Notice(node["title"], tuple(document_blocks(node)))]


def _footnote(node: Node) -> list[Block]:
    label = next((f"[{child.astext()}] " for child in node.children if type(child).__name__ == "label"), "")
    said = document_blocks(node)
    if said and isinstance(said[0], Paragraph):
        return [Paragraph(label + said[0].text), *said[1:]]
    return [*paragraphs(label), *said]


def _message(node: Node) -> list[Block]:
    """What docutils could not parse is the literal block of its message; after a warning it goes on."""
    if node["level"] < _ERROR:
        return []
    return [block for child in node.children if type(child).__name__ == "literal_block" for block in _code(child)]


def _table(node: Node) -> list[Block]:
    titles = [block for child in node.children if type(child).__name__ == "title" for block in _heading(child)]
    rows = [
        tuple(_cell(entry) for entry in row.children)
        for row in node.findall(lambda inner: type(inner).__name__ == "row")
    ]
    width = max(map(len, rows), default=0)
    padded = [row + ("",) * (width - len(row)) for row in rows]
    return [*titles, *([Table(padded[0], tuple(padded[1:]))] if width else [])]


def _cell(entry: Node) -> str:
    """The text of a cell, which has no blocks in Markdown."""
    return fold(" ".join(map(_inline, entry.children)))


def _inline(node: Node) -> str:
    """The text of a paragraph with its code spans; a reference is its text."""
    parts: list[str] = []
    waiting: list[Node] = [node]
    while waiting:
        inner = waiting.pop()
        kind = type(inner).__name__
        if kind == "Text":
            parts.append(str(inner).replace("\0", ""))
        elif kind in _INLINE:
            parts.append(_INLINE[kind](inner.astext()))
        else:
            waiting += reversed(inner.children)
    return fold("".join(parts))


_READERS: Mapping[str, Callable[[Node], list[Block]]] = {
    **dict.fromkeys(("paragraph", "attribution", "caption"), _paragraph),
    **dict.fromkeys(("title", "rubric", "subtitle"), _heading),
    "literal_block": _code,
    "doctest_block": _doctest,
    "bullet_list": _bullets,
    "enumerated_list": _numbers,
    **dict.fromkeys(("definition_list", "option_list"), _definitions),
    "line_block": _lines,
    "field_list": _fields,
    "admonition": _notice,
    "table": _table,
    **dict.fromkeys(("footnote", "citation"), _footnote),
    "system_message": _message,
    **dict.fromkeys(
        ("comment", "target", "substitution_definition", "pending", "transition", "label", "Text", "image"), _nothing
    ),
}
_INLINE: Mapping[str, Callable[[str], str]] = {
    **dict.fromkeys(("literal", "math", "option_string", "option_argument"), span),
    **dict.fromkeys(("footnote_reference", "citation_reference"), "[{}]".format),
    "substitution_reference": "|{}|".format,
    "image": lambda _: "",
}
