"""Javadoc's HTML as blocks, and the inline tags that Javadoc, JSDoc and TSDoc share."""

from __future__ import annotations

import re
from html import escape
from html.parser import HTMLParser

from rotary_batch.pages.authored.blocks import (
    MAX_NESTING,
    Block,
    Heading,
    ItemList,
    Notice,
    Paragraph,
    Table,
    TooDeepError,
    code_block,
    fold,
    span,
    words,
)

_TEXT_TAGS = words(
    """
    a abbr b big center cite del dfn em font i img ins q s small strike strong sub sup u wbr
    """
)
_BREAKS = words(
    """
    p br hr div section article header footer address dl tbody thead tfoot caption body html
    """
)
_CODE_TAGS = frozenset({"code", "tt", "kbd", "samp", "var"})
_HEADINGS = frozenset({"h1", "h2", "h3", "h4", "h5", "h6"})
_INLINE_TAG = re.compile(r"\{@(\w+)(?:\s|(?=\}))")
_LABELLED = re.compile(r"(\S*?\([^)]*\)|[^\s|]+)(?:\s*\|\s*|\s+)?(.*)", re.DOTALL)
_BLANK_LINE = re.compile(r"\n[ \t]*\n")
_COMMENT = re.compile(r"<!--[^>]{0,1000}-->")
# Every tag is a whole one before HTMLParser reads them: it looks for the end of an open one to the end of the text.
_NO_TAG = re.compile(r"<(?!/?[A-Za-z][\w-]*(?:\s[^<>]{0,500})?/?>)")


def replace_inline_tags(text: str, *, as_html: bool) -> str:
    """`{@code x}`, `{@link X label}` and their like as code spans; `{@literal x}` as text."""
    parts, start, ends = [], 0, _closing_braces(text)
    for tag in _INLINE_TAG.finditer(text):
        if tag.start() < start or tag.start() not in ends:
            continue
        end = ends[tag.start()]
        parts += [text[start : tag.start()], _inline_tag(tag[1], text[tag.end() : end], as_html=as_html)]
        start = end + 1
    return "".join([*parts, text[start:]])


def _closing_braces(text: str) -> dict[int, int]:
    """Where each brace is closed, by where it is opened."""
    ends, opened = {}, []
    for brace in re.finditer(r"[{}]", text):
        if brace[0] == "{":
            opened.append(brace.start())
        elif opened:
            ends[opened.pop()] = brace.start()
    return ends


def _inline_tag(name: str, body: str, *, as_html: bool) -> str:
    if name in {"inheritDoc", "docRoot", "index"}:
        return "" if name != "index" else body
    is_text = name in {"literal", "linkplain", "systemProperty", "summary", "return"}
    if name.startswith("link") or name in {"see", "tutorial", "value", "inherited"}:
        labelled = _LABELLED.match(body.strip())
        target, label = (labelled[1], labelled[2]) if labelled else (body, "")
        body = label or target.lstrip("#").replace("#", ".")
        is_text = is_text or " " in label.strip() or "://" in target
    if as_html:
        return escape(body, quote=False) if is_text else f"<code>{escape(body, quote=False)}</code>"
    return body if is_text else span(body) if "\n\n" not in body else body


def html_blocks(text: str) -> list[Block]:
    """The blocks of a text in Javadoc's HTML; a blank line parts paragraphs too.  Raises TooDeepError."""
    reader = _Reader()
    reader.feed(_NO_TAG.sub("&lt;", _COMMENT.sub("", text)))
    reader.close()
    return reader.finish()


