"""The first part of benchmarks/quality.md: how models do on held-out symbols; the rest of the page stays as it is."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.shapes import machine
from training.quality.confidence import GOOD_ROUGE
from training.quality.report import prose, table
from training.quality.samples import cell
from training.quality.symbols.asking import READ, Answered
from training.quality.symbols.scores import (
    TARGET,
    Score,
    first_comment,
    loops,
    said,
    score,
    shown,
    split_name,
    threshold_of,
)

TITLE = "# Quality: symbols of packages that no model has seen"
OLD_TITLE = "# Quality of the embedded model"
NUM_SAMPLES = 24


def write(answers: Mapping[str, Sequence[Answered]], path: Path) -> None:
    """Put the part in front of what the page has of the small model."""
    old = path.read_text(encoding="utf-8")
    rest = old[old.index(OLD_TITLE) :]
    path.write_text(render(answers) + "\n" + rest, encoding="utf-8")


def render(answers: Mapping[str, Sequence[Answered]]) -> str:
    """The part as Markdown."""
    parts = [_head(answers), _scores(answers), _shown(answers), _languages(answers), _read(), _samples(answers)]
    return "\n".join(line for part in parts for line in [*part, ""] if part)


def _head(answers: Mapping[str, Sequence[Answered]]) -> list[str]:
    some = _most(answers)
    packages = Counter((one.language, one.package) for one in some)
    listed = ", ".join(f"{package} ({language}) {count}" for (language, package), count in sorted(packages.items()))
    return [
        TITLE,
        "",
        *prose(f"Command: `make quality`.  Machine: {machine()}."),
        *prose(
            f"{len(some):,} documented symbols of whole packages: {listed}.  Their docs are hidden in a copy, which is "
            "indexed and drained as a repository of a user is: the product's own prompts, limits and checks, greedy."
        ),
    ]


def _most(answers: Mapping[str, Sequence[Answered]]) -> Sequence[Answered]:
    """Of the model that was asked about most symbols: one that is asked about chunks is asked where one is alone."""
    return max(answers.values(), key=len)


def _scores(answers: Mapping[str, Sequence[Answered]]) -> list[str]:
    some = _most(answers)
    rows = {"name, split into words": score(some, split_name)}
    rows["first comment in the code, else the split name"] = score(some, first_comment)
    rows |= {name: score(found, said) for name, found in answers.items()}
    head = (
        "Who wrote",
        "Symbols",
        "ROUGE-L",
        f"ROUGE-L >= {GOOD_ROUGE}",
        "Identifiers",
        "The author has them",
        "Loops",
    )
    cells = [(*_cells(name, one), _loops(answers, name)) for name, one in rows.items()]
    about = prose(
        "All answers, shown or not.  ROUGE-L is the F1 of the longest common subsequence of words with the author's "
        "first sentence.  Identifiers are what stands between backticks."
    )
    return ["## All symbols", "", *about, "", *table(head, cells)]


def _cells(name: str, one: Score) -> tuple[str, ...]:
    confirmed = f"{one.confirmed:.1%}" if one.named else "none"
    return name, f"{one.num:,}", f"{one.rouge:.3f}", f"{one.good:.1%}", f"{one.named:,}", confirmed


def _loops(answers: Mapping[str, Sequence[Answered]], name: str) -> str:
    return f"{loops(answers[name]):.1%}" if name in answers else "0.0%"


def _shown(answers: Mapping[str, Sequence[Answered]]) -> list[str]:
    rows = []
    for name, found in answers.items():
        threshold, judged = threshold_of(found), found[1::2]
        kept = shown(judged, threshold)
        one = score(kept, said)
        limit = "none" if threshold == -math.inf else f"{threshold:.3f}"
        share = f"{len(kept):,}, {len(kept) / max(1, len(judged)):.1%}"
        rows.append((name, limit, share, f"{one.rouge:.3f}", f"{one.good:.1%}", f"{one.exist:.1%} of {one.named:,}"))
    head = ("Model", "Threshold", "Shown", "ROUGE-L", f"ROUGE-L >= {GOOD_ROUGE}", "Identifiers that exist")
    about = prose(
        "What a page shows: what passes the checks with a mean log-probability of a token of at least the threshold.  "
        f"It is the lowest at which {TARGET:.0%} of what passes has a ROUGE-L of {GOOD_ROUGE}, one standard error "
        "allowed for, chosen on every second symbol as `model calibrate` does.  The table has the other half.  An "
        "identifier exists when it is a word of the package's code."
    )
    return ["## What is shown", "", *about, "", *table(head, rows)]


def _languages(answers: Mapping[str, Sequence[Answered]]) -> list[str]:
    names = sorted({one.language for some in answers.values() for one in some})
    rows = []
    for writer, found in answers.items():
        groups = [[one for one in found if one.language == name] for name in names]
        rows.append((writer, *(f"{score(group, said).rouge:.3f} of {len(group):,}" for group in groups)))
    return ["## By language", "", "ROUGE-L of all answers.", "", *table(("Model", *names), rows)]


def _read() -> list[str]:
    read = json.loads(READ.read_text()) if READ.is_file() else []
    judged = [one for one in read if one["right"] is not None]
    if not judged:
        return []
    right = sum(one["right"] for one in judged)
    wrong = [(one["key"], one["says"], one["author"]) for one in judged if not one["right"]]
    about = prose(
        f"{len(judged)} of what is shown, drawn with a fixed seed, were read next to their code: {right} are right, "
        f"{right / len(judged):.1%}.  Right is a sentence of which everything is true of the code and that says more "
        "than the name; another wording than the author's is no fault.  The wrong ones:"
    )
    cells = [tuple(map(cell, one)) for one in wrong]
    return ["## Read by hand", "", *about, "", *table(("Symbol", "The model", "The author"), cells)]


def _samples(answers: Mapping[str, Sequence[Answered]]) -> list[str]:
    some = _most(answers)
    chosen = some[:: max(1, len(some) // NUM_SAMPLES)][:NUM_SAMPLES]
    by_key = {name: {one.key: said(one) for one in found} for name, found in answers.items()}
    rows = [
        (cell(one.key), cell(one.author), *(cell(found.get(one.key, "")) for found in by_key.values()))
        for one in chosen
    ]
    return ["## Samples", "", "Evenly spread.", "", *table(("Symbol", "The author", *answers), rows)]
