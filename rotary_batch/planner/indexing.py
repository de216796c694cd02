"""Bring the database up to date with a repository: its files, and the work that follows from them.

Knows which files changed and which items that makes; knows nothing of answers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rotary_batch.core import Chunk, FileClass, ParsedFile, SourceFile
from rotary_batch.errors import PromptError
from rotary_batch.jobs import Job
from rotary_batch.planner.asking import Asking
from rotary_batch.repo.files import PathPatterns, classify
from rotary_batch.repo.folder import Entry
from rotary_batch.repo.git import Repository
from rotary_batch.repo.graph import priorities, resolve
from rotary_batch.repo.parse import parse_files
from rotary_batch.work.index import StoredIndex, known_files, load_index, replace_files, save_repository
from rotary_batch.work.items import plan_items
from rotary_batch.work.rows import PlanCounts, PlannedItem, RepositoryRow
from rotary_batch.work.store import WorkStore

# Roll-ups go before chunks once they are ready, so that files and folders are finished as early as they can be.
_UNIT_PRIORITY = {"chunk": 0, "file": 10**9, "directory": 2 * 10**9, "repository": 3 * 10**9}
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Indexed:
    """What `index` did with one repository."""

    repository: RepositoryRow
    files: dict[str, int]  # by class
    parsed: int
    symbols: int
    chunks: int
    counts: PlanCounts
    notes: tuple[str, ...]


def index_repository(
    store: WorkStore,
    repository: Repository,
    asking: Asking,
    row: RepositoryRow,
    patterns: PathPatterns,
    progress: Progress,
    num_workers: int = 2,
) -> Indexed:
    """Read what changed since the last index under the same plan key, and queue the work that it makes."""
    asking.check_budget()
    files = classify(repository, docs_dir=row.docs_dir, patterns=patterns)
    plan_key = index_key(asking, row)
    row = replace(row, plan_key=plan_key, commit_id=repository.commit, notes=repository.notes)
    repository_id = save_repository(store, row)
    row = replace(row, id=repository_id)
    known = known_files(store, repository_id)
    sources = [file for file in files if file.file_class is FileClass.SOURCE]
    changed = [file for file in sources if known.get(file.path) != (file.blob, plan_key)]
    gone = known.keys() - {file.path for file in sources}
    texts = list(_with_bytes(repository, changed))
    parsed = list(_parsed(texts, asking, Path(row.pack_dir), progress, num_workers))
    replace_files(store, repository_id, files, parsed, plan_key)
    index = load_index(store, repository_id)
    touched = {file.path for file in changed} | gone
    by_path = {file.path: data for file, data in texts}
    planned = list(_planned(index, asking, by_path, touched))
    counts = plan_items(store, repository_id, asking.job.name, planned, touched)
    return Indexed(
        repository=row,
        files=_by_class(files),
        parsed=len(parsed),
        symbols=len(index.symbols),
        chunks=len(index.chunks),
        counts=counts,
        notes=repository.notes,
    )


def index_key(asking: Asking, row: RepositoryRow) -> str:
    """Everything but the sources that items depend on; under another key all files are read again."""
    prompts = {name: prompt.text for name, prompt in sorted(asking.prompts.items())}
    parts = [asking.plan_key, asking.manifest.weights_digest, asking.numerics, prompts, repr(asking.job), row.job]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _with_bytes(repository: Repository, files: Sequence[SourceFile]) -> Iterator[tuple[SourceFile, bytes]]:
    wanted = {file.path: file for file in files}
    entries: list[Entry] = [entry for entry in repository.entries() if entry.path in wanted] if wanted else []
    for entry, data in repository.read(entries):
        yield wanted[entry.path], data


def _parsed(
    texts: Sequence[tuple[SourceFile, bytes]], asking: Asking, pack_dir: Path, progress: Progress, num_workers: int
) -> Iterator[ParsedFile]:
    found = parse_files(
        texts,
        tokenizer_dir=pack_dir,
        budget_tokens=asking.chunk_budget_tokens,
        num_workers=min(num_workers, max(1, len(texts))),
    )
    for number, one in enumerate(found, 1):
        progress(number, len(texts))
        yield one


def _by_class(files: Sequence[SourceFile]) -> dict[str, int]:
    names = [file.file_class.value for file in files]
    return {name: names.count(name) for name in sorted(set(names))}


def _planned(index: StoredIndex, asking: Asking, texts: dict[str, bytes], touched: set[str]) -> Iterator[PlannedItem]:
    """Every roll-up, and the chunks of the files in `texts`."""
    job = asking.job
    chosen = [
        file
        for file in index.files
        if file.file_class is FileClass.SOURCE and job.select.takes(file.path, file.language)
    ]
    ranks = priorities([file.path for file in chosen], resolve(index.symbols, index.references))
    yield from _rollups(chosen, ranks, job, touched)
    by_path: dict[str, list[Chunk]] = {}
    for chunk in index.chunks:
        by_path.setdefault(chunk.path, []).append(chunk)
    for file in chosen:
        if file.path in texts and "chunk" in job.units:
            parent = ("file", file.path) if "file" in job.units else None
            for chunk in _worth_asking(by_path.get(file.path, []), index):
                yield _chunk_item(chunk, file, texts[file.path], asking, parent, ranks[file.path])


def _worth_asking(chunks: Sequence[Chunk], index: StoredIndex) -> list[Chunk]:
    """All chunks of code; of module-level data (tables, constants) only the first chunk of a file."""
    spans = [(s.start_byte, s.end_byte) for s in index.symbols if chunks and s.path == chunks[0].path]
    return [
        chunk
        for place, chunk in enumerate(chunks)
        if place == 0 or any(start < chunk.end_byte and chunk.start_byte < end for start, end in spans)
    ]


def _chunk_item(
    chunk: Chunk, file: SourceFile, text: bytes, asking: Asking, parent: tuple[str, str] | None, rank: int
) -> PlannedItem:
    item = PlannedItem(
        unit="chunk",
        subject=chunk.subject,
        path=chunk.path,
        parent=parent,
        position=chunk.start_byte,
        priority=rank,
        max_new_tokens=asking.job.units["chunk"].new_tokens,
        max_sentences=asking.job.units["chunk"].sentences,
    )
    try:
        asked = asking.ask_chunk(chunk, text[chunk.start_byte : chunk.end_byte], file.language or "text")
    except PromptError as error:
        return replace(item, error=str(error))
    return replace(item, key=asked.key, prompt_ids=asked.prompt_ids, num_markers=asked.num_markers)


def _rollups(files: Sequence[SourceFile], ranks: dict[str, int], job: Job, touched: set[str]) -> Iterator[PlannedItem]:
    """Files, the folders above them, the repository; touched when anything below them was."""
    units = [unit for unit in ("file", "directory", "repository") if unit in job.units]
    members = [(unit, subject) for unit in units for subject in _subjects(unit, files)]
    for unit, subject in members:
        yield PlannedItem(
            unit=unit,
            subject=subject,
            path=subject,
            parent=_parent(unit, subject, units),
            priority=_UNIT_PRIORITY[unit] + ranks.get(subject, subject.count("/")),
            max_new_tokens=job.units[unit].new_tokens,
            max_sentences=job.units[unit].sentences,
            touched=any(_is_below(path, unit, subject) for path in touched),
        )


def _subjects(unit: str, files: Sequence[SourceFile]) -> list[str]:
    if unit == "file":
        return [file.path for file in files]
    if unit == "repository":
        return [""] if files else []
    found = {file.path[:place] for file in files for place, letter in enumerate(file.path) if letter == "/"}
    return sorted(found)


def _is_below(path: str, unit: str, subject: str) -> bool:
    return path == subject if unit == "file" else unit == "repository" or path.startswith(subject + "/")


def _parent(unit: str, subject: str, units: Sequence[str]) -> tuple[str, str] | None:
    """Who reads it: the folder around it, or the repository at the top."""
    folder = subject.rpartition("/")[0]
    if unit != "repository" and folder and "directory" in units:
        return "directory", folder
    return ("repository", "") if unit != "repository" and "repository" in units else None
