"""`import`: answers of other runners, as results of open items.

An answer is cut where the engine would have ended it, gets the same checks and is stored under the same key as one of
our own; what it was told of in the file is stored with it.  Then the prompts that waited for it are made.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from rotary_batch.commands.answer_rows import AnswerFiles, AnswerRow, NoAnswer, open_answers
from rotary_batch.commands.drain import require_current_index
from rotary_batch.commands.groups import SettingsOf, by_engine
from rotary_batch.commands.isolation import Failure, isolated
from rotary_batch.commands.jobs import load_prompt_builder
from rotary_batch.core import Completion, Reason, WorkItem
from rotary_batch.engine.stopping import end_of
from rotary_batch.errors import InputError
from rotary_batch.log import event
from rotary_batch.pages.files import SyncResult
from rotary_batch.planner.processor import ItemProcessor
from rotary_batch.planner.prompt_builder import PromptBuilder
from rotary_batch.sync import IndexViews, sync_pending
from rotary_batch.window import Window
from rotary_batch.work import counts
from rotary_batch.work.exchange import OpenPrompt, num_shown, open_prompts
from rotary_batch.work.rows import RepositoryRow, StoredResult
from rotary_batch.work.store import WorkStore

_BATCH = 64  # answers in one transaction
_CHARACTERS = 200  # of a token, at most: a longer answer was not held to max_tokens, and is cut before it is encoded
_NO_RUN = 0  # whose leases these are: under the lock, every lease is one of a dead run


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportRequest:
    """What an import works with."""

    store: WorkStore
    settings_of: SettingsOf
    window: Window
    progress: Callable[[int, int], None] = lambda _done, _total: None


@dataclass(slots=True, kw_only=True)
class Imported:
    """What became of the rows of all files."""

    rows: int
    stored: int = 0  # answers that are new
    known: int = 0  # rows about what was answered before
    unknown: int = 0  # rows about what is not asked
    failed: dict[str, int] = field(default_factory=dict)  # why a row has no usable answer -> how many
    completed: int = 0  # items
    shown: int = 0  # of them, on pages
    asked_now: int = 0  # items that have a prompt and no answer
    open: int = 0  # these, and items that wait for others
    pages: SyncResult = field(default_factory=SyncResult)
    notes: list[str] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    @property
    def num_failed(self) -> int:
        """Rows without a usable answer; their items stay in the queue."""
        return sum(self.failed.values())

    def as_dict(self) -> dict[str, Any]:
        """Plain data for --json."""
        names = ("rows", "stored", "known", "unknown", "failed", "completed", "shown", "asked_now", "open", "notes")
        return {name: getattr(self, name) for name in names} | {
            "pages_written": len(self.pages.written),
            "conflicts": self.pages.conflicts,
            "failures": [failure.as_dict() for failure in self.failures],
        }


class _Part(NamedTuple):
    """Repositories that share a model and settings."""

    prompt_builder: PromptBuilder
    processor: ItemProcessor
    rows: Sequence[RepositoryRow]


class _Asked(NamedTuple):
    prompt: OpenPrompt
    prompt_builder: PromptBuilder
    job: str


def import_answers(request: ImportRequest, rows: Sequence[RepositoryRow], paths: Sequence[Path]) -> Imported:
    """Store the answers of some files, complete what they are about, and write its pages.

    All rows are checked before the first is used.  Raises InputError when one of them is no result, an id appears
    twice, or no row belongs to what is asked; StoppedError between two batches, each of which is kept.
    """
    files = open_answers(paths)
    request.store.reap(_NO_RUN)
    views = IndexViews(request.store)
    imported = Imported(rows=len(files.places), notes=files.notes)
    parts = list(_parts(request, rows, views, imported.failures))
    try:
        _Import(request, files, parts, imported).store_all()
    finally:
        for row in [row for part in parts for row in part.rows]:
            with isolated([row.root], imported.failures):
                synced = sync_pending(request.store, row, views, request.window.is_closed)
                imported.pages.add(synced, "" if len(rows) == 1 else f"{row.root}: ")
    _count_rest(request.store, files, parts, imported)
    event("imported", **{name: value for name, value in imported.as_dict().items() if name != "failed"})
    if imported.unknown == imported.rows and not imported.failures:
        raise InputError(
            f"{', '.join(map(str, paths))}: none of its {imported.rows:,} results is about what is asked here; export "
            "the requests again, since code, model or job changed, or name the right database with --db"
        )
    return imported


def _parts(
    request: ImportRequest, rows: Sequence[RepositoryRow], views: IndexViews, failures: list[Failure]
) -> Iterator[_Part]:
    for group in by_engine(rows, request.settings_of, failures):
        prompt_builder, current = load_prompt_builder(group.settings, group.pack), list[RepositoryRow]()
        for row in group.rows:
            with isolated([row.root], failures):
                require_current_index(prompt_builder, row)
                current.append(row)
        processor = ItemProcessor(request.store, prompt_builder, {row.id: views.of(row) for row in current})
        yield _Part(prompt_builder, processor, current)


class _Import:
    """One import."""

    def __init__(self, request: ImportRequest, files: AnswerFiles, parts: Sequence[_Part], imported: Imported) -> None:
        self._store, self._window, self._progress = request.store, request.window, request.progress
        self._files, self._parts, self._imported = files, parts, imported
        self._failed: Counter[str] = Counter()

    def store_all(self) -> None:
        """Answers complete items, whose readers then get prompts, which other rows may answer: until nothing is new."""
        self._settle()
        while asked := self._asked():
            self._store_answers(asked)
            self._settle()
        self._imported.failed = dict(self._failed.most_common())

    def _asked(self) -> list[_Asked]:
        """What is asked and has a row that was not looked at yet."""
        return [
            _Asked(prompt, part.prompt_builder, row.job)
            for part in self._parts
            for row in part.rows
            for prompt in open_prompts(self._store, row.id)
            if prompt.key in self._files.places
        ]

    def _store_answers(self, asked: Sequence[_Asked]) -> None:
        waiting = iter(asked)
        while batch := list(islice(waiting, _BATCH)):
            self._window.check()
            with self._store.transaction():
                for one in batch:
                    if one.prompt.key in self._files.places:  # several items may have one key
                        self._store_answer(one)
            self._progress(self._imported.rows - len(self._files.places), self._imported.rows)

    def _store_answer(self, asked: _Asked) -> None:
        key = asked.prompt.key
        row, place = self._files.read(key), self._files.places.pop(key)
        answer = row if isinstance(row, NoAnswer) else self._answer(asked, row)
        if isinstance(answer, NoAnswer):
            self._failed[answer.why] += 1
            return
        assert isinstance(row, AnswerRow)
        manifest = asked.prompt_builder.manifest
        provenance = {
            "model": manifest.name,
            "weights": manifest.weights_digest,
            "experts": manifest.experts,
            "numerics": None,  # those of another runner
            "job": asked.job,
            "imported": {"file": str(place.path), "model": row.model},
        }
        self._store.save_result(key, answer, provenance)
        self._imported.stored += 1

    def _answer(self, asked: _Asked, row: AnswerRow) -> StoredResult | NoAnswer:
        manifest, tokenizer = asked.prompt_builder.manifest, asked.prompt_builder.tokenizer
        if row.mean_logprob is None and manifest.min_mean_logprob is not None:
            return NoAnswer(f"no log-probabilities, without which nothing of {manifest.name} is shown: use logprobs")
        prompt_ids = self._store.prompt_ids(asked.prompt.item_id) if row.is_raw else ()
        ids, reason = _ended(asked, row, prompt_ids)
        shown = tokenizer.answers.shown(ids, prompt_ids) if row.is_raw else None
        if shown is not None and shown.fault is not None:
            return NoAnswer(f"no answer: {shown.fault}")
        text = tokenizer.decode(ids if shown is None else shown.token_ids).strip()
        num_scored = 0 if row.mean_logprob is None else max(1, len(ids))
        completion = Completion(
            request_id=0,
            token_ids=tuple(ids),
            logprob_sum=(row.mean_logprob or 0.0) * num_scored,
            num_scored=num_scored,
            reason=reason,
        )
        return StoredResult(text=text, completion=completion)

    def _settle(self) -> None:
        """Complete the items whose answers are stored, and make the prompts that waited for them."""
        for part in self._parts:
            for batches in (part.processor.reuse_answers(), part.processor.prepare()):
                for items in batches:
                    self._count(items)
                    self._window.check()

    def _count(self, items: Sequence[WorkItem]) -> None:
        self._imported.completed += len(items)
        self._imported.shown += num_shown(self._store, [item.id for item in items])


def _ended(asked: _Asked, row: AnswerRow, prompt_ids: Sequence[int]) -> tuple[list[int], Reason]:
    """The tokens of an answer up to where the engine would have ended it, and why it ended."""
    limit, tokenizer = asked.prompt.max_new_tokens, asked.prompt_builder.tokenizer
    text = row.text[: limit * _CHARACTERS]
    ids = tokenizer.encode_answer(text)
    for count in range(1, min(len(ids), limit) + 1):
        if (end := end_of(ids[:count], prompt_ids, asked.prompt.stop, tokenizer.answers)) is not None:
            return ids[: count - end.surplus], end.reason
    is_cut = len(ids) > limit or len(text) < len(row.text)
    return ids[:limit], "length" if is_cut else row.reason


def _count_rest(store: WorkStore, files: AnswerFiles, parts: Sequence[_Part], imported: Imported) -> None:
    """The rows that nothing asked for, and what is left to ask."""
    imported.known = sum(store.result(key) is not None for key in files.places)
    imported.unknown = len(files.places) - imported.known
    ids = [row.id for part in parts for row in part.rows]
    imported.asked_now = sum(1 for repository_id in ids for _ in open_prompts(store, repository_id))
    imported.open = counts.open_items(store, ids)
