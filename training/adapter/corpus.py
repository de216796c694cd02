"""The adapter's corpus as token ids: examples of all packages, without repeats and held-out text, balanced.

    python -m training.adapter.corpus TOKENIZER_DIR OUT

Writes train.rows.npz, held_out.rows.npz and held_out.json into OUT, and manifest.json beside this file.  Rules:

- a training example is dropped when more than half of its runs of eight words stand in held-out examples;
- a chunk of code stands once, a sentence at most 6 times, a name with its sentence at most twice;
- at most half of the answers are about Python, at most a fifth about any other language.
"""

from __future__ import annotations

import json
import multiprocessing
import random
import re
import sys
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from rotary_batch.model.tokens import Tokenizer
from training.adapter.build import all_packages, path_of
from training.adapter.examples import Example
from training.adapter.prompts import opening
from training.adapter.rows import Row, save_rows
from training.adapter.sources import Package

MANIFEST = Path(__file__).parent / "manifest.json"
SHINGLE_WORDS, DUPLICATE_SHARE = 8, 0.5
MAX_SAME_SENTENCE, MAX_SAME_PAIR = 6, 2
MAX_PYTHON_SHARE, MAX_OTHER_SHARE = 0.5, 0.2
MAX_ROW_TOKENS = 1700
HELD_OUT_ROWS = 900
WORKERS = 4
_FAMILIES = {"typescript": "javascript", "tsx": "javascript", "cpp": "c"}


def family(language: str) -> str:
    """Languages that are counted together."""
    return _FAMILIES.get(language, language)


def load(packages: Iterable[Package]) -> Iterator[Example]:
    """The examples of packages that were read."""
    for package in packages:
        path = path_of(package)
        if path.is_file():
            for line in path.read_text().splitlines():
                task, language, name, prompt, answers = json.loads(line)
                yield Example(task, language, name, prompt, tuple((one, text) for one, text in answers))


def fenced(prompt: str) -> str:
    """The text between the markers of a prompt."""
    found = re.search(r"<(text-\w+)>\n(.*)</\1>", prompt, re.DOTALL)
    return found.group(2) if found else prompt


def shingles(text: str) -> Iterator[int]:
    """Digests of all runs of words."""
    words = re.findall(r"\w+", text)
    for start in range(max(1, len(words) - SHINGLE_WORDS + 1)):
        yield zlib.crc32(" ".join(words[start : start + SHINGLE_WORDS]).encode())


def unlike(examples: Iterable[Example], held_out: frozenset[int]) -> Iterator[Example]:
    """Those that do not repeat held-out text."""
    for example in examples:
        found = list(shingles(fenced(example.prompt)))
        if sum(one in held_out for one in found) <= DUPLICATE_SHARE * len(found):
            yield example


def unrepeated(examples: Iterable[Example]) -> Iterator[Example]:
    """Each code once, and answers not too often."""
    codes: set[int] = set()
    sentences: Counter[str] = Counter()
    pairs: Counter[tuple[str, str]] = Counter()
    for example in examples:
        code = hash(fenced(example.prompt))
        if code in codes:
            continue
        codes.add(code)
        kept = []
        for name, sentence in example.answers:
            pair = name.rsplit(".", 1)[-1], sentence
            if sentences[sentence] < MAX_SAME_SENTENCE and pairs[pair] < MAX_SAME_PAIR:
                sentences[sentence] += 1
                pairs[pair] += 1
                kept.append((name, sentence))
        if kept:
            yield replace(example, answers=tuple(kept))


def balanced(examples: Sequence[Example], draw: random.Random) -> list[Example]:
    """Chunks of languages that have too many answers are drawn from; roll-ups stay."""
    counts = Counter(family(one.language) for one in examples if one.task == "chunk" for _ in one.answers)
    while True:
        total = sum(counts.values())
        over = {
            name: round(share * total)
            for name in counts
            if counts[name] > (share := MAX_PYTHON_SHARE if name == "python" else MAX_OTHER_SHARE) * total + 1
        }
        if not over:
            break
        counts.update({name: most - counts[name] for name, most in over.items()})
    kept, used = [], Counter[str]()
    for one in draw.sample(examples, len(examples)):
        name = family(one.language)
        if one.task != "chunk" or used[name] < counts[name]:
            kept.append(one)
            used[name] += len(one.answers) if one.task == "chunk" else 0
    return kept


