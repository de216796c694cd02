"""How well code is read, measured on real trees that packages bring: `python -m benchmarks.reading summaries TREE...`."""

from __future__ import annotations

import argparse
import os
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from rotary_batch.pages.page import first_paragraph
from rotary_batch.repo.languages import LANGUAGES, language_of
from rotary_batch.repo.source_text import read_source
from rotary_batch.repo.symbols import extract, parse

SEED = 19
SAMPLE = 200  # headers, and as many sources
MAX_NBYTES = 500_000
MAX_IN_FOLDER = 2  # one folder of torch has 6,000 headers that all begin alike
_HEADERS = (".h", ".hh", ".hpp", ".hxx", ".cuh", ".inl", ".h++", ".tpp")
# What a summary must not be.  On purpose not the patterns of the package: words that give such a text away.
_UNWANTED = {
    "licence": re.compile(
        r"copyright|licen[cs]ed? (under|by|to)|all rights reserved|spdx|without warranty|redistribution and use"
        r"|permission is hereby|free software|public domain|\(c\) \d{4}",
        re.IGNORECASE,
    ),
    "guard": re.compile(r"^_*[A-Z0-9_]+_H(PP|XX|H)?_*$|^#?(ifndef|define|endif|pragma)\b"),
    "shebang or coding": re.compile(r"^!|/usr/bin/|-\*-|\bcoding[:=]|^vim?:"),
    "ruler": re.compile(r"^\W*$|^([^\w\s])\1{3,}|([^\w\s.])\2{3,}$"),
    "directive": re.compile(r"eslint|tslint|jshint|pylint|noqa|clang-format|<reference|@ts-|go:build|type: ignore"),
    "author": re.compile(
        r"^(authors?|created by|written by|adapted from|ported from|version)\b|\$Id|@author", re.IGNORECASE
    ),
}


class Summary(NamedTuple):
    """The first paragraph of what a file says of itself."""

    path: Path
    text: str | None
    faults: tuple[str, ...]


def sample(trees: Sequence[Path], *, headers: bool, size: int = SAMPLE, seed: int = SEED) -> list[Path]:
    """Source files of the trees, the same ones whenever the trees are the same."""
    files = sorted({path for tree in trees for path in _files(tree) if path.name.endswith(_HEADERS) == headers})
    generator = random.Random(seed)
    generator.shuffle(files)
    in_folder: Counter[Path] = Counter()
    chosen = []
    for path in files:
        in_folder[path.parent] += 1
        if in_folder[path.parent] <= MAX_IN_FOLDER:
            chosen.append(path)
    return sorted(chosen[:size])


def _files(tree: Path) -> Iterator[Path]:
    for folder, _, names in os.walk(tree):
        for name in names:
            path, language = Path(folder, name), language_of(name)
            is_code = language is not None and not LANGUAGES[language].is_data
            if is_code and path.is_file() and not path.is_symlink() and path.stat().st_size <= MAX_NBYTES:
                yield path


def summary_of(path: Path) -> Summary:
    """What a file's own comment or docstring says."""
    language, source = language_of(path.name), read_source(path.name, path.read_bytes())
    assert language is not None
    docstring = extract(language, source, path.name, parse(language, source)).docstring
    text = first_paragraph(docstring) if docstring else None
    return Summary(path, text, tuple(name for name, unwanted in _UNWANTED.items() if text and unwanted.search(text)))


def report(found: Iterable[Summary], title: str) -> list[str]:
    """A row of the table, and every summary that should be none."""
    summaries = list(found)
    faults = Counter(fault for summary in summaries for fault in summary.faults)
    with_text = sum(summary.text is not None for summary in summaries)
    row = f"| {title} | {len(summaries)} | {with_text} | " + " | ".join(str(faults[name]) for name in _UNWANTED) + " |"
    return [row, *(f"  {', '.join(s.faults)}: {s.path}: {s.text}" for s in summaries if s.faults)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("section", choices=["summaries"])
    parser.add_argument("trees", nargs="+", type=Path)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--show", action="store_true", help="print every summary, to be looked at")
    arguments = parser.parse_args()
    print(f"| Files | Sampled | With a summary | {' | '.join(_UNWANTED)} |\n|{' --- |' * (3 + len(_UNWANTED))}")
    for title, headers in (("headers", True), ("sources", False)):
        found = [summary_of(path) for path in sample(arguments.trees, headers=headers, seed=arguments.seed)]
        print("\n".join(report(found, title)))
        if arguments.show:
            print("\n".join(f"  {summary.path}: {summary.text}" for summary in found))


if __name__ == "__main__":
    main()
