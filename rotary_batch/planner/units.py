"""The items that files make: their chunks, themselves, the folders above them, the repository."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from rotary_batch.core import Chunk, ParsedFile, SourceFile, Symbol
from rotary_batch.errors import PromptError
from rotary_batch.jobs import Job
from rotary_batch.pages.page_paths import folders_of
from rotary_batch.planner.prompt_builder import PromptBuilder
from rotary_batch.work.rows import PlannedItem

# Roll-ups go before chunks once they are ready, so that files and folders are finished as early as they can be.
_UNIT_PRIORITY = {"chunk": 0, "file": 10**9, "directory": 2 * 10**9, "repository": 3 * 10**9}


def chunk_items(one: ParsedFile, source: bytes, prompt_builder: PromptBuilder) -> Iterator[PlannedItem]:
    """The chunks of a file, each with its prompt; their rank is known when all files are."""
    if "chunk" in prompt_builder.job.units and takes(prompt_builder.job, one.file):
        for chunk in _worth_asking(one.chunks, one.symbols):
            yield _chunk_item(chunk, one.file, source[chunk.start_byte : chunk.end_byte], prompt_builder)


def takes(job: Job, file: SourceFile) -> bool:
    """Whether a job is about a source file."""
    return job.select.takes(file.path, file.language)


def _worth_asking(chunks: Sequence[Chunk], symbols: Sequence[Symbol]) -> Iterator[Chunk]:
    """All chunks of code; of module-level data (tables, constants) only the first chunk of a file."""
    waiting = sorted((symbol.start_byte, symbol.end_byte) for symbol in symbols)[::-1]
    reach = 0  # how far the symbols go that start before a chunk's end
    for place, chunk in enumerate(chunks):
        while waiting and waiting[-1][0] < chunk.end_byte:
            reach = max(reach, waiting.pop()[1])
        if place == 0 or reach > chunk.start_byte:
            yield chunk


def _chunk_item(chunk: Chunk, file: SourceFile, text: bytes, prompt_builder: PromptBuilder) -> PlannedItem:
    item = PlannedItem(
        unit="chunk",
        subject=chunk.subject,
        path=chunk.path,
        parent=("file", file.path) if "file" in prompt_builder.job.units else None,
        position=chunk.start_byte,
        max_new_tokens=prompt_builder.job.units["chunk"].new_tokens,
        max_sentences=prompt_builder.job.units["chunk"].sentences,
    )
    try:
        encoded = prompt_builder.build_chunk_prompt(chunk, text, file.language or "text")
    except PromptError as error:
        return replace(item, error=str(error))
    return replace(item, key=encoded.key, prompt_ids=encoded.prompt_ids, num_markers=encoded.num_markers)


def rollup_items(
    paths: Sequence[str], ranks: Mapping[str, int], job: Job, changed: Collection[str]
) -> Iterator[PlannedItem]:
    """Files, the folders above them, the repository; touched when anything below them changed."""
    units = [unit for unit in ("file", "directory", "repository") if unit in job.units]
    touched = set(changed) | set(folders_of(changed)) | ({""} if changed else set())
    for unit in units:
        for subject in _subjects(unit, paths):
            yield PlannedItem(
                unit=unit,
                subject=subject,
                path=subject,
                parent=_parent(unit, subject, units),
                priority=_UNIT_PRIORITY[unit] + ranks.get(subject, subject.count("/")),
                max_new_tokens=job.units[unit].new_tokens,
                max_sentences=job.units[unit].sentences,
                touched=subject in touched,
            )


def _subjects(unit: str, paths: Sequence[str]) -> Sequence[str]:
    if unit == "file":
        return paths
    if unit == "repository":
        return [""] if paths else []
    return folders_of(paths)


def _parent(unit: str, subject: str, units: Sequence[str]) -> tuple[str, str] | None:
    """Who reads it: the folder around it, or the repository at the top."""
    folder = subject.rpartition("/")[0]
    if unit != "repository" and folder and "directory" in units:
        return "directory", folder
    return ("repository", "") if unit != "repository" and "repository" in units else None
