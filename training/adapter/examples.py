"""Examples of one package: chunks of code with an answer for each documented symbol, and notes with their roll-up.

The docs of every symbol that is asked about are taken out of its file, which is then read again as the product reads
it: chunks, breadcrumbs and symbols of an undocumented file.  Knows the product's readers; knows nothing of tokens.
"""

from __future__ import annotations

import random
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rotary_batch.core import Chunk, ParsedFile, Symbol
from rotary_batch.model.tokens import Tokenizer
from rotary_batch.prompts import Prompt
from rotary_batch.repo.hiding import without_docstrings
from rotary_batch.repo.parse import parse_file
from training.adapter.files import LARGE, File, Names, base_of, read_files
from training.adapter.prompts import chunk_prompt
from training.adapter.rollups import rollups
from training.adapter.sentences import is_borne_out, is_in
from training.adapter.sources import Package
from training.adapter.surroundings import context_of, within_budget

MAX_TARGETS = 600  # of one package
MAX_ANSWERS = 14  # of one chunk
CHUNK_TOKENS = (500, 800, 1100)


@dataclass(frozen=True, slots=True)
class Example:
    """One prompt and what is to be said; of roll-ups the name is empty."""

    task: str  # chunk, file, directory, repository
    language: str
    package: str
    prompt: str
    answers: tuple[tuple[str, str], ...]


def examples(
    package: Package, prompts: Mapping[str, Prompt], tokenizer: Tokenizer, *, is_strict: bool = True
) -> list[Example]:
    """All examples of a package; `is_strict` drops sentences that the prompt does not bear out."""
    reader = _Reader(package, prompts, tokenizer, is_strict=is_strict)
    found = rollups(reader.files, base_of(package.root), package, prompts, reader.draw)
    above = [
        Example(task, language, package.name, prompt, (("", sentence),))
        for task, language, prompt, sentence in found
        if not is_strict or is_borne_out(sentence, prompt)
    ]
    return [*reader.chunks(), *above]


class _Reader:
    def __init__(
        self, package: Package, prompts: Mapping[str, Prompt], tokenizer: Tokenizer, *, is_strict: bool
    ) -> None:
        self._package, self._prompts, self._tokenizer, self._is_strict = package, prompts, tokenizer, is_strict
        self.draw = random.Random(zlib.crc32(f"{package.registry} {package.name}".encode()))
        self.files = list(read_files(package, base_of(package.root)))
        self._names = Names(self.files)

    def chunks(self) -> Iterator[Example]:
        """Examples of chunks, until there are enough of this package."""
        left = MAX_TARGETS * LARGE.get(self._package.name, 1)
        for one in sorted(self.files, key=lambda one: zlib.crc32(one.file.path.encode() + b"x")):
            if left <= 0:
                return
            for example in self._of_file(one):
                left -= len(example.answers)
                yield example

    def _of_file(self, one: File) -> Iterator[Example]:
        asked = [s for s in one.facts.symbols if s.start_byte in one.sentences]
        if self.draw.random() < 0.25:  # some keep their docs, as in a repository that is documented in part
            asked = [s for s in asked if self.draw.random() < 0.7]
        if not asked:
            return
        source = self._hidden(one, asked)
        try:
            parsed = parse_file(one.file, source, self.draw.choice(CHUNK_TOKENS), self._tokenizer)
        except (RecursionError, ValueError):
            return
        wanted = paired(asked, parsed.symbols, one.sentences)
        for chunk in parsed.chunks:
            if example := self._of_chunk(one, parsed, chunk, source, wanted):
                yield example

    def _hidden(self, one: File, asked: Sequence[Symbol]) -> bytes:
        """The source without the docs of what is asked; docs that are no answers go or stay, as by chance."""
        others = [s for s in one.facts.symbols if s.docstring and s.start_byte not in one.sentences]
        dropped = others if self.draw.random() < 0.6 else []
        return without_docstrings(one.language, one.source, [*asked, *dropped])

    def _of_chunk(
        self, one: File, parsed: ParsedFile, chunk: Chunk, source: bytes, wanted: Mapping[int, str]
    ) -> Example | None:
        inside = [s for s in parsed.symbols if chunk.start_byte <= s.start_byte < chunk.end_byte]
        if not any(s.start_byte in wanted for s in inside):
            return None
        text = source[chunk.start_byte : chunk.end_byte].decode("utf-8", "replace")
        context = context_of(one, parsed, chunk, text, self._names, self.draw)
        around = within_budget(context.lines(), self._tokenizer.count)
        prompt = chunk_prompt(self._prompts["chunk"], one.language, one.file.path, around, text)
        answers: dict[str, str] = {}
        for symbol in inside:
            sentence = wanted.get(symbol.start_byte)
            if not sentence or symbol.qualified_name in answers or is_in(sentence, prompt):
                continue
            if _is_wanted(symbol, source, chunk) and (not self._is_strict or is_borne_out(sentence, prompt)):
                answers[symbol.qualified_name] = sentence
        chosen = list(answers.items())
        if len(chosen) > MAX_ANSWERS:
            chosen = self.draw.sample(chosen, MAX_ANSWERS)
        return Example("chunk", one.language, self._package.name, prompt, tuple(chosen)) if chosen else None


def _is_wanted(symbol: Symbol, source: bytes, chunk: Chunk) -> bool:
    """All but most of those of one line, of which there are many."""
    shown = source[symbol.start_byte : min(symbol.end_byte, chunk.end_byte)].strip()
    is_short = len(shown) < 60 or b"\n" not in shown
    return not is_short or (len(shown) >= 25 and zlib.crc32(shown) % 4 == 0)


def paired(asked: Sequence[Symbol], now: Sequence[Symbol], sentences: Mapping[int, str]) -> dict[int, str]:
    """Start byte in the hidden source -> sentence: the n-th symbol of a name is the n-th of it before."""
    before: dict[tuple[str, str, str], list[Symbol]] = defaultdict(list)
    for symbol in asked:
        before[symbol.qualified_name, symbol.kind, symbol.signature].append(symbol)
    found: dict[int, str] = {}
    counts: Counter[tuple[str, str, str]] = Counter()
    for symbol in now:
        key = symbol.qualified_name, symbol.kind, symbol.signature
        if counts[key] < len(before.get(key, ())) and not symbol.docstring:
            found[symbol.start_byte] = sentences[before[key][counts[key]].start_byte]
            counts[key] += 1
    return found
