"""The documented symbols of a repository, and a copy of their files without what the authors say of them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path

from rotary_batch.core import DATA_KINDS, FileClass, ParsedFile, SourceFile, Symbol, main_definitions
from rotary_batch.pages.authored.reading import authored_summary
from rotary_batch.pages.faithful.restated import only_says_the_name
from rotary_batch.planner.prompt_builder import PromptBuilder
from rotary_batch.planner.units import is_selected
from rotary_batch.repo.files import PathPatterns, classify
from rotary_batch.repo.git import Repository
from rotary_batch.repo.hiding import without_docstrings
from rotary_batch.repo.parse import parse_files
from rotary_batch.repo.source_text import read_source
from rotary_batch.sentences import split_sentences

MAX_OF_A_FILE = 12  # symbols: 200 are to come from many files
MIN_WORDS, MAX_WORDS = 3, 40  # of a sentence that an answer can be compared with
_NOT_SAID = re.compile(r"(?i)(?:see|todo|fixme|deprecated|copied|alias|same as|note|usage|internal)\b")
Progress = Callable[[int, int], None]


def copy_undocumented(
    repository: Repository, prompt_builder: PromptBuilder, pack: Path, target: Path, count: int, progress: Progress
) -> dict[tuple[str, str], str]:
    """Write files without docstrings below `target` until they hold `count` documented symbols.

    Returns (path, qualified name) -> the first sentence of the author.  Files come in the order of a digest of their
    paths, so that the same symbols are asked for at every call.
    """
    sources: dict[str, bytes] = {}
    found: dict[tuple[str, str], str] = {}
    files = sorted(_files(repository, prompt_builder), key=_digest)
    parsed = parse_files(
        _read(repository, files, sources),
        tokenizer_dir=pack,
        budget_tokens=prompt_builder.chunk_budget_tokens,
    )
    with closing(parsed):
        for one in parsed:
            source = sources.pop(one.file.path)
            said = dict(list(_sentences(one).items())[: min(MAX_OF_A_FILE, count - len(found))])
            if said and one.fallback is None and one.file.language is not None:
                _write(target / one.file.path, without_docstrings(one.file.language, source, one.symbols))
                found |= {(one.file.path, name): sentence for name, sentence in said.items()}
                progress(len(found), count)
            if len(found) >= count:
                break
    return found


def _digest(file: SourceFile) -> bytes:
    return hashlib.sha256(file.path.encode(errors="replace")).digest()


def _files(repository: Repository, prompt_builder: PromptBuilder) -> list[SourceFile]:
    files = classify(repository, docs_dir="rotary-docs", patterns=PathPatterns((), ()), known={})
    return [file for file in files if file.file_class is FileClass.SOURCE and is_selected(file, prompt_builder.job)]


def _read(
    repository: Repository, files: Sequence[SourceFile], sources: dict[str, bytes]
) -> Iterator[tuple[SourceFile, bytes]]:
    """Files in their order, read a few at a time."""
    entries = {entry.path: entry for entry in repository.entries()}
    for file in files:
        for entry, data in repository.read([entries[file.path]]):
            sources[file.path] = read_source(entry.path, data)
            yield file, sources[file.path]


def _sentences(one: ParsedFile) -> Mapping[str, str]:
    """Qualified name -> what the author says of a symbol, where an answer can be compared with it."""
    symbols = (symbol for symbol in main_definitions(one.symbols) if symbol.docstring and symbol.kind not in DATA_KINDS)
    said = ((symbol, _first_sentence(symbol, one.file.language)) for symbol in symbols)
    return {symbol.qualified_name: sentence for symbol, sentence in said if _is_comparable(sentence, symbol)}


def _first_sentence(symbol: Symbol, language: str | None) -> str:
    return next(iter(split_sentences(authored_summary(symbol.docstring or "", language))), "").strip()


def _is_comparable(sentence: str, symbol: Symbol) -> bool:
    num_words = len(sentence.split())
    says_something = MIN_WORDS <= num_words <= MAX_WORDS and not _NOT_SAID.match(sentence)
    return says_something and not only_says_the_name(sentence, symbol.qualified_name)


def _write(path: Path, text: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text)
