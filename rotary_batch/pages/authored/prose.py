"""Text that means the same in every markup, which most comments are: it needs no parser."""

from __future__ import annotations

import re

from rotary_batch.pages.authored.blocks import Block, paragraphs

BLANK_LINES = re.compile(r"\n[ \t]*\n\s*")
# Words, punctuation and code spans; nothing that begins a line in a special way.
_PROSE = re.compile(
    r"(?:[^\W_]|(?<=[^\W_])_(?=[^\W_])|[ ,;()'\"/?%!.…—–-]|(?<=[^\s:]):(?= \S)|`[^`\n\\]+`(?![`\w])"
    r"|\n(?![-–*+\d\s.]|\Z))*"
)
_BEGINNING = re.compile(r"[-+*\d.\s]|Deprecated:|(?:Note|Todo|Returns|Example):")


def is_prose(text: str) -> bool:
    """Whether a paragraph means the same in every markup."""
    return _BEGINNING.match(text) is None and _PROSE.fullmatch(text) is not None


def prose_blocks(text: str) -> list[Block] | None:
    """The paragraphs of a text, or None when a parser has to read it."""
    parts = BLANK_LINES.split(text.strip())
    return paragraphs(*parts) if all(map(is_prose, parts)) else None
