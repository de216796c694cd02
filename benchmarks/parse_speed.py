"""Where the time of reading a file goes, in each language: processor seconds of each step, in one process.

    python -m benchmarks.parse_speed TREE [LANGUAGE ...] [--mb 3] [--rounds 3] [--profile]

Files are chosen by a fixed seed.  Of the rounds the fastest counts.  `parse` is tree-sitter alone, on the source as its
grammar gets it; `clean` makes that source; `all` is what a worker does with a file, without the pipe.
"""

from __future__ import annotations

import argparse
import cProfile
import os
import pickle
import pstats
import random
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tree_sitter import Parser

from rotary_batch.commands.default_model import EMBEDDED
from rotary_batch.core import FileClass, SourceFile
from rotary_batch.model.tokens import Tokenizer
from rotary_batch.repo.chunks import chunks, cut
from rotary_batch.repo.headers import is_cpp
from rotary_batch.repo.languages import LANGUAGES, grammar, language_of
from rotary_batch.repo.parse import parse_file
from rotary_batch.repo.source_text import read_source
from rotary_batch.repo.symbols import extract, parse

BUDGET_TOKENS = 256  # of a chunk, as with the embedded model
STEPS = ("clean", "parse", "extract", "cut", "chunks", "pickle", "all")
DEFAULT = ("c", "cpp", "python", "javascript", "typescript", "go", "java", "rust")
Sample = list[tuple[SourceFile, bytes]]


def sample(tree: Path, language: str, most_nbytes: int) -> Sample:
    """Files of a language, up to a size together."""
    paths = sorted(path for path in _files(tree) if _may_be(path, language))
    random.Random(19).shuffle(paths)
    chosen: Sample = []
    nbytes = 0
    for path in paths:
        data = path.read_bytes()
        if path.suffix == ".h" and is_cpp(data) != (language == "cpp"):
            continue
        source = read_source(path.name, data)
        file = SourceFile(
            path=str(path.relative_to(tree)),
            blob="",
            nbytes=len(source),
            language=language,
            file_class=FileClass.SOURCE,
            reason="",
        )
        chosen.append((file, source))
        nbytes += len(source)
        if nbytes >= most_nbytes:
            break
    return chosen


def _files(tree: Path) -> Iterator[Path]:
    for folder, inner, names in os.walk(tree):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        yield from (Path(folder, name) for name in names)


def _may_be(path: Path, language: str) -> bool:
    known = language_of(path.name)
    return (known == language or path.suffix == ".h") and path.is_file() and path.stat().st_size <= 300_000


def measure(files: Sample, language: str, tokenizer: Tokenizer) -> dict[str, float]:
    """Processor seconds of each step."""
    spent = dict.fromkeys(STEPS, 0.0)
    rules, parser = LANGUAGES[language], Parser(grammar(language))

    def timed(step: str, work: Callable[[], object]) -> object:
        began = time.process_time()
        result = work()
        spent[step] += time.process_time() - began
        return result

    for file, source in files:
        cleaned = timed("clean", lambda source=source: rules.clean(source))
        assert isinstance(cleaned, bytes)
        timed("parse", lambda cleaned=cleaned: parser.parse(cleaned))
        tree = parse(language, source)
        extracted = timed("extract", lambda f=file, s=source, t=tree: extract(language, s, f.path, t))
        pieces = timed("cut", lambda s=source, t=tree: cut(s, t, BUDGET_TOKENS, tokenizer.count_ranges(s)))
        timed("chunks", lambda f=file, s=source, p=pieces, e=extracted: chunks(f, s, p, e.symbols, e.imports))
        parsed = timed("all", lambda f=file, s=source: parse_file(f, s, BUDGET_TOKENS, tokenizer))
        timed("pickle", lambda p=parsed: pickle.loads(pickle.dumps(p)))
    return spent


def profile(files: Sample, tokenizer: Tokenizer) -> None:
    """Print which functions take the time."""
    profiler = cProfile.Profile()
    profiler.enable()
    for file, source in files:
        parse_file(file, source, BUDGET_TOKENS, tokenizer)
    profiler.disable()
    pstats.Stats(profiler).sort_stats("tottime").print_stats(45)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("tree", type=Path)
    parser.add_argument("languages", nargs="*", default=DEFAULT)
    parser.add_argument("--mb", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args(arguments)
    tokenizer = Tokenizer.load(EMBEDDED)
    print(f"| MB per CPU second | MB | {' | '.join(STEPS)} |\n| --- |{' ---: |' * (len(STEPS) + 1)}")
    for language in options.languages:
        files = sample(options.tree, language, int(options.mb * 1e6))
        if options.profile:
            profile(files, tokenizer)
            continue
        rounds = [measure(files, language, tokenizer) for _ in range(options.rounds)]
        megabytes = sum(len(source) for _, source in files) / 1e6
        rates = (megabytes / max(1e-9, min(one[step] for one in rounds)) for step in STEPS)
        print(f"| {language} | {megabytes:.1f} | {' | '.join(f'{rate:.1f}' for rate in rates)} |", flush=True)


if __name__ == "__main__":
    main()
