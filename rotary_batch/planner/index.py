"""Bring the database up to date with a repository: its files, and the items that they make.

A source file is stored in one transaction with its chunks and their items.  Then one transaction plans all roll-ups and
marks the plan as complete.  After a kill at any point, the next run continues.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path

from rotary_batch.core import FileClass, ParsedFile, SourceFile, stub_of
from rotary_batch.jobs import Job
from rotary_batch.pages.check import CHECK_VERSION
from rotary_batch.pages.outline import is_test_file
from rotary_batch.pages.page_paths import folders_above, may_move_others
from rotary_batch.planner.contexts import ContextPlanner, SourceText, draft_of
from rotary_batch.planner.examples import plan_examples
from rotary_batch.planner.prompt_builder import PromptBuilder
from rotary_batch.planner.redacting import Redactor
from rotary_batch.planner.resolving import resolve
from rotary_batch.planner.storing import store_parsed
from rotary_batch.planner.topics import plan_needs, save_central, topic_items, topics_to_ask
from rotary_batch.planner.units import is_selected, rollup_items, source_items
from rotary_batch.readme import first_paragraphs, is_readme
from rotary_batch.repo import languages, own_pages
from rotary_batch.repo.churn import recent_changes
from rotary_batch.repo.files import NOT_ALLOWED, PathPatterns, classify, is_by_content
from rotary_batch.repo.git import Repository
from rotary_batch.repo.graph import page_rank, priorities
from rotary_batch.repo.manifests import NAMES
from rotary_batch.repo.parse import Worker, parse_files
from rotary_batch.repo.project.facts import facts_of, says_facts
from rotary_batch.repo.read_once import WENT_AWAY, ReadOnce
from rotary_batch.repo.source_text import decoded, read_source
from rotary_batch.repo.stubs import joined
from rotary_batch.work import facts, graph, page_stamps
from rotary_batch.work import index as stored
from rotary_batch.work.drafts import ChunkId, drop_drafts, save_draft
from rotary_batch.work.expected import save_rooms
from rotary_batch.work.items import drop_other_jobs, num_items, plan_chunks, plan_rollups, rank_chunks
from rotary_batch.work.rows import PlanCounts, RepositoryRow
from rotary_batch.work.secrets import num_secrets
from rotary_batch.work.store import WorkStore
from rotary_batch.work.verdicts import require_check

FILES_A_COMMIT = 100  # a commit waits for the disk; after a kill, files that were not committed are read again
MAX_README_NBYTES = 1_000_000
NUM_WORKERS = 2  # processes that parse
_MAX_NAMED = 5  # folders in a note
_UNREAD = {NOT_ALLOWED, WENT_AWAY}
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
    unreadable: dict[str, str]  # path -> why a file or folder could not be read


def index_repository(
    store: WorkStore,
    repository: Repository,
    prompt_builder: PromptBuilder,
    row: RepositoryRow,
    patterns: PathPatterns,
    progress: Progress,
    should_stop: Callable[[], bool] | None = None,
) -> Indexed:
    """Read what changed since the last index under the same plan key, and queue the work that follows.

    `should_stop` is checked until the first file is parsed; from then on `progress` is called, which may raise.
    """
    prompt_builder.check_budget()
    repository = ReadOnce(repository)
    plan_key = index_key(prompt_builder, row)
    parsed = 0
    counts, redactor = PlanCounts(), Redactor()
    with _begun_parser(store, repository, prompt_builder, row) as begun:
        changes = _changes(store, repository, replace(row, plan_key=plan_key), patterns, should_stop)
        row = replace(row, plan_key=plan_key, commit_id=repository.commit, notes=repository.notes)
        is_complete = changes.is_empty and stored.is_planned(store, row.root, plan_key)
        row = replace(row, id=stored.save_repository(store, row if is_complete else replace(row, plan_key="")))
        require_check(store, row.id, check_key(prompt_builder))
        if not is_complete:
            files = _parsed(repository, changes, Path(row.pack_dir), prompt_builder, redactor, begun)
            # Closed even when `progress` raises: between two files a transaction is open.
            with closing(_store(store, files, prompt_builder, row, redactor)) as stored_files:
                for parsed, file_counts in enumerate(stored_files, 1):
                    counts += file_counts
                    progress(parsed, len(changes.to_read))
    if not is_complete:
        changes = _without_unreadable(changes, repository.unreadable)
        checkpoint = partial(progress, parsed, len(changes.to_read))
        counts += _roll_up(store, repository, changes, redactor, prompt_builder, row, checkpoint)
    counts = replace(counts, unchanged=num_items(store, row.id, prompt_builder.job.name) - counts.queued)
    return Indexed(
        repository=row,
        files=dict(sorted(Counter(file.file_class.value for file in changes.files).items())),
        parsed=parsed,
        symbols=stored.count_rows(store, "symbol", row.id),
        chunks=stored.count_rows(store, "chunk", row.id),
        counts=counts,
        notes=(*repository.notes, *_own_page_notes(changes.files, row.docs_dir), *_secret_notes(store, row.id)),
        unreadable=changes.unreadable | repository.unreadable,
    )


def _own_page_notes(files: Sequence[SourceFile], docs_dir: str) -> Iterator[str]:
    folders = own_pages.own_folders(files, docs_dir)
    if folders:
        named = ", ".join(f"{folder or '.'}/" for folder in folders[:_MAX_NAMED])
        more = f" and {len(folders) - _MAX_NAMED:,} more" if len(folders) > _MAX_NAMED else ""
        yield f"{named}{more}: docs of an earlier run, which are not read; delete them if they are no longer needed"


def _secret_notes(store: WorkStore, repository_id: int) -> Iterator[str]:
    if number := num_secrets(store, [repository_id]):
        are_kept = "is a secret" if number == 1 else f"are {number:,} secrets"
        yield f"there {are_kept} in its files, in no prompt and on no page; `rotary-batch report` says where"


def index_key(prompt_builder: PromptBuilder, row: RepositoryRow) -> str:
    """Everything but the sources that items depend on; under another key all files are read again."""
    prompts = {name: prompt.text for name, prompt in sorted(prompt_builder.prompts.items())}
    parts = [
        prompt_builder.plan_key,
        prompt_builder.manifest.weights_digest,
        prompt_builder.numerics,
        prompts,
        repr(_with_plain_units(prompt_builder.job)),
        row.job,
        languages.version(),
        check_key(prompt_builder),
        # Not in the job's text: the keys of jobs without any stay.
        *sorted(prompt_builder.job.template.items()),
        *([repr(prompt_builder.job.symbol), *prompt_builder.job.symbol.details] if prompt_builder.job.symbol else []),
        *([repr(prompt_builder.job.topics)] if prompt_builder.job.topics else []),
    ]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def check_key(prompt_builder: PromptBuilder) -> str:
    """What verdicts on answers depend on besides the answers."""
    return f"check {CHECK_VERSION}, threshold {prompt_builder.manifest.min_mean_logprob}"


def _with_plain_units(job: Job) -> Job:
    """Units as text, as they were when they were not an enumeration: the key of an unchanged job must not change."""
    return replace(job, units={unit.value: spec for unit, spec in job.units.items()})  # type: ignore[misc]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Changes:
    """The difference between a repository and its stored index."""

    files: list[SourceFile]  # all that the repository has now
    to_read: list[SourceFile]
    stubs: list[SourceFile]  # of those
    others: list[SourceFile]  # not to be parsed, but stored differently or not at all
    readmes: list[SourceFile]  # whose text may have changed
    settings: list[SourceFile]  # not parsed, and saying something of the project that may have changed
    gone: list[str]
    were_sources: set[str]  # and are not sources now
    unreadable: dict[str, str]  # path -> why it could not be read

    @property
    def is_empty(self) -> bool:
        return not (self.to_read or self.others or self.readmes or self.settings or self.gone)

    @property
    def has_manifests(self) -> bool:
        """Whether what names of packages mean may have changed."""
        return any(path.rpartition("/")[2] in NAMES for path in (*self.gone, *(file.path for file in self.others)))


def _without_unreadable(changes: _Changes, unreadable: Mapping[str, str]) -> _Changes:
    """Files that could not be read when they were to be parsed are not sources: what is stored of them is too old."""
    lost = {
        file.path: file._replace(file_class=FileClass.UNREADABLE, reason=unreadable[file.path])
        for file in changes.to_read
        if file.path in unreadable
    }
    return replace(
        changes,
        files=[lost.get(file.path, file) for file in changes.files],
        others=[*changes.others, *lost.values()],
        were_sources=changes.were_sources | lost.keys(),
    )


def _as_before(files: Sequence[SourceFile], old: Mapping[str, SourceFile], known: Collection[str]) -> list[SourceFile]:
    """Files, with those that cannot be read now as they were when they could be."""
    kept = {file.path: file for file in files}
    closed = {file.path for file in files if file.reason in _UNREAD}
    for path in known:
        if path in closed or any(folder in closed for folder in folders_above(path)):
            kept[path] = old[path]
    return [kept[path] for path in sorted(kept)]


def _changes(
    store: WorkStore,
    repository: ReadOnce,
    row: RepositoryRow,
    patterns: PathPatterns,
    should_stop: Callable[[], bool] | None,
) -> _Changes:
    known = stored.known_sources(store, row.root, row.plan_key)
    old = stored.stored_files(store, row.root)
    is_planned = stored.is_planned(store, row.root, row.plan_key)
    files = classify(
        repository,
        docs_dir=row.docs_dir,
        patterns=patterns,
        known={path: file for path, file in old.items() if path in known or (is_planned and is_by_content(file))},
        should_stop=should_stop,
    )
    unreadable = {
        file.path: repository.unreadable.get(file.path, file.reason) for file in files if file.reason in _UNREAD
    }
    files = _as_before(files, old, known) if unreadable else files
    is_source = {file.path: file.file_class is FileClass.SOURCE for file in files}
    stubs = {file.path: file for file in files if file.file_class is FileClass.STUB}
    read = {file.path for file in files if file.path in known and _is_read_alike(file, old[file.path])}
    new = [file for file in files if not (is_planned and old.get(file.path) == file)]
    to_read = [file for file in files if is_source[file.path] and file.path not in read]
    return _Changes(
        files=files,
        to_read=to_read,
        stubs=[stubs[stub] for file in to_read if (stub := stub_of(file.path)) in stubs],
        others=[
            file
            for file in files
            if (file.path not in old or old[file.path] != file) and not (is_source[file.path] and file.path not in read)
        ],
        readmes=[file for file in new if _is_readable_readme(file)],
        settings=[file for file in new if file.file_class is FileClass.TEXT and says_facts(file.path)],
        gone=[path for path in old if path not in is_source],
        # By class: a new version of the schema sets the plan key of every file to null, so that all are read again.
        were_sources={
            path for path, file in old.items() if file.file_class is FileClass.SOURCE and not is_source.get(path)
        },
        unreadable=unreadable,
    )


def _is_read_alike(file: SourceFile, old: SourceFile) -> bool:
    """Whether reading a file again would give the same; the reason of a source names the content of its stub."""
    return (file.blob, file.language, file.reason) == (old.blob, old.language, old.reason)


@contextmanager
def _begun_parser(
    store: WorkStore, repository: Repository, prompt_builder: PromptBuilder, row: RepositoryRow
) -> Iterator[Worker | None]:
    """A parser that starts while the program looks for changes; none where the commit is that of the last index."""
    if repository.commit is None or repository.commit == stored.commit_of(store, row.root):
        yield None
        return
    worker = Worker(Path(row.pack_dir), prompt_builder.chunk_budget_tokens)
    worker.begin()
    try:
        yield worker
    finally:
        worker.stop()


def _parsed(
    repository: Repository,
    changes: _Changes,
    pack: Path,
    prompt_builder: PromptBuilder,
    redactor: Redactor,
    begun: Worker | None,
) -> Generator[tuple[ParsedFile, bytes], None, None]:
    """Files that changed, parsed, each with its source."""
    sources: dict[str, bytes] = {}  # of the files that are being parsed
    parsed = parse_files(
        _read_sources(repository, [*changes.to_read, *changes.stubs], sources, redactor),
        tokenizer_dir=pack,
        budget_tokens=prompt_builder.chunk_budget_tokens,
        num_workers=min(NUM_WORKERS, max(1, len(changes.to_read))),
        begun=begun,
    )
    with closing(parsed):
        for one in joined(parsed):
            yield one, sources.pop(one.file.path)


def _store(
    store: WorkStore,
    files: Generator[tuple[ParsedFile, bytes], None, None],
    prompt_builder: PromptBuilder,
    row: RepositoryRow,
    redactor: Redactor,
) -> Generator[PlanCounts, None, None]:
    """Store each file with its items; yields what each did to the queue."""
    with closing(files):
        for first in files:
            with store.transaction():
                for one, source in chain([first], islice(files, FILES_A_COMMIT - 1)):
                    yield _store_file(store, one, source, prompt_builder, row)
                    redactor.save(store, row.id, one.file.path)


def _read_sources(
    repository: Repository, files: Sequence[SourceFile], sources: dict[str, bytes], redactor: Redactor
) -> Iterator[tuple[SourceFile, bytes]]:
    wanted = {file.path: file for file in files}
    entries = [entry for entry in repository.entries() if entry.path in wanted] if wanted else []
    # A stub comes right before its source.
    entries.sort(key=lambda e: (stub_of(e.path), True) if stub_of(e.path) in wanted else (e.path, False))
    for entry, data in repository.read(entries):
        text = redactor.clean(entry.path, read_source(entry.path, data))
        if wanted[entry.path].file_class is FileClass.SOURCE:
            sources[entry.path] = text
        yield wanted[entry.path], text


def _is_readable_readme(file: SourceFile) -> bool:
    return file.file_class is FileClass.TEXT and is_readme(file.path) and file.nbytes <= MAX_README_NBYTES


def _texts(repository: Repository, files: Sequence[SourceFile], redactor: Redactor) -> Iterator[tuple[str, str]]:
    """(path, text) of files that are not parsed."""
    wanted = {file.path for file in files}
    entries = [entry for entry in repository.entries() if entry.path in wanted] if wanted else []
    for entry, data in repository.read(entries):
        yield entry.path, redactor.clean(entry.path, decoded(data)).decode("utf-8", "replace")


def _store_file(
    store: WorkStore, one: ParsedFile, source: bytes, prompt_builder: PromptBuilder, row: RepositoryRow
) -> PlanCounts:
    if not is_selected(one.file, prompt_builder.job):  # nothing is asked about its chunks
        one = replace(one, chunks=())
    store_parsed(store, row.id, one, row.plan_key)
    facts.save_facts(store, row.id, one.file.path, facts_of(one.file.path, source.decode("utf-8", "replace")))
    items = list(source_items(one, source, prompt_builder))
    chunks = {chunk.start_byte: chunk for chunk in one.chunks}
    for start_byte in dict.fromkeys(
        item.chunk_start for item in items if item.is_draft and item.chunk_start is not None
    ):
        draft = draft_of(chunks[start_byte], source, one.file.language or "text")
        save_draft(store, row.id, ChunkId(one.file.path, start_byte), draft)
    return plan_chunks(store, row.id, prompt_builder.job.name, one.file.path, items)


def _roll_up(
    store: WorkStore,
    repository: Repository,
    changes: _Changes,
    redactor: Redactor,
    prompt_builder: PromptBuilder,
    row: RepositoryRow,
    checkpoint: Callable[[], None],
) -> PlanCounts:
    """Plan everything above the chunks, and then the contexts of these, which completes the plan."""
    job, counts = prompt_builder.job, PlanCounts()
    readmes = {
        path: "\n\n".join(first_paragraphs(text)) for path, text in _texts(repository, changes.readmes, redactor)
    }
    said = {path: facts_of(path, text) for path, text in _texts(repository, changes.settings, redactor)}
    tells_context = job.symbol is not None and job.symbol.context_tokens is not None
    sources = [file for file in changes.files if file.file_class is FileClass.SOURCE]
    paths = [file.path for file in sources if is_selected(file, job)]
    changed = stored.not_rolled_up(store, row.id) | changes.were_sources
    with store.transaction():
        counts += drop_other_jobs(store, row.id, job.name)
        save_rooms(store, row.id, prompt_builder.note_rooms())
        texts_before, facts_before = stored.texts(store, row.id), facts.stored_facts(store, row.id, is_test_file)
        stored.finish_plan(store, row.id, "" if tells_context else row.plan_key, changes.others, changes.gone)
        stored.save_texts(store, row.id, readmes)
        for path, found in said.items():
            facts.save_facts(store, row.id, path, found)
        redactor.save_rest(store, row.id)
        changed |= {path for path, _ in texts_before.items() ^ stored.texts(store, row.id).items()}
        if changed or changes.has_manifests or facts.stored_facts(store, row.id, is_test_file) != facts_before:
            is_more = bool(changes.were_sources) or changes.has_manifests
            relinked = resolve(store, row.id, repository, None if is_more else changed)
            stored.plan_chunks_again(store, row.id, sorted(changed | relinked) if tells_context else ())
            ranks = _ranks(store, repository, row, paths)
            _forget_pages(store, row.id, sources, changed, relinked)
            if job.symbol is not None and "examples" in job.symbol.details:
                plan_examples(store, row.id, _source_of(repository, changes.files), changed)
            for path in sorted(changes.were_sources):
                counts += plan_chunks(store, row.id, job.name, path, [])
            topics = topics_to_ask(store, row.id, [file.path for file in sources], job)
            items = [*rollup_items(paths, ranks, job, changed), *topic_items(topics, job)]
            counts += plan_rollups(store, row.id, job.name, items)
            plan_needs(store, row.id, job, topics)
            rank_chunks(store, row.id, job.name, ranks)
    if tells_context:
        planner = ContextPlanner(store, row.id, prompt_builder, _source_of(repository, changes.files))
        counts += planner.plan(checkpoint)
        with store.transaction():
            drop_drafts(store, row.id)
            stored.set_plan_key(store, row.id, row.plan_key)
    return counts


def _source_of(repository: Repository, files: Sequence[SourceFile]) -> Callable[[str], SourceText]:
    """A function that reads a source again."""
    languages_of = {file.path: file.language or "text" for file in files}
    entries = {entry.path: entry for entry in repository.entries() if entry.path in languages_of}

    def read(path: str) -> SourceText:
        ((_, data),) = repository.read([entries[path]])
        return SourceText(languages_of[path], Redactor().clean(path, read_source(path, data)))

    return read


def _forget_pages(
    store: WorkStore, repository_id: int, sources: Sequence[SourceFile], changed: set[str], relinked: set[str]
) -> None:
    """Within a transaction: forget the pages that show something of changed files, or that are linked otherwise."""
    if not page_stamps.has_stamps(store, repository_id):
        return
    if may_move_others((file.path for file in sources), changed):
        page_stamps.forget_all(store, repository_id)
    for path in sorted(changed):
        page_stamps.forget_file(store, repository_id, path)
    if relinked:
        page_stamps.forget(store, repository_id, (), relinked)


def _ranks(store: WorkStore, repository: Repository, row: RepositoryRow, paths: Sequence[str]) -> dict[str, int]:
    """The order of the files in the queue, by what uses what and by their history; stores which are used most."""
    scores = page_rank(paths, graph.file_edges(store, row.id))
    save_central(store, row.id, scores)
    return priorities(scores, recent_changes(repository.root, repository.commit), graph.stale_paths(store, row.id))
