"""How often the rules on sentences reject what authors wrote of their symbols, and what they wrote of others.

    python -m benchmarks.faithful NAME=FOLDER...

The docstrings of every symbol are hidden.  The first sentence of the author stands in for a true answer, that of
another symbol of the same folder, of the same kind, for a false one.  One row for each folder and each kind of reason.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from rotary_batch.core import DATA_KINDS, FileClass, SourceFile, Symbol, main_definitions
from rotary_batch.pages.authored.reading import authored_summary
from rotary_batch.pages.check import validate
from rotary_batch.pages.faithful.described import Described
from rotary_batch.pages.faithful.language_words import words_of_language
from rotary_batch.repo.hiding import without_docstrings
from rotary_batch.repo.languages import LANGUAGES, language_of
from rotary_batch.repo.parse import parse_file
from rotary_batch.sentences import split_sentences
from rotary_batch.testing import ByteCounter

MAX_SYMBOLS = 700  # of one folder
MAX_NBYTES = 300_000  # of one file
KINDS = (
    "unknown name",
    "unknown number",
    "unknown quotation",
    "unknown address",
    "parameter",
    "exception",
    "result",
    "only says the name",
    "no description",
)


def cases(folder: Path) -> Iterator[tuple[Described, str, frozenset[str], str]]:
    """(symbol, its own code without docs, names of the file, the author's sentence)."""
    for path in sorted(folder.rglob("*")):
        language = language_of(path.name)
        if language is None or LANGUAGES[language].is_data or not path.is_file() or path.stat().st_size > MAX_NBYTES:
            continue
        source = path.read_bytes()
        before = _symbols(path.name, language, source)
        sentences = {one.qualified_name: _sentence(one, language) for one in before if one.docstring}
        hidden = without_docstrings(language, source, before)
        symbols = _symbols(path.name, language, hidden)
        names = frozenset(name for one in symbols for name in (one.name, one.qualified_name))
        text = hidden.decode("utf-8", "replace")
        for one in symbols:
            if (sentence := sentences.get(one.qualified_name)) and one.kind not in DATA_KINDS and not one.docstring:
                code = "\n".join(text.split("\n")[one.start_line - 1 : one.end_line])
                described = Described(one.name, one.qualified_name, one.kind, language, one.signature, code)
                yield described, text, names, sentence


def _symbols(name: str, language: str, source: bytes) -> list[Symbol]:
    file = SourceFile(path=name, blob="", nbytes=len(source), language=language, file_class=FileClass.SOURCE, reason="")
    return main_definitions(parse_file(file, source, 10**9, ByteCounter()).symbols)


def _sentence(symbol: Symbol, language: str) -> str:
    return next(iter(split_sentences(authored_summary(symbol.docstring or "", language))), "")


def reasons(case: tuple[Described, str, frozenset[str], str], sentence: str) -> tuple[str, ...]:
    """Why a sentence would not be shown."""
    about, text, names, _ = case
    known = names | words_of_language(about.language)
    return validate(
        sentence,
        mean_logprob=0.0,
        min_mean_logprob=None,
        ended="stop",
        is_known=known.__contains__,
        source=text,
        about=about,
    ).reasons


def measure(name: str, folder: Path, examples: dict[str, list[str]]) -> None:
    """Print one line."""
    found = list(cases(folder))
    random.Random(22).shuffle(found)
    found = found[:MAX_SYMBOLS]
    others = found[1:] + found[:1]
    true, false = Counter[str](), Counter[str]()
    for case, other in zip(found, others, strict=True):
        for counter, sentence, is_true in ((true, case[3], True), (false, other[3], False)):
            why = reasons(case, sentence)
            kinds = {reason.partition(":")[0] for reason in why}
            counter.update(kinds)
            counter["any"] += bool(kinds)
            if is_true:
                for reason in why:
                    examples.setdefault(reason.partition(":")[0], []).append(
                        f"{name} {case[0].qualified_name}: {sentence[:150]} | {reason[:60]}"
                    )
    count = max(1, len(found))
    cells = [f"{100 * true[kind] / count:.1f} / {100 * false[kind] / count:.1f}" for kind in ("any", *KINDS)]
    print("| " + " | ".join([name, f"{len(found):,}", *cells]) + " |", flush=True)


def main() -> None:
    examples: dict[str, list[str]] = {}
    print("| folder | symbols | any | " + " | ".join(KINDS) + " |")
    for argument in sys.argv[1:]:
        name, _, folder = argument.partition("=")
        measure(name, Path(folder), examples)
    for kind, lines in examples.items():
        print(f"\n{kind}: {len(lines)}")
        for line in random.Random(1).sample(lines, min(14, len(lines))):
            print("  ", line)


if __name__ == "__main__":
    main()
