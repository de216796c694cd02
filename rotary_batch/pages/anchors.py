"""The heading of each symbol and the anchor that it gets: unique on its page, and the same wherever it is rendered.

Code forges and site generators make an anchor from the text of a heading, in two ways that differ for some texts.  So
a heading whose anchor is taken says more than the name, and one with two anchors has an explicit one before it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from typing import NamedTuple

from rotary_batch.core import Symbol, SymbolId
from rotary_batch.pages.sanitise import code, one_line

_PLAIN = re.compile(r"[A-Za-z0-9_.]+")


class Heading(NamedTuple):
    """The heading of a section."""

    text: str  # Markdown
    anchor: str
    is_explicit: bool  # the anchor does not follow from the text

    @property
    def markdown(self) -> str:
        """The heading as a block of a page."""
        mark = f'<a id="{self.anchor}"></a>\n\n' if self.is_explicit else ""
        return f"{mark}## {self.text}"


def headings(title: str, symbols: Sequence[Symbol]) -> dict[SymbolId, Heading]:
    """The headings of the symbols that have a section, in page order, below the title of the page."""
    taken = set(_slugs(title))
    return {symbol.id: _heading(symbol, taken) for symbol in symbols}


def _heading(symbol: Symbol, taken: set[str]) -> Heading:
    for detail in _details(symbol):
        slugs = set(_slugs(one_line(symbol.qualified_name) + detail))
        if len(slugs) == 1 and not slugs & taken and "" not in slugs:
            taken |= slugs
            return Heading(code(symbol.qualified_name) + detail, slugs.pop(), is_explicit=False)
    anchor = next(name for name in _line_anchors(symbol) if name not in taken)
    detail = f" ({symbol.kind}, line {symbol.start_line})"
    taken |= {anchor, *_slugs(one_line(symbol.qualified_name) + detail)}
    return Heading(code(symbol.qualified_name) + detail, anchor, is_explicit=True)


def _details(symbol: Symbol) -> Iterable[str]:
    return "", f" ({symbol.kind})", f" ({symbol.kind}, line {symbol.start_line})"


def _line_anchors(symbol: Symbol) -> Iterator[str]:
    yield f"line-{symbol.start_line}"
    yield from (f"line-{symbol.start_line}-{number}" for number in count(2))


def _slugs(text: str) -> tuple[str, str]:
    """The anchors of a heading on a code forge, as GitHub makes them, and by Python-Markdown's `toc`."""
    if _PLAIN.fullmatch(text):  # nearly all names, ten times as fast
        plain = text.lower().replace(".", "")
        return plain, plain
    on_forge = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return on_forge, re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", ascii_text).strip().lower())
