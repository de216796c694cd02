"""Examples of roll-ups: notes on what a file, a directory or a package holds, and what its author says of it."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from rotary_batch.core import Symbol
from rotary_batch.planner.prompt_builder import Note, note_line
from rotary_batch.prompts import Prompt
from rotary_batch.readme import first_paragraphs, is_readme
from training.adapter.files import UNASKED, File
from training.adapter.sentences import first_sentence, is_in
from training.adapter.sources import Package

MAX_NOTES, MAX_NOTES_CHARACTERS, LEAST_NOTES = 40, 3600, 2
_OPENINGS = {"__init__.py", "doc.go", "mod.rs", "lib.rs", "index.js", "index.ts", "package-info.java"}


class RollUp(NamedTuple):
    """The prompt of a roll-up and its answer."""

    task: str
    language: str
    prompt: str
    sentence: str


def rollups(
    files: Sequence[File], root: Path, package: Package, prompts: Mapping[str, Prompt], draw: random.Random
) -> Iterator[RollUp]:
    """Of files, directories and the package."""
    sentences: dict[str, str] = {}
    for one in files:
        sentence = _unit_sentence(one.facts.docstring)
        shown = [s for s in one.facts.symbols if s.kind not in UNASKED and s.is_public]
        notes = [note for note in (_note(symbol, one, draw) for symbol in shown) if note]
        if sentence:
            sentences[one.file.path] = sentence
        if sentence and len(notes) >= LEAST_NOTES and len(one.sentences) >= LEAST_NOTES:
            yield from _rollup("file", one.language, one.file.path, notes, sentence, prompts)
    yield from _above(sentences, root, package, prompts)


def _note(symbol: Symbol, one: File, draw: random.Random) -> Note | None:
    text = one.sentences.get(symbol.start_byte)
    if not text and symbol.kind != "macro" and draw.random() < 0.3:
        text = symbol.signature[:100]
    return Note(f"`{symbol.qualified_name}`", text) if text else None


def _above(
    sentences: Mapping[str, str], root: Path, package: Package, prompts: Mapping[str, Prompt]
) -> Iterator[RollUp]:
    folders: dict[str, list[str]] = defaultdict(list)
    for path in sentences:
        folders[path.rpartition("/")[0]].append(path)
    for folder, paths in folders.items():
        opening = next((path for path in paths if PurePosixPath(path).name in _OPENINGS), None)
        notes = [Note(f"`{PurePosixPath(path).name}`", sentences[path]) for path in paths if path != opening]
        if opening and len(notes) >= LEAST_NOTES:
            yield from _rollup("directory", "", folder or package.name, notes, sentences[opening], prompts)
    top = [Note(f"`{folder}`", sentences[paths[0]]) for folder, paths in folders.items() if folder][:20]
    about = _unit_sentence(package.summary) or _readme(root)
    if about and len(top) >= LEAST_NOTES:
        yield from _rollup("repository", "", package.name, top, about, prompts)


def _rollup(
    task: str, language: str, name: str, notes: Sequence[Note], sentence: str, prompts: Mapping[str, Prompt]
) -> Iterator[RollUp]:
    lines, used = [], 0
    for line in map(note_line, notes[:MAX_NOTES]):
        used += len(line)
        if used > MAX_NOTES_CHARACTERS and lines:
            break
        lines.append(line)
    prompt = prompts[task].fill({"name": name, "notes": "\n".join(lines)}).text
    if not is_in(sentence, prompt):
        yield RollUp(task, language, prompt, sentence)


def _readme(root: Path) -> str | None:
    paths = [path for path in root.iterdir() if is_readme(path.name) and path.is_file()]
    found = first_paragraphs(paths[0].read_text(errors="replace")) if paths else []
    return _unit_sentence(found[0]) if found else None


def _unit_sentence(docs: str | None) -> str | None:
    return first_sentence(docs, "", is_callable=False)