def row_of(example: Example, tokenizer: Tokenizer, end_id: int) -> Row:
    """Ids of the prompt in the chat template, and of each answer behind its opening."""
    answers, openings = [], []
    for name, sentence in example.answers:
        begun = tokenizer.encode(opening(name)) if name else []
        ids = [*begun, *tokenizer.encode(f" {sentence}" if name else sentence), end_id]
        answers.append(np.array(ids, np.int32))
        openings.append(len(begun))
    return Row(np.array(tokenizer.encode_chat(example.prompt), np.int32), tuple(answers), tuple(openings))


_held_out: frozenset[int] = frozenset()  # of the worker processes
_tokenizer: Tokenizer


def _remember(held_out: frozenset[int], tokenizer: Tokenizer) -> None:
    global _held_out, _tokenizer
    _held_out, _tokenizer = held_out, tokenizer


def _clean(package: Package) -> tuple[list[Example], int]:
    found = list(load([package]))
    clean = list(unlike(found, _held_out))
    return clean, len(found) - len(clean)


def _row(task: tuple[Example, int]) -> Row:
    return row_of(task[0], _tokenizer, task[1])


def write(tokenizer: Tokenizer, out: Path) -> None:
    """All files."""
    out.mkdir(parents=True, exist_ok=True)
    packages = [one for one in all_packages() if path_of(one).is_file()]
    trained = [one for one in packages if not one.is_held_out]
    judged = list(unrepeated(load([one for one in packages if one.is_held_out])))
    known = frozenset(s for example in judged for s in shingles(fenced(example.prompt)))
    with multiprocessing.get_context("fork").Pool(WORKERS, _remember, (known, tokenizer)) as pool:
        read = pool.map(_clean, trained, chunksize=1)
    clean = [one for some, _ in read for one in some]
    draw = random.Random(20261128)
    kept = balanced(list(unrepeated(draw.sample(clean, len(clean)))), draw)
    end_id = next(iter(tokenizer.stop_ids & {n for n, text in tokenizer.pieces().items() if text == "<|im_end|>"}))
    with multiprocessing.get_context("fork").Pool(WORKERS, _remember, (known, tokenizer)) as pool:
        rows = pool.map(_row, [(one, end_id) for one in kept], chunksize=200)
    rows = [row for row in rows if row.num_tokens <= MAX_ROW_TOKENS]
    save_rows(rows, out / "train.rows.npz")
    pairs = [(one, row_of(one, tokenizer, end_id)) for one in draw.sample(judged, len(judged))]
    pairs = [pair for pair in pairs if pair[1].num_tokens <= MAX_ROW_TOKENS][:HELD_OUT_ROWS]
    save_rows([row for _, row in pairs], out / "held_out.rows.npz")
    pieces = tokenizer.pieces()
    facts = {
        "pieces": [pieces.get(n, "") for n in range(max(pieces) + 1)],
        "ends": sorted(tokenizer.stop_ids),
        "rows": [
            {"task": o.task, "language": o.language, "package": o.package, "answers": o.answers} for o, _ in pairs
        ],
    }
    (out / "held_out.json").write_text(json.dumps(facts))
    manifest = {
        "training": [_entry(one, kept) for one in trained],
        "held_out": [_entry(one, judged) for one in packages if one.is_held_out],
        "answers": {"training": counts_of(kept), "held_out": counts_of(judged)},
        "near_duplicates_dropped": sum(dropped for _, dropped in read),
        "tokens": sum(row.num_tokens for row in rows),
    }
    MANIFEST.write_text(json.dumps(manifest, indent=1) + "\n")
    print(json.dumps(manifest["answers"]), f"{len(rows):,} rows, {manifest['tokens']:,} tokens")


def counts_of(examples: Iterable[Example]) -> dict[str, int]:
    """Answers by task and language."""
    found = Counter(
        f"{one.task} {one.language}".strip() if one.task == "chunk" else one.task
        for one in examples
        for _ in one.answers
    )
    return dict(sorted(found.items()))


def _entry(package: Package, examples: Sequence[Example]) -> dict[str, object]:
    count = sum(len(one.answers) for one in examples if one.package == package.name)
    entry = {"registry": package.registry, "package": package.name, "version": package.version}
    return entry | {"licence": package.licence[:120], "answers": count}


if __name__ == "__main__":
    write(Tokenizer.load(Path(sys.argv[1])), Path(sys.argv[2]))
