"""The exact prompt of an item, made again: when an item is answered, its prompt is no longer stored."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from rotary_batch.core import Chunk, SymbolId, Unit, WorkItem
from rotary_batch.pages.page import IndexView
from rotary_batch.planner.context import context_lines
from rotary_batch.planner.contexts import SourceText, begun_of, draft_of
from rotary_batch.planner.processor import ItemProcessor
from rotary_batch.planner.prompt_builder import PromptBuilder
from rotary_batch.work import drafts
from rotary_batch.work.drafts import ChunkId, ContextLine
from rotary_batch.work.items import asked_items
from rotary_batch.work.store import WorkStore


class Retold(NamedTuple):
    """A prompt that was made again."""

    prompt_ids: tuple[int, ...]
    key: str


class Reteller:
    """Makes the prompts of one repository again, from its index and its sources as they are now."""

    def __init__(
        self,
        store: WorkStore,
        repository_id: int,
        prompt_builder: PromptBuilder,
        view: IndexView,
        source_of: Callable[[str], SourceText],
    ) -> None:
        self._store, self._id, self._prompt_builder = store, repository_id, prompt_builder
        self._view, self._source_of = view, source_of
        self._processor = ItemProcessor(store, prompt_builder, {repository_id: view})

    def prompt(self, item: WorkItem) -> Retold | None:
        """The prompt of an item; None of a roll-up that waits for its inputs.  Raises PromptError."""
        if item.subject.unit.is_rollup:
            encoded = self._processor.encode(item)
            return None if encoded is None else Retold(encoded.prompt_ids, encoded.key)
        if self._prompt_builder.job.symbol is not None:
            return self._continued(item)
        chunk = next(one for one in self._view.chunks[item.subject.path] if one.subject == item.subject)
        language, text = self._source_of(chunk.path)
        source = text[chunk.start_byte : chunk.end_byte]
        encoded = self._prompt_builder.build_chunk_prompt(chunk, source, language)
        return Retold(encoded.prompt_ids, encoded.key)

    def _continued(self, item: WorkItem) -> Retold:
        place, label = drafts.place_of(self._store, item.id)
        chunk = next(one for one in self._view.chunks[place.path] if one.start_byte == place.start_byte)
        language, text = self._source_of(chunk.path)
        symbol = self._prompt_builder.job.symbol
        if symbol is not None and symbol.context_tokens:
            draft = drafts.with_lines(draft_of(chunk, text, language), self.context(chunk))
            begun = begun_of(self._prompt_builder, self._store, place, draft)
        else:
            begun = self._prompt_builder.begin_chunk_prompt(chunk, text, language)
        encoded = self._prompt_builder.continue_prompt(begun, label, item.subject.unit)
        return Retold((*begun.chat.head_ids, *encoded.prompt_ids), encoded.key)

    def context(self, chunk: Chunk) -> tuple[ContextLine, ...]:
        """What is told of the code around a chunk."""
        needs = drafts.needs_of(self._store, self._id, ChunkId(chunk.path, chunk.start_byte))
        items = {
            SymbolId(one.subject.path, one.subject.span[0]): one.id
            for one in asked_items(self._store, self._id, needs)
            if one.subject.unit is Unit.SYMBOL and one.subject.span
        }
        return context_lines(self._store, self._id, chunk, items, needs)
