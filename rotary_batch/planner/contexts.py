"""Give the chunks of a repository their context, and their items the prompts that follow from it.

The last stage of an index of a job with context, once it is known what uses what.  A chunk is planned anew when its
file changed or something around it did, and when an answer that it tells is open again.  Its prompt is made now if it
needs no open answer; else its items wait, with its source as a draft.  An answer that is the same as before gives the
same prompt, and nothing more is asked: so a change ends where it changes no words.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import chain, islice
from typing import NamedTuple

from rotary_batch.core import Chunk, SymbolId
from rotary_batch.planner.context import context_lines
from rotary_batch.planner.ordering import waits
from rotary_batch.planner.prompt_builder import BegunPrompt, PromptBuilder
from rotary_batch.planner.units import planned_item, with_prompts
from rotary_batch.work import drafts
from rotary_batch.work.drafts import ChunkId, ContextLine, Draft
from rotary_batch.work.index import chunk_spans, planned_chunks, set_chunk_planned, stored_chunk
from rotary_batch.work.items import asked_items, asked_places, plan_item, wait_again_for
from rotary_batch.work.rows import PlanCounts
from rotary_batch.work.store import WorkStore

CHUNKS_A_COMMIT = 200
_FILES_KEPT = 20  # sources of unchanged files whose chunks are planned anew


class SourceText(NamedTuple):
    """A source as it is now."""

    language: str
    text: bytes


@dataclass(slots=True)
class _Group:
    """What is asked about a chunk, and where that ends; the rest is read when it is due."""

    end_byte: int
    item_ids: list[int]


class ContextPlanner:
    """Plans the items of one repository, all of which are known; `source_of` reads a file again."""

    def __init__(
        self,
        store: WorkStore,
        repository_id: int,
        prompt_builder: PromptBuilder,
        source_of: Callable[[str], SourceText],
    ) -> None:
        self._store, self._id, self._prompt_builder = store, repository_id, prompt_builder
        self._source_of = lru_cache(_FILES_KEPT)(source_of)
        ends = {ChunkId(path, start): end for path, start, end in chunk_spans(store, repository_id)}
        groups: dict[ChunkId, _Group] = {}
        self._is_open: dict[int, bool] = {}
        self._is_waiting: dict[int, bool] = {}
        self._by_symbol: dict[SymbolId, int] = {}
        for item in asked_places(store, repository_id):
            if (place := ChunkId(item.path, item.chunk_start)) not in ends:
                continue
            groups.setdefault(place, _Group(ends[place], [])).item_ids.append(item.id)
            self._is_open[item.id], self._is_waiting[item.id] = item.is_open, item.is_waiting
            if item.symbol_start is not None:
                self._by_symbol[SymbolId(item.path, item.symbol_start)] = item.id
        self._groups = {place: groups[place] for place in ends if place in groups}  # in file order
        self._planned = planned_chunks(store, repository_id)
        self._needs = drafts.stored_needs(store, repository_id)

    def plan(self, checkpoint: Callable[[], None]) -> PlanCounts:
        """Plan all that is due, what is told before what tells it; `checkpoint` is called after each commit."""
        uses = _uses(self._store, self._id, self._groups, self._by_symbol)
        asked_in = {item_id: place for place, group in self._groups.items() for item_id in group.item_ids}
        waited = waits({place: list(dict.fromkeys(asked_in[one] for one in used)) for place, used in uses.items()})
        counts, due = PlanCounts(), self._due(uses, waited, asked_in)
        for first in due:  # a commit waits for the disk, so there is none where nothing is due
            with self._store.transaction():
                for place, may_need in chain([first], islice(due, CHUNKS_A_COMMIT - 1)):
                    counts += PlanCounts(queued=self._plan(place, may_need))
            checkpoint()
        return counts

    def _due(
        self,
        uses: Mapping[ChunkId, Mapping[int, None]],
        waited: Mapping[ChunkId, Collection[ChunkId]],
        asked_in: Mapping[int, ChunkId],
    ) -> Iterator[tuple[ChunkId, set[int]]]:
        """The chunks that are due, each with the items that it may need; which are due depends on those before."""
        for place, targets in waited.items():
            others = set(targets)
            may_need = {item_id for item_id in uses[place] if asked_in[item_id] in others}
            if self._is_due(place, may_need):
                yield place, may_need

    def _is_due(self, place: ChunkId, may_need: Collection[int]) -> bool:
        if self._planned.get(place) != _text(may_need):
            return True
        is_told_anew = any(self._is_open.get(item_id, False) for item_id in self._needs.get(place, ()))
        return is_told_anew and not all(self._is_waiting[item_id] for item_id in self._groups[place].item_ids)

    def _plan(self, place: ChunkId, may_need: Collection[int]) -> int:
        """Plan the items of one chunk; returns how many have work to do."""
        group, chunk = self._groups[place], stored_chunk(self._store, self._id, *place)
        lines = context_lines(self._store, self._id, chunk, self._by_symbol, may_need)
        needs = {line.item_id for line in lines if line.item_id is not None}
        draft = replace(self._draft(chunk), lines=lines)
        drafts.save_needs(self._store, self._id, place, needs)
        if any(self._is_open[item_id] for item_id in needs):
            drafts.save_draft(self._store, self._id, place, draft)
            drafts.make_wait(self._store, self._id, place, group.item_ids)
            asked = group.item_ids
            self._is_waiting |= dict.fromkeys(asked, True)
        else:
            asked = self._ask_now(place, draft)
        self._is_open |= dict.fromkeys(asked, True)
        wait_again_for(self._store, asked)
        set_chunk_planned(self._store, self._id, *place, _text(may_need))
        return len(asked)

    def _ask_now(self, place: ChunkId, draft: Draft) -> list[int]:
        """Make the prompts of a chunk; returns the items that are asked another question than before."""
        job = self._prompt_builder.job
        items = list(asked_items(self._store, self._id, self._groups[place].item_ids))
        planned = [
            replace(planned_item(item.subject, item.label, place.start_byte, job), priority=item.priority)
            for item in items
        ]
        begin = partial(begun_of, self._prompt_builder, self._store, place, draft)
        prompted = with_prompts(planned, begin, self._prompt_builder)
        asked = []
        for item, one in zip(items, prompted, strict=True):
            is_asked = plan_item(self._store, self._id, job.name, one)
            self._is_waiting[item.id] = False
            self._is_open[item.id] &= one.error is None
            asked += [item.id] if is_asked else []
        return asked

    def _draft(self, chunk: Chunk) -> Draft:
        draft = drafts.load_draft(self._store, self._id, ChunkId(chunk.path, chunk.start_byte))
        if draft is not None:
            return draft
        language, text = self._source_of(chunk.path)
        return draft_of(chunk, text, language)


def draft_of(chunk: Chunk, source: bytes, language: str) -> Draft:
    """The draft of a chunk of a source, without context."""
    text = source[chunk.start_byte : chunk.end_byte].decode("utf-8", "replace")
    return Draft(start_line=chunk.start_line, language=language, source=text)


def begun_of(prompt_builder: PromptBuilder, store: WorkStore, place: ChunkId, draft: Draft) -> BegunPrompt:
    """The prompt of a chunk, with the answers that it needs.  Raises PromptError."""
    lines = [_told(store, line) for line in draft.lines]
    return prompt_builder.begin_prompt(
        f"{place.path}:{draft.start_line}", place.path, draft.source, draft.language, prompt_builder.contexts(lines)
    )


def _told(store: WorkStore, line: ContextLine) -> str:
    answer = None if line.item_id is None else drafts.answer_of(store, line.item_id)
    return f"{line.text}: {answer}" if answer else line.text


def _uses(
    store: WorkStore, repository_id: int, groups: Mapping[ChunkId, _Group], by_symbol: Mapping[SymbolId, int]
) -> dict[ChunkId, dict[int, None]]:
    """Chunk -> the items on symbols of other chunks that it uses, in order."""
    starts: dict[str, list[int]] = {}
    for path, start_byte in groups:
        starts.setdefault(path, []).append(start_byte)
    uses: dict[ChunkId, dict[int, None]] = {place: {} for place in groups}
    own = {item_id: place for place, group in groups.items() for item_id in group.item_ids}
    for path, start_byte, callee_path, callee_start_byte in store.db.execute(
        "select path, start_byte, callee_path, callee_start_byte from call where repository_id = ? order by path, id",
        [repository_id],
    ):
        item_id = by_symbol.get(SymbolId(callee_path, callee_start_byte))
        at = bisect_right(starts.get(path, ()), start_byte)
        if item_id is None or not at:
            continue
        user = ChunkId(path, starts[path][at - 1])
        if start_byte < groups[user].end_byte and own[item_id] != user:
            uses[user][item_id] = None
    return uses


def _text(item_ids: Collection[int]) -> str:
    return ",".join(map(str, sorted(item_ids)))
