"""What an author's comment says, free of its markup: the value that every parser here returns.

Texts are one line of plain text in which `code spans` are kept; `render.py` makes them safe.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

MAX_DEPTH = 6  # of lists in lists; deeper ones are written as the last one is
DEPRECATED = "Deprecated"  # the title of a notice
MAX_NESTING = 20  # of a parser's own tree, in which a list in a list takes two levels
_BLANK_EDGE = re.compile(r"\A(?:[^\S\n]*\n)+|\s+\Z")


class TooDeepError(ValueError):
    """A text is nested deeper than its parser follows."""


@dataclass(frozen=True, slots=True)
class Paragraph:
    """Running text."""

    text: str


@dataclass(frozen=True, slots=True)
class CodeBlock:
    """Preformatted text, byte for byte but for blank lines around it."""

    text: str
    language: str = "text"


@dataclass(frozen=True, slots=True)
class ItemList:
    """A list, bulleted or numbered from 1."""

    items: tuple[tuple[Block, ...], ...]
    is_ordered: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A table; every row has as many cells as the header."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Heading:
    """A heading of the author, which has no anchor on our page."""

    text: str


@dataclass(frozen=True, slots=True)
class Notice:
    """A paragraph that stands out: a deprecation, a warning; without a title, a quotation."""

    title: str
    blocks: tuple[Block, ...]


class Field(NamedTuple):
    """One parameter, return value or exception."""

    name: str
    type: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class Fields:
    """Parameters, return values or exceptions; the title heads the column of their names."""

    title: str
    fields: tuple[Field, ...]


Block = Paragraph | CodeBlock | ItemList | Table | Heading | Notice | Fields


@dataclass(frozen=True, slots=True)
class Authored:
    """What a comment says: its first paragraph, "" when it begins with anything else, and the blocks after it."""

    summary: str
    blocks: tuple[Block, ...]


def fold(text: str) -> str:
    """On one line."""
    return " ".join(text.split())


def words(text: str) -> frozenset[str]:
    """The words of a text, for a table of many names."""
    return frozenset(text.split())


def span(text: str) -> str:
    """A code span; text that it cannot hold stays text."""
    folded = fold(text)
    return folded if not folded or "`" in folded else f"`{folded}`"


def code_block(text: str, language: str = "text") -> list[Block]:
    """A code block without the blank lines around it; none when nothing is left."""
    inner = _BLANK_EDGE.sub("", text)
    return [CodeBlock(inner, language)] if inner else []


def paragraphs(*texts: str) -> list[Block]:
    """Those that say anything."""
    return [Paragraph(folded) for text in texts if (folded := fold(text))]


def authored(blocks: Iterable[Block]) -> Authored:
    """The first paragraph is the summary, also behind a notice; a title of several words is one too.

    A title of one word repeats the name of the thing.  Deprecations come first.
    """
    every = list(blocks)
    first = next((n for n, block in enumerate(every) if not isinstance(block, Notice)), len(every))
    title, after = [*every[first : first + 2], None, None][:2]
    if isinstance(title, Heading) and isinstance(after, Paragraph):
        every[first : first + 2] = [Paragraph(title.text), after] if " " in title.text else [after]
    lead = every[first] if first < len(every) else None
    rest = every[:first] + every[first + 1 :] if isinstance(lead, Paragraph) else every
    rest.sort(key=lambda block: not (isinstance(block, Notice) and block.title == DEPRECATED))
    return Authored(lead.text if isinstance(lead, Paragraph) else "", tuple(rest))
