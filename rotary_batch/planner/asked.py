"""What is asked about the source of a file, chunk by chunk: its symbols, or a chunk in which none wants an answer."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import PurePosixPath
from typing import NamedTuple

from rotary_batch.core import DATA_KINDS, Chunk, ParsedFile, Subject, Symbol, Unit
from rotary_batch.jobs import SymbolSpec
from rotary_batch.pages.outline import outline
from rotary_batch.planner.details import details_of
from rotary_batch.planner.skipping import is_documented, is_trivial, private_symbols, wants_answer
from rotary_batch.repo.languages import LANGUAGES

MIN_OWN_LINES = 2  # of code of a chunk itself, for which the model is asked about it
_MAX_LABEL = 100  # characters; a name nested deeper is told by its last part
# Comments, imports, decorators, names in a list of imports, closing brackets.
_NO_CODE = re.compile(
    r"(?:#|//|/\*|\*|--|;|%|<!--|@|(?:import|from|use|using|package|namespace|require|require_relative|include|export"
    r"|pub\s+use|global\s+using)\b|\w+(?:\s+as\s+\w+)?,?$|\W*$)"
)
_BLOCKS = re.compile(r'"""|\'\'\'|/\*')
_ENDS = {'"""': '"""', "'''": "'''", "/*": "*/"}


class Question(NamedTuple):
    """A thing that the model says something of, and what it is called in the prompt."""

    subject: Subject
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedOfChunk:
    """What is asked about one chunk."""

    chunk: Chunk
    questions: Sequence[Question]

    def __iter__(self) -> Iterator[Question]:
        return iter(self.questions)


def asked_of(one: ParsedFile, source: bytes, spec: SymbolSpec) -> Iterator[AskedOfChunk]:
    """The chunks of a file about which something is asked, in order."""
    language = one.file.language
    has_symbols = language is not None and not LANGUAGES[language].is_data
    asked = list(_asked_symbols(one, source, spec)) if has_symbols else []
    own = _OwnText(one, source, spec.skip, is_data=not has_symbols)
    for chunk in one.chunks:
        inside = asked[_first(asked, chunk.start_byte) : _first(asked, chunk.end_byte)]
        questions = [question for symbol in inside for question in symbol.questions]
        if not questions and "private" not in spec.skip and own.is_told(chunk):
            name = PurePosixPath(chunk.path).name
            questions = [Question(chunk.subject, f"`{name}`, lines {chunk.start_line}-{chunk.end_line}")]
        if questions:
            yield AskedOfChunk(chunk=chunk, questions=questions)


def symbol_label(symbol: Symbol) -> str:
    """What a symbol is called, without the marks that are put around it."""
    name = symbol.qualified_name if len(symbol.qualified_name) <= _MAX_LABEL else symbol.name[:_MAX_LABEL]
    return name.replace("`", "")


class _AskedSymbol(NamedTuple):
    start_byte: int
    questions: Sequence[Question]


def _asked_symbols(one: ParsedFile, source: bytes, spec: SymbolSpec) -> Iterator[_AskedSymbol]:
    """What is asked about each symbol, in order."""
    language, arranged = one.file.language, outline(one.file.path, one.symbols)
    private = private_symbols(one.file.path, arranged) if "private" in spec.skip else frozenset()
    seen: set[Subject] = set()
    for symbol in sorted(arranged.sections, key=attrgetter("id")):
        if symbol.id in private or symbol.subject in seen:
            continue
        seen.add(symbol.subject)
        text = source[symbol.start_byte : symbol.end_byte].decode("utf-8", "replace")
        questions = []
        if wants_answer(symbol, text, language, spec.skip):
            questions.append(Question(symbol.subject, f"`{symbol_label(symbol)}`"))
        if spec.details and not ("trivial" in spec.skip and is_trivial(symbol, text, language)):
            questions += _detail_questions(symbol, text, language, spec.details)
        if questions:
            yield _AskedSymbol(symbol.start_byte, questions)


def _detail_questions(symbol: Symbol, text: str, language: str | None, wanted: Sequence[str]) -> Iterator[Question]:
    for number, detail in enumerate(details_of(symbol, text, language, wanted), 1):
        subject = Subject(Unit.DETAIL, symbol.path, span=(symbol.start_byte, symbol.end_byte), part=number)
        yield Question(subject, detail.label(symbol_label(symbol)))


def _first(symbols: Sequence[_AskedSymbol], byte: int) -> int:
    return bisect_left(symbols, byte, key=attrgetter("start_byte"))


class _OwnText:
    """The text of chunks that is in no symbol which begins there, nor in one that its author describes."""

    def __init__(self, one: ParsedFile, source: bytes, skip: tuple[str, ...], *, is_data: bool) -> None:
        self._source, self._is_data = source, is_data  # of settings and prose all is told
        has_code = any(symbol.kind not in DATA_KINDS for symbol in one.symbols)
        is_told = "documented" in skip
        self._waiting = sorted(one.symbols, key=attrgetter("start_byte"))[::-1]
        self._is_described = {
            symbol.id: symbol.kind in DATA_KINDS or (is_told and is_documented(symbol, one.file.language))
            for symbol in one.symbols
        }
        self._counts_data = not has_code and not (is_told and one.docstring)  # of a file of tables, its first chunk
        self._around: list[Symbol] = []

    def is_told(self, chunk: Chunk) -> bool:
        """Whether a chunk has code of its own.  Chunks must come in order."""
        self._around = [symbol for symbol in self._around if symbol.end_byte > chunk.start_byte]
        taken = [(symbol.start_byte, symbol.end_byte) for symbol in self._around if self._is_described[symbol.id]]
        while self._waiting and self._waiting[-1].start_byte < chunk.end_byte:
            symbol = self._waiting.pop()
            self._around.append(symbol)
            if not (self._counts_data and chunk.start_byte == 0 and symbol.kind in DATA_KINDS):
                taken.append((symbol.start_byte, symbol.end_byte))
        text = b"\n".join(self._between(taken, chunk.start_byte, chunk.end_byte)).decode("utf-8", "replace")
        lines = (line.strip() for line in "".join(_outside_blocks(text)).splitlines())
        return self._is_data or sum(_NO_CODE.match(line) is None for line in lines) >= MIN_OWN_LINES

    def _between(self, taken: Sequence[tuple[int, int]], start: int, end: int) -> Iterator[bytes]:
        for first, last in sorted(taken):
            if first > start:
                yield self._source[start : min(first, end)]
            start = max(start, last)
        if start < end:
            yield self._source[start:end]


def _outside_blocks(text: str) -> Iterator[str]:
    """A text without comments and strings of several lines."""
    place = 0
    while match := _BLOCKS.search(text, place):
        yield text[place : match.start()]
        end = text.find(_ENDS[match[0]], match.end())
        if end < 0:
            return
        place = end + len(_ENDS[match[0]])
    yield text[place:]
