"""The corpus: examples for training from many packages, examples for judging from packages never trained on.

    training_examples()   symbol, name, file, directory and text, in a fixed order
    held_out_examples()   symbol, file and directory of the packages in `sources.HELD_OUT`

Near-duplicates across the split: every run of eight words of every held-out file is a shingle, and a training
example is dropped when more than half of the shingles of its code and answer are among them.  Within the training
half an (answer, first line of code) stands once, and an answer at most four times, so that copies of one function
and phrases that fit everything do not rule.  Knows the split and the cache; knows nothing of tokens.

`python -m training.corpus` builds it into training/out (two minutes) and writes training/manifest.json.
"""

from __future__ import annotations

import functools
import hashlib
import json
import multiprocessing
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import astuple
from pathlib import Path

from rotary_batch.config import bundled
from rotary_batch.prompts import load_prompts
from training.reading import MAX_TEXT_CHARACTERS, Example, FileFacts, directory_examples, read_file
from training.sources import HELD_OUT, Package, description, packages

__all__ = ["HELD_OUT", "Example", "held_out_examples", "training_examples"]

OUT = Path(__file__).parent / "out"
MANIFEST = Path(__file__).parent / "manifest.json"
TARGETS = ("symbol", "file", "directory")
SHINGLE_WORDS = 8
DUPLICATE_SHARE = 0.5
MAX_SAME_ANSWER = 4
_held_out_shingles: frozenset[int] = frozenset()  # inherited by the worker processes


def training_examples() -> list[Example]:
    """Everything to train on; the same list on every call with the same packages."""
    return list(_load("train"))


def held_out_examples() -> list[Example]:
    """The target tasks of the held-out packages, in the order of package, file and line."""
    return list(_load("held_out"))


@functools.cache
def _load(split: str) -> tuple[Example, ...]:
    path, key_path = OUT / f"{split}.jsonl", OUT / "corpus.key"
    if not path.is_file() or not key_path.is_file() or key_path.read_text() != corpus_key():
        write()
    with path.open(encoding="utf-8") as lines:
        return tuple(Example(*json.loads(line)) for line in lines)


