"""Comments in no markup, and Go's doc comments (https://go.dev/doc/comment): paragraphs, lists, indented code."""

from __future__ import annotations

import re
from collections.abc import Sequence
from textwrap import dedent

from rotary_batch.pages.authored.blocks import (
    DEPRECATED,
    Block,
    Heading,
    ItemList,
    Notice,
    Paragraph,
    code_block,
    fold,
    paragraphs,
    span,
)

_ITEM = re.compile(r"[ \t]*(?:[-*+•]|(\d{1,3})[.)])[ \t]+(?=\S)")
_FENCE = re.compile(r"[ \t]*(```+|~~~+)[ \t]*([\w+#.-]*)[ \t]*$")
_RULER = re.compile(r"[ \t]*([=\-~*^#_+/])\1{2,}[ \t]*$")
_DRAWN = re.compile(r"\S(?: {3,}|\t+)\S|[│┌└├─]|\+--|--\+|^[ \t]*\|.*\|[ \t]*$", re.MULTILINE)  # columns or lines
_GO_HEADING = re.compile(r"# (\S.*)$")
_GO_LINK = re.compile(r"(?<![\w\]`\[])\[(\*?[A-Za-z_][\w./]*)\](?![\w(\[:])")
_GO_TARGET = re.compile(r"^\[[^\]\n]+\]: \S+$", re.MULTILINE)


def plain_blocks(text: str) -> list[Block]:
    """The blocks of a comment whose author had no markup in mind: what is drawn in columns stands as it is."""
    return _Lines(text.split("\n"), is_go=False).blocks()


def go_blocks(text: str) -> list[Block]:
    """The blocks of a Go doc comment."""
    blocks = _Lines(_GO_TARGET.sub("", text).split("\n"), is_go=True).blocks()
    return [_go_block(block) for block in blocks]


def _go_block(block: Block) -> Block:
    match block:
        case Paragraph(text) if text.startswith("Deprecated: "):
            return Notice(DEPRECATED, (Paragraph(_go_text(text.removeprefix("Deprecated: "))),))
        case Paragraph(text):
            return Paragraph(_go_text(text))
        case ItemList(items, is_ordered):
            return ItemList(tuple(tuple(map(_go_block, item)) for item in items), is_ordered)
    return block


def _go_text(text: str) -> str:
    return _GO_LINK.sub(lambda link: span(link[1]), text)


class _Lines:
    """Reads the lines of a text from the first to the last, each once."""

    def __init__(self, lines: Sequence[str], *, is_go: bool) -> None:
        self._lines = lines
        self._is_go = is_go
        self._at = 0

    def blocks(self) -> list[Block]:
        blocks: list[Block] = []
        while self._at < len(self._lines):
            line = self._lines[self._at]
            if not line.strip():
                self._at += 1
            elif not self._is_go and (fence := _FENCE.match(line)):
                blocks += self._fenced(fence[1], fence[2])
            elif _ITEM.match(line) and not _RULER.match(line):
                blocks.append(self._list())
            elif line[0] in " \t":
                blocks += self._indented()
            else:
                blocks += self._text()
        return blocks

    def _fenced(self, mark: str, language: str) -> list[Block]:
        start = self._at = self._at + 1
        while self._at < len(self._lines) and not self._lines[self._at].strip().startswith(mark):
            self._at += 1
        self._at += 1
        return code_block("\n".join(self._lines[start : self._at - 1]), language or "text")

    def _indented(self) -> list[Block]:
        start = end = self._at
        while self._at < len(self._lines) and (not self._lines[self._at].strip() or self._lines[self._at][0] in " \t"):
            self._at += 1
            end = self._at if self._lines[self._at - 1].strip() else end
        return code_block(dedent("\n".join(self._lines[start:end])), "go" if self._is_go else "text")

    def _list(self) -> ItemList:
        """Items until a line at the margin; lists in lists are items like the others."""
        items: list[list[str]] = []
        is_ordered = False
        while self._at < len(self._lines):
            line = self._lines[self._at]
            if item := _ITEM.match(line):
                is_ordered = bool(item[1]) if not items else is_ordered
                items.append([line[item.end() :]])
            elif line[:1] in {" ", "\t"} and line.strip():
                items[-1].append(line)
            elif line.strip() or not self._goes_on():
                break
            self._at += 1
        return ItemList(tuple(tuple(paragraphs(" ".join(item))) for item in items), is_ordered)

    def _goes_on(self) -> bool:
        """Whether the list goes on behind this blank line."""
        after = self._lines[self._at + 1] if self._at + 1 < len(self._lines) else ""
        return bool(_ITEM.match(after)) and not _RULER.match(after)

    def _text(self) -> list[Block]:
        start = self._at
        while self._at < len(self._lines) and (line := self._lines[self._at]).strip():
            if self._at > start and (_ITEM.match(line) or (self._is_go and line[0] in " \t") or _FENCE.match(line)):
                break
            self._at += 1
        lines = self._lines[start : self._at]
        if self._is_go:
            heading = _GO_HEADING.match(lines[0]) if len(lines) == 1 else None
            return [Heading(heading[1])] if heading else paragraphs("\n".join(lines))
        return _prose("\n".join(lines))


def _prose(text: str) -> list[Block]:
    """A run of lines: a title over a ruler, something drawn, or a paragraph."""
    lines = [line for line in text.split("\n") if not _RULER.match(line)]
    if len(lines) < text.count("\n") + 1:
        return [Heading(fold(lines[0]))] if len(lines) == 1 else paragraphs("\n".join(lines))
    if len(lines) > 1 and (_DRAWN.search(text) or any(line[0] in " \t" for line in lines[2:])):
        return code_block(text)
    return paragraphs(text)
