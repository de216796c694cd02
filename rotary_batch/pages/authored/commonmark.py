"""Markdown, parsed by markdown-it-py: CommonMark with tables."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from rotary_batch.pages.authored.blocks import (
    MAX_NESTING,
    Block,
    CodeBlock,
    Heading,
    ItemList,
    Notice,
    Paragraph,
    Table,
    TooDeepError,
    code_block,
    fold,
    paragraphs,
    span,
)

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

MAX_LINE_CHARACTERS = 8_000  # of one paragraph: 20,000 opening brackets take 0.5 s, and the time grows faster than they
# HTML that only says how its content looks.  Anything else in angle brackets is text: `Vec<T>` is common.
_LOOKS = re.compile(
    r"</?(?:a|abbr|b|big|blockquote|br|center|cite|code|dd|del|details|dfn|div|dl|dt|em|font|h[1-6]|hr|i|img|ins|kbd|li|mark"
    r"|ol|p|picture|pre|q|s|samp|small|source|span|strike|strong|sub|summary|sup|table|tbody|td|tfoot|th|thead|tr|tt|u|ul"
    r"|var|wbr)(?:\s[^<>]*)?/?>|<!--[^>]{0,1000}-->",
    re.IGNORECASE | re.DOTALL,
)
_SHALLOW = re.compile(r"^( {2,3})(?=[^\s\-*+>|#`~\d])", re.MULTILINE)
_LIST_ITEM = re.compile(r"[-*+] |\d+[.)] ")
# A line that is no prose: it ends as statements and calls do, or is an assignment.
_CODE_LINE = re.compile(r".*[;{\[(]|[)}\]]+[;,]?|[\w.$:]+\(.*\)|(?:(?:const|let|var|val|auto) )?[\w.$]+ :?= .+|[<@$].*")
Fence = Callable[[str, str], CodeBlock | None]  # (info string, content) -> code


@lru_cache(maxsize=1)
def _parser() -> MarkdownIt:
    from markdown_it import MarkdownIt  # 50 ms, which commands that show no page save

    parser = MarkdownIt("commonmark", {"maxNesting": MAX_NESTING}).enable("table")
    parser.inline.ruler.before("text", "long", _long_text)
    return parser


def _long_text(state: object, silent: bool) -> bool:  # noqa: FBT001 (the signature of a rule)
    """An inline rule: a paragraph that is too long to look for markup in it is all text."""
    if silent or len(state.src) <= MAX_LINE_CHARACTERS:  # type: ignore[attr-defined]
        return False
    state.pending += state.src[state.pos :]  # type: ignore[attr-defined]
    state.pos = state.posMax  # type: ignore[attr-defined]
    return True


def markdown_blocks(text: str, fence: Fence | None = None) -> list[Block]:
    """The blocks of a Markdown text; `fence` reads its code blocks.  Raises TooDeepError."""
    tokens = _parser().parse(_with_code_indented(text))
    if any(token.level >= MAX_NESTING - 2 for token in tokens):
        raise TooDeepError
    return _Builder(fence or _fence).build(tokens)


def _with_code_indented(text: str) -> str:
    """With code that is indented by two or three spaces, below a line that ends with a colon, indented by four."""
    if not _SHALLOW.search(text):
        return text
    lines = text.split("\n")
    place, is_fenced, last = 0, False, ""
    while place < len(lines):
        line = lines[place]
        is_fenced ^= line.lstrip().startswith(("```", "~~~"))
        opens = not is_fenced and last.endswith(":") and not last[:1].isspace() and not _LIST_ITEM.match(last)
        shallow = _SHALLOW.match(line) if opens and place and not lines[place - 1].strip() else None
        if shallow is not None:
            end = place
            while end < len(lines) and (not lines[end].strip() or lines[end].startswith(shallow[1])):
                end += 1
            if any(_CODE_LINE.fullmatch(one.strip()) for one in lines[place:end]):
                lines[place:end] = [f"{' ' * (4 - len(shallow[1]))}{one}" for one in lines[place:end]]
                place, line = end - 1, ""
        last = line.rstrip() or last
        place += 1
    return "\n".join(lines)


def _fence(info: str, content: str) -> CodeBlock | None:
    words = re.split(r"[\s,{]+", info.strip("{ ."), maxsplit=1)
    return next(iter(code_block(content, words[0] or "text")), None)  # type: ignore[return-value]


class _Builder:
    """Tokens to blocks, with a stack in place of recursion."""

    def __init__(self, fence: Fence) -> None:
        self._fence = fence
        self._stack: list[list[Block]] = [[]]
        self._items: list[list[tuple[Block, ...]]] = []
        self._rows: list[list[str]] = []

    def build(self, tokens: Sequence[Token]) -> list[Block]:
        for n, token in enumerate(tokens):
            kind = token.type
            if kind == "inline":
                self._text(tokens[n - 1].type, inline_text(token.children or ()))
            elif kind in {"fence", "code_block"}:
                self._add(self._fence(token.info, token.content))
            elif kind == "html_block":
                self._stack[-1] += paragraphs(*re.split(r"\n\s*\n", _LOOKS.sub(" ", token.content)))
            elif kind in {"blockquote_open", "list_item_open"}:
                self._stack.append([])
            elif kind in {"bullet_list_open", "ordered_list_open"}:
                self._items.append([])
            elif kind.endswith("_close") or kind == "tr_open":
                self._close(kind)
        return self._stack[0]

    def _add(self, block: Block | None) -> None:
        if block is not None:
            self._stack[-1].append(block)

    def _text(self, around: str, text: str) -> None:
        if around in {"th_open", "td_open"}:
            self._rows[-1].append(text)
        elif text:
            self._add(Heading(text) if around == "heading_open" else Paragraph(text))

    def _close(self, kind: str) -> None:
        if kind == "tr_open":
            self._rows.append([])
        elif kind == "list_item_close":
            self._items[-1].append(tuple(self._stack.pop()))
        elif kind in {"bullet_list_close", "ordered_list_close"}:
            self._add(ItemList(tuple(self._items.pop()), is_ordered=kind.startswith("ordered")))
        elif kind == "blockquote_close":
            inner = self._stack.pop()
            self._add(Notice("", tuple(inner)) if inner else None)
        elif kind == "table_close":
            header, *rows = self._rows
            self._add(Table(tuple(header), tuple(map(tuple, rows))))
            self._rows = []


def inline_text(tokens: Iterable[Token]) -> str:
    """The text of a paragraph with its code spans: emphasis goes, of links and images the text stays."""
    parts = []
    for token in tokens:
        match token.type:
            case "text" | "image" | "text_special":
                parts.append(token.content)
            case "code_inline":
                parts.append(span(token.content))
            case "softbreak" | "hardbreak":
                parts.append(" ")
            case "html_inline":
                parts.append(_LOOKS.sub("", token.content))
    return fold("".join(parts))