def corpus_key() -> str:
    """Digest of what decides the corpus: this code, the prompts, the packages' versions."""
    parts = [(Path(__file__).parent / name).read_text() for name in ("corpus.py", "reading.py", "sources.py")]
    parts += [f"{name}={prompt.text}" for name, prompt in load_prompts(bundled("prompts")).items()]
    parts += [f"{p.name} {p.version}" for flag in (False, True) for p in packages(held_out=flag)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def write() -> None:
    """Build both halves, the cache and the manifest."""
    global _held_out_shingles  # noqa: PLW0603  set before the workers fork
    OUT.mkdir(exist_ok=True)
    (OUT / "corpus.key").unlink(missing_ok=True)  # a corpus that was cut by a kill is not taken for a whole one
    judged = _unique(_examples(packages(held_out=True), TARGETS))
    _held_out_shingles = frozenset(_shingles(_held_out_texts()))
    marked = list(_marked(packages(held_out=False)))
    trained = _unique(example for example, is_duplicate in marked if not is_duplicate)
    for split, examples in (("train", trained), ("held_out", judged)):
        text = "".join(json.dumps(astuple(example)) + "\n" for example in examples)
        (OUT / f"{split}.jsonl").write_text(text, encoding="utf-8")
    MANIFEST.write_text(
        json.dumps(_manifest(trained, judged, sum(is_duplicate for _, is_duplicate in marked)), indent=1) + "\n"
    )
    (OUT / "corpus.key").write_text(corpus_key())


def _examples(sources: Iterable[Package], tasks: tuple[str, ...]) -> list[Example]:
    return [example for example, _ in _marked(list(sources)) if example.task in tasks]


def _marked(sources: list[Package]) -> Iterator[tuple[Example, bool]]:
    """Every example of the packages, and whether it repeats held-out text."""
    prompts = load_prompts(bundled("prompts"))
    with multiprocessing.get_context("fork").Pool(2) as pool:
        for package in sources:
            facts = [f for f in pool.imap(_read, [(p, package.name) for p in package.files()], chunksize=16) if f]
            yield from ((example, is_duplicate) for fact, marks in facts for example, is_duplicate in _zip(fact, marks))
            others = [*directory_examples([f for f, _ in facts], package.name, prompts), *_readme(package)]
            yield from ((example, _repeats(example)) for example in others)


def _zip(fact: FileFacts, marks: list[bool]) -> Iterator[tuple[Example, bool]]:
    return zip(fact.examples, marks, strict=True)


def _read(task: tuple[Path, str]) -> tuple[FileFacts, list[bool]] | None:
    fact = read_file(*task, load_prompts(bundled("prompts")))
    return (fact, [_repeats(example) for example in fact.examples]) if fact else None


def _readme(package: Package) -> Iterator[Example]:
    text = description(package)
    for start in range(0, len(text), MAX_TEXT_CHARACTERS):
        yield Example("text", "", text[start : start + MAX_TEXT_CHARACTERS], package.name)


def _unique(examples: Iterable[Example]) -> list[Example]:
    """Each prompt and answer once, one answer at most a few times in a task."""
    seen: set[tuple[str, str, str]] = set()
    answers: Counter[tuple[str, str]] = Counter()
    kept = []
    for example in examples:
        key = (example.task, example.answer, _first_line(example))
        if key in seen or answers[example.task, example.answer] >= MAX_SAME_ANSWER:
            continue
        seen.add(key)
        answers[example.task, example.answer] += 1
        kept.append(example)
    return kept


def _first_line(example: Example) -> str:
    """What names the thing: its own line with `def` or `class`, else all of the prompt."""
    found = re.findall(r"^\s*(?:async )?(?:def|class) .*$", _fenced(example.prompt), re.MULTILINE)
    if not found or example.task not in ("symbol", "name"):
        return example.prompt
    return found[0 if example.task == "symbol" else -1].strip()  # a name stands below the class that it is of


def _repeats(example: Example) -> bool:
    if not _held_out_shingles:
        return False
    found = list(_shingles([_fenced(example.prompt) + "\n" + example.answer]))
    return sum(shingle in _held_out_shingles for shingle in found) > DUPLICATE_SHARE * len(found)


def _fenced(prompt: str) -> str:
    """The text between the markers of a prompt: the rest is the same in all of them."""
    found = re.search(r"<(text-\w+)>\n(.*)</\1>", prompt, re.DOTALL)
    return found.group(2) if found else prompt


def _held_out_texts() -> Iterator[str]:
    for package in packages(held_out=True):
        for path in package.files():
            yield path.read_text(encoding="utf-8", errors="replace")


def _shingles(texts: Iterable[str]) -> Iterator[int]:
    for text in texts:
        words = re.findall(r"\w+", text)
        for start in range(max(1, len(words) - SHINGLE_WORDS + 1)):
            yield zlib.crc32(" ".join(words[start : start + SHINGLE_WORDS]).encode())


def _manifest(trained: list[Example], judged: list[Example], num_repeats: int) -> dict[str, object]:
    return {
        "training": [_entry(package, trained) for package in packages(held_out=False)],
        "held_out": [_entry(package, judged) for package in packages(held_out=True)],
        "examples": {"training": _counts(trained), "held_out": _counts(judged)},
        "near_duplicates": {
            "rule": f"more than {DUPLICATE_SHARE:.0%} of its runs of {SHINGLE_WORDS} words stand in held-out files",
            "dropped": num_repeats,
        },
    }


def _entry(package: Package, examples: list[Example]) -> dict[str, object]:
    counts = _counts([example for example in examples if example.package == package.name])
    entry = {"package": package.name, "distribution": package.distribution, "version": package.version}
    return entry | {"licence": package.licence, "examples": counts}


def _counts(examples: list[Example]) -> dict[str, int]:
    return dict(sorted(Counter(example.task for example in examples).items()))


if __name__ == "__main__":
    write()
    print(json.dumps(json.loads(MANIFEST.read_text())["examples"]))
