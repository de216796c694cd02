"""The items of a repository: chunks or their symbols, files, the folders above them, the repository itself."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice, takewhile
from operator import attrgetter

from rotary_batch.core import DATA_KINDS, Chunk, ParsedFile, SourceFile, Subject, Symbol, Unit
from rotary_batch.errors import PromptError
from rotary_batch.jobs import Job
from rotary_batch.pages.page import MAX_LISTED
from rotary_batch.pages.page_paths import folders_of, parent_of
from rotary_batch.planner.asked import asked_of
from rotary_batch.planner.prompt_builder import BegunPrompt, PromptBuilder
from rotary_batch.repo.languages import LANGUAGES
from rotary_batch.work.rows import PlannedItem

LABEL_NAMES = 4  # symbols in the label of a note on a chunk
_ANSWER_CHARS = 70  # of an answer on a symbol
_NOTE_FRAME_CHARS = 30  # of a note, besides names and signatures
# Roll-ups that are ready go before chunks, so that files and folders are finished early.
_UNIT_PRIORITY = {Unit.CHUNK: 0, Unit.FILE: 10**9, Unit.DIRECTORY: 2 * 10**9, Unit.REPOSITORY: 3 * 10**9}


def is_selected(file: SourceFile, job: Job) -> bool:
    """Whether a job describes a file; prose and settings only when it names their language."""
    is_data = file.language is not None and LANGUAGES[file.language].is_data
    return job.selects(file) and (not is_data or file.language in job.select.languages)


def source_items(one: ParsedFile, source: bytes, prompt_builder: PromptBuilder) -> Iterator[PlannedItem]:
    """The chunks or the symbols of a file, each with its prompt; their priority is set once all files are known.

    Where a job tells of the code around, the prompts are made then too.
    """
    job = prompt_builder.job
    if Unit.CHUNK not in job.units or not is_selected(one.file, job):
        return
    if job.symbol is not None:
        for asked in asked_of(one, source, job.symbol):
            items = [planned_item(*question, asked.chunk.start_byte, job) for question in asked.questions]
            if job.symbol.context_tokens:
                yield from (replace(item, is_draft=True) for item in items)
            else:
                begin = partial(prompt_builder.begin_chunk_prompt, asked.chunk, source, one.file.language or "text")
                yield from with_prompts(items, begin, prompt_builder)
    else:
        symbols = sorted(one.symbols, key=attrgetter("start_byte"))
        for chunk in _worth_describing(one.chunks, one.symbols):
            item = _chunk_item(chunk, one.file, source[chunk.start_byte : chunk.end_byte], prompt_builder)
            yield replace(item, note_chars=_note_chars(chunk, symbols))


def _note_chars(chunk: Chunk, symbols: Sequence[Symbol]) -> int:
    """About how long the note on a chunk is: its label, and the signatures of symbols (by place) that start in it."""
    first = bisect_left(symbols, chunk.start_byte, key=attrgetter("start_byte"))
    inside = takewhile(lambda symbol: symbol.start_byte < chunk.end_byte, islice(symbols, first, first + MAX_LISTED))
    label = sum(len(name) for name in chunk.symbols[:LABEL_NAMES])
    return _NOTE_FRAME_CHARS + label + sum(len(symbol.signature or symbol.name) for symbol in inside)


def _worth_describing(chunks: Sequence[Chunk], symbols: Sequence[Symbol]) -> Iterator[Chunk]:
    """All chunks of code; of module-level data (tables, constants) only the first chunk of a file."""
    code = (symbol for symbol in symbols if symbol.kind not in DATA_KINDS)
    waiting = sorted((symbol.start_byte, symbol.end_byte) for symbol in code)[::-1]
    reach = 0  # the last byte of the symbols that start before the end of the chunk
    for number, chunk in enumerate(chunks):
        while waiting and waiting[-1][0] < chunk.end_byte:
            reach = max(reach, waiting.pop()[1])
        if number == 0 or reach > chunk.start_byte:
            yield chunk


def _chunk_item(chunk: Chunk, file: SourceFile, text: bytes, prompt_builder: PromptBuilder) -> PlannedItem:
    units = prompt_builder.job.units
    item = PlannedItem(
        subject=chunk.subject,
        parent=Subject(Unit.FILE, file.path) if Unit.FILE in units else None,
        position=chunk.start_byte,
        max_new_tokens=units[Unit.CHUNK].new_tokens,
        max_sentences=units[Unit.CHUNK].sentences,
    )
    try:
        encoded = prompt_builder.build_chunk_prompt(chunk, text, file.language or "text")
    except PromptError as error:
        return replace(item, error=str(error))
    return replace(item, key=encoded.key, prompt_ids=encoded.prompt_ids, num_markers=encoded.num_markers)


def with_prompts(
    items: Sequence[PlannedItem], begin: Callable[[], BegunPrompt], prompt_builder: PromptBuilder
) -> Iterator[PlannedItem]:
    """The items of one chunk with their prompts, which all begin with the same one."""
    try:
        begun = begin()
    except PromptError as error:
        yield from (replace(item, error=str(error)) for item in items)
        return
    head_ids, is_shared = begun.chat.head_ids, len(items) > 1
    for place, item in enumerate(items):
        try:
            encoded = prompt_builder.continue_prompt(begun, item.label or "", item.subject.unit)
        except PromptError as error:
            yield replace(item, error=str(error))
            continue
        yield replace(
            item,
            key=encoded.key,
            shared_ids=head_ids if is_shared else (),
            prompt_ids=encoded.prompt_ids if is_shared else (*head_ids, *encoded.prompt_ids),
            num_markers=encoded.num_markers,
            is_first=place == 0,
        )


def planned_item(subject: Subject, label: str, chunk_start: int, job: Job) -> PlannedItem:
    """An item whose answer is one line, without its prompt."""
    spec = job.units[Unit.CHUNK] if subject.unit is Unit.CHUNK or job.symbol is None else job.symbol
    start, _ = subject.span or (0, 0)
    is_read = Unit.FILE in job.units and subject.unit is not Unit.DETAIL
    return PlannedItem(
        subject=subject,
        parent=Subject(Unit.FILE, subject.path) if is_read else None,
        position=start,
        max_new_tokens=spec.new_tokens,
        max_sentences=spec.sentences,
        at_line_end=True,
        label=label,
        chunk_start=chunk_start,
        note_chars=_NOTE_FRAME_CHARS + len(label) + _ANSWER_CHARS,
    )


def rollup_items(
    paths: Sequence[str], ranks: Mapping[str, int], job: Job, changed: Collection[str]
) -> Iterator[PlannedItem]:
    """Files, the folders above them, the repository; touched when anything below them changed."""
    touched = set(changed) | set(folders_of(changed)) | ({""} if changed else set())
    for subject in _rollups(paths):
        if subject.unit in job.units:
            spec = job.units[subject.unit]
            yield PlannedItem(
                subject=subject,
                parent=_reader(subject, job),
                priority=_UNIT_PRIORITY[subject.unit] + ranks.get(subject.path, subject.path.count("/")),
                max_new_tokens=spec.new_tokens,
                max_sentences=spec.sentences,
                touched=subject.path in touched,
            )


def _rollups(paths: Sequence[str]) -> Iterator[Subject]:
    yield from (Subject(Unit.FILE, path) for path in paths)
    yield from (Subject(Unit.DIRECTORY, folder) for folder in folders_of(paths))
    if paths:
        yield Subject(Unit.REPOSITORY, "")


def _reader(subject: Subject, job: Job) -> Subject | None:
    """The roll-up that reads another: of the folder around it, or of the repository at the top."""
    folder = parent_of(subject.path)
    if subject.unit is not Unit.REPOSITORY and folder and Unit.DIRECTORY in job.units:
        return Subject(Unit.DIRECTORY, folder)
    is_read = subject.unit is not Unit.REPOSITORY and Unit.REPOSITORY in job.units
    return Subject(Unit.REPOSITORY, "") if is_read else None
