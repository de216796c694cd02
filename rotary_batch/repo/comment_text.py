"""The text of comments without their marks; what is behind them stays as it is, indentation and bullets too."""

from __future__ import annotations

import re
from collections.abc import Sequence
from textwrap import dedent

_BLOCK = re.compile(r"/\*(?:\*+(?!/)|!)?<?|--\[=*\[|=begin\b")
_BLOCK_END = re.compile(r"\*+/$|--\]=*\]$|\]=*\]$|^=end\b.*$", re.MULTILINE)
_LINE = re.compile(r"//(?:/+!?<|!<|/*!)?/*|#+[!:]?|--+|;+|%+")
_INDENT = re.compile(r"[ \t]*")
_STARS = re.compile(r"[ \t]*(\*+)")
_BANNER = re.compile(r"\W*?([-=*#~_/+])\1{3,}(?:.*\1{3,})?\W*")  # a ruler, or a title between two
_MAX_BANNER_CHARACTERS = 400


def comment_text(comments: Sequence[str]) -> str | None:
    """The text of comments that touch each other, or None when they say nothing or are a ruler."""
    parts: list[str] = []
    lines: list[str] = []  # of line comments
    for comment in map(str.strip, comments):
        if opening := _BLOCK.match(comment):
            parts += [*_line_text(lines), _block_text(comment, opening)]
            lines = []
        else:
            lines += comment.split("\n")
    text = "\n".join([*parts, *_line_text(lines)]).strip("\n").rstrip()
    if len(text) <= _MAX_BANNER_CHARACTERS and "\n" not in text and _BANNER.fullmatch(text):
        return None
    return text if text.strip() else None


def _line_text(lines: Sequence[str]) -> list[str]:
    bare = [_LINE.sub("", line.strip(), count=1).removeprefix(" ") for line in lines]
    return [_dedented(bare)] if bare else []


def _dedented(lines: Sequence[str]) -> str:
    """Without the white space that all lines begin with; a tab is as wide as eight spaces where both occur."""
    if {line[0] for line in lines if line.strip()} == {" ", "\t"}:
        lines = [_INDENT.sub(lambda indent: indent[0].expandtabs(8), line, count=1) for line in lines]
    return dedent("\n".join(lines))


def _block_text(comment: str, opening: re.Match[str]) -> str:
    """The first line follows the opening mark, so only the others are dedented together."""
    first, *rest = _BLOCK_END.sub("", comment[opening.end() :], count=1).replace("\r\n", "\n").split("\n")
    if stars := _margin(rest, is_doc=opening[0].startswith("/**")):
        margin = re.compile(rf"[ \t]*\*{{1,{stars}}} ?")
        rest = [margin.sub("", line, count=1) if _STARS.match(line) else line for line in rest]
    return f"{first.strip()}\n{_dedented(rest)}".strip("\n").rstrip()


def _margin(lines: Sequence[str], *, is_doc: bool) -> int:
    """How many stars stand before each line as an ornament; bullets of a list are none.

    All lines have them, and in a doc comment at least half of them: code is pasted there as it is.
    """
    said = [line for line in lines if line.strip()]
    starred = [len(stars[1]) for line in said if (stars := _STARS.match(line))]
    if not starred or (2 * len(starred) < len(said) if is_doc else len(starred) < len(said)):
        return 0
    return min(starred)