class _Reader(HTMLParser):
    """HTML to blocks, with a stack in place of recursion."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._text: list[str] = []
        self._code: list[str] | None = None
        self._pre: list[str] | None = None
        self._stack: list[tuple[str, list[Block]]] = [("", [])]
        self._rows: list[list[str]] = []
        self._heading = False

    def set_cdata_mode(self, *_: object, **__: object) -> None:
        """Never: a script is text like any other."""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self._pre is not None or self._code is not None:
            if tag not in _CODE_TAGS and tag not in _TEXT_TAGS:
                self._put(self.get_starttag_text() or "")
        elif tag in _CODE_TAGS:
            self._code = []
        elif tag == "pre":
            self._flush()
            self._pre = []
        elif tag in {"ul", "ol", "li", "blockquote", "table"}:
            self._open(tag)
        elif tag in {"tr", "td", "th"}:
            self._cell(tag)
        elif tag in _HEADINGS or tag in {"dt", "dd"} or tag in _BREAKS:
            self._flush()
            self._heading = tag in _HEADINGS
        elif tag == "img":
            self._put(dict(attrs).get("alt") or "")
        elif tag not in _TEXT_TAGS:
            self._put(self.get_starttag_text() or "")

    def handle_endtag(self, tag: str) -> None:
        if self._pre is not None:
            if tag == "pre":
                self._blocks.extend(code_block("".join(self._pre)))
                self._pre = None
        elif self._code is not None:
            if tag in _CODE_TAGS:
                code, self._code = "".join(self._code), None
                self._put(span(code))
        elif tag in {"ul", "ol", "li", "blockquote", "table"}:
            self._close(tag)
        elif tag in {"td", "th"}:
            self._cell("")
        elif tag in _HEADINGS or tag in {"dt", "dd", "tr"} or tag in _BREAKS:
            self._flush()

    def handle_data(self, data: str) -> None:
        if self._pre is not None or self._code is not None:
            self._put(data)
            return
        first, *others = _BLANK_LINE.split(data)
        self._put(first)
        for other in others:
            if not self._rows:
                self._flush()
            self._put(other)

    @property
    def _blocks(self) -> list[Block]:
        return self._stack[-1][1]

    def _put(self, text: str) -> None:
        (self._code if self._code is not None else self._pre if self._pre is not None else self._text).append(text)

    def _flush(self) -> None:
        if self._rows and self._rows[-1]:
            self._rows[-1][-1] += "".join(self._text)
        elif text := fold("".join(self._text)):
            self._blocks.append(Heading(text) if self._heading else Paragraph(text))
        self._text, self._heading = [], False

    def _cell(self, tag: str) -> None:
        self._flush()
        if tag == "tr":
            self._rows.append([])
        elif tag:
            self._rows = self._rows or [[]]
            self._rows[-1].append("")

    def _open(self, tag: str) -> None:
        self._flush()
        if tag == "li" and self._stack[-1][0] == "li":
            self._close("li")
        self._stack.append((tag, []))
        if len(self._stack) > MAX_NESTING:
            raise TooDeepError

    def _close(self, tag: str) -> None:
        self._flush()
        if tag not in {name for name, _ in self._stack}:
            return
        while True:
            name, blocks = self._stack.pop()
            self._blocks.extend(_closed(name, blocks, self._rows))
            self._rows = [] if name == "table" else self._rows
            if name == tag:
                return

    def finish(self) -> list[Block]:
        if self._code is not None:
            code, self._code = "".join(self._code), None
            self._put(code)
        if self._pre is not None:
            self.handle_endtag("pre")
        self._flush()
        while len(self._stack) > 1:
            self._close(self._stack[-1][0])
        return self._blocks


def _closed(tag: str, blocks: list[Block], rows: list[list[str]]) -> list[Block]:
    match tag:
        case "ul" | "ol":
            items = [block.blocks if _is_item(block) else (block,) for block in blocks]  # type: ignore[union-attr]
            return [ItemList(tuple(items), is_ordered=tag == "ol")] if items else []
        case "li":
            return [Notice("li", tuple(blocks))]
        case "blockquote":
            return [Notice("", tuple(blocks))]
        case "table" if rows:
            width = max(map(len, rows))
            padded = [tuple([fold(cell) for cell in row] + [""] * (width - len(row))) for row in rows]
            return [*blocks, Table(padded[0], tuple(padded[1:]))] if 0 < width <= MAX_COLUMNS else blocks
    return blocks


def _is_item(block: Block) -> bool:
    return isinstance(block, Notice) and block.title == "li"


MAX_COLUMNS = 50  # of a table; wider ones grow faster than their source
