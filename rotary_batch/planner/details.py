"""Which parameters, results and exceptions of a symbol a model is asked about: those that no author describes.

That they exist is known from the code; a model says only what they mean.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from rotary_batch.core import Symbol
from rotary_batch.pages.authored.blocks import Fields
from rotary_batch.pages.authored.reading import read_authored
from rotary_batch.pages.faithful.claims import returns_nothing
from rotary_batch.pages.faithful.described import FUNCTIONS, Described
from rotary_batch.pages.parameters import parameters_of
from rotary_batch.pages.symbol_details import Detail, DetailKind

MAX_DETAILS = 20  # of one symbol
_TOLD_BY = {  # beginnings of the titles of what an author says
    DetailKind.PARAMETER: ("param", "arg"),
    DetailKind.RESULT: ("return", "yield"),
    DetailKind.EXCEPTION: ("raise", "throw", "exception", "error"),
}
_STRING = r"\"\"\".*?\"\"\"|'''.*?'''|\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*'|`(?:[^`\\]|\\.)*`"
_NO_CODE = {
    "python": re.compile(rf"{_STRING}|#[^\n]*", re.DOTALL),
    "": re.compile(rf"{_STRING}|//[^\n]*|/\*.*?\*/", re.DOTALL),
}
_RAISED = {
    "python": re.compile(r"(?:^|[:;])[ \t]*raise[ \t]+((?:\w+\.)*[A-Z]\w*)", re.MULTILINE),
    "": re.compile(r"\bthrow\s+(?:new\s+)?((?:[\w$]+(?:\.|::|\\))*[A-Z]\w*)\s*[({]"),
}
_THROWING = {"java", "kotlin", "scala", "javascript", "typescript", "tsx", "vue", "svelte", "cpp", "c_sharp", "php"}
_GIVES = re.compile(r"\breturn[ \t(]+[^\s#;)]|\byield\b|=>")


def details_of(symbol: Symbol, text: str, language: str | None, wanted: Sequence[str]) -> list[Detail]:
    """The details of a symbol of the wanted kinds, without those that its author describes; `text` is its source."""
    if symbol.kind not in FUNCTIONS:
        return []
    found = [one for one in _details(symbol, text, language) if one.kind in wanted]
    told = _told_kinds(symbol, language) if found else set()
    return [one for one in found if one.kind not in told][:MAX_DETAILS]


def _details(symbol: Symbol, text: str, language: str | None) -> Iterator[Detail]:
    named = (one.name for one in parameters_of(symbol, language))
    yield from (Detail(DetailKind.PARAMETER, name) for name in named if not name.startswith("_"))
    code = _NO_CODE.get(language or "", _NO_CODE[""]).sub('""', text)
    about = Described(symbol.name, symbol.qualified_name, symbol.kind, language or "", symbol.signature, text)
    if (
        symbol.kind != "constructor"
        and symbol.name != "__init__"
        and not returns_nothing(about)
        and _gives(about, code)
    ):
        yield Detail(DetailKind.RESULT, "")
    if language in _THROWING | {"python"}:
        names = _RAISED.get(language or "", _RAISED[""]).findall(code)
        yield from (Detail(DetailKind.EXCEPTION, name) for name in dict.fromkeys(names))


def _gives(about: Described, code: str) -> bool:
    """Whether a function has a result: its code gives one, or its signature names one."""
    return bool(about.result) or _GIVES.search(code) is not None


def _told_kinds(symbol: Symbol, language: str | None) -> set[DetailKind]:
    """The kinds of which an author describes any."""
    blocks = read_authored(symbol.docstring, language).blocks if symbol.docstring else ()
    titles = [block.title.lower() for block in blocks if isinstance(block, Fields)]
    return {kind for kind, starts in _TOLD_BY.items() if any(title.startswith(starts) for title in titles)}
