"""Between the queue and the engine: prompts for roll-ups whose inputs are complete, reuse and validation of answers."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from rotary_batch.core import DATA_KINDS, Completion, Subject, Symbol, Topic, Unit, ValidationResult, WorkItem
from rotary_batch.errors import PromptError
from rotary_batch.pages.authored.reading import authored_summary
from rotary_batch.pages.check import validate
from rotary_batch.pages.page import (
    IndexView,
    SummarySource,
    brief,
    chunk_outline,
    file_summary,
    folder_summary,
    symbol_summary,
)
from rotary_batch.pages.symbol_details import detail_of
from rotary_batch.planner.asked import symbol_label
from rotary_batch.planner.contexts import begun_of
from rotary_batch.planner.prompt_builder import BegunPrompt, EncodedPrompt, Note, PromptBuilder
from rotary_batch.planner.scope import Scopes
from rotary_batch.planner.topic_notes import topic_notes
from rotary_batch.planner.units import LABEL_NAMES
from rotary_batch.work import drafts
from rotary_batch.work.counts import answers, children
from rotary_batch.work.rows import Answer, Claim, Failed, Finished, StoredResult
from rotary_batch.work.store import WorkStore

BATCH = 64  # items in one transaction; between two of them the window may close


class ItemProcessor:
    """One job of one or more repositories, with one model."""

    def __init__(self, store: WorkStore, prompt_builder: PromptBuilder, views: Mapping[int, IndexView]) -> None:
        self._store = store
        self._prompt_builder = prompt_builder
        self._views = views
        self._begun: tuple[tuple[int, drafts.ChunkId], BegunPrompt] | None = None  # the last one that items waited for
        self._scopes = {repository_id: Scopes(store, repository_id, view) for repository_id, view in views.items()}

    def reuse_answers(self) -> Iterator[list[WorkItem]]:
        """Complete READY items whose results are stored already; yields them in batches."""
        ids = self._store.answered_before(list(self._views))
        for start in range(0, len(ids), BATCH):
            with self._store.transaction():
                items = [self._store.item(item_id) for item_id in ids[start : start + BATCH]]
                reused = [item for item in items if self._reuse(item)]
            yield reused

    def prepare(self) -> Iterator[list[WorkItem]]:
        """Give WAITING items whose inputs are complete their prompts; yields batches of those done without a model."""
        while items := self._store.unblocked(list(self._views), limit=BATCH):
            with self._store.transaction():
                reused = [item for item in items if self._prepare_one(item)]
            yield reused

    def _prepare_one(self, item: WorkItem) -> bool:
        """Make an item READY, DONE, PARKED, or the reader of new parts; returns whether it is DONE."""
        if not item.subject.unit.is_rollup:
            return self._prepare_draft(item)
        try:
            encoded = self._encode_or_split(item)
        except PromptError as error:
            self._store.park(item.id, str(error))
            return False
        if encoded is None:
            return False
        if result := self._store.result(encoded.key):
            self._complete_reused(item, encoded.key, result, encoded.prompt_ids)
            return True
        self._store.make_ready(item.id, key=encoded.key, prompt_ids=encoded.prompt_ids, num_markers=encoded.num_markers)
        return False

    def _prepare_draft(self, item: WorkItem) -> bool:
        """As `_prepare_one`, of an item whose chunk needed the answers on others."""
        place, label = drafts.place_of(self._store, item.id)
        try:
            is_done = self._ask(item, place, label)
        except PromptError as error:
            self._store.park(item.id, str(error))
            is_done = False
        drafts.drop_draft(self._store, item.repository_id, place)
        return is_done

    def _ask(self, item: WorkItem, place: drafts.ChunkId, label: str) -> bool:
        is_first = self._begun is None or self._begun[0] != (item.repository_id, place)
        begun = self._begin(item.repository_id, place)
        encoded, head_ids = self._prompt_builder.continue_prompt(begun, label, item.subject.unit), begun.chat.head_ids
        if result := self._store.result(encoded.key):
            self._complete_reused(item, encoded.key, result, (*head_ids, *encoded.prompt_ids))
            return True
        self._store.make_ready(
            item.id,
            key=encoded.key,
            prompt_ids=encoded.prompt_ids,
            num_markers=encoded.num_markers,
            shared_ids=head_ids,
            is_first=is_first,
        )
        return False

    def _begin(self, repository_id: int, place: drafts.ChunkId) -> BegunPrompt:
        """The prompt of a chunk, whose items come one after the other.  Raises PromptError."""
        if self._begun is None or self._begun[0] != (repository_id, place):
            draft = drafts.load_draft(self._store, repository_id, place)
            if draft is None:
                raise PromptError(f"{place.path}: the source of a prompt is gone; run `rotary-batch index` again")
            self._begun = (repository_id, place), begun_of(self._prompt_builder, self._store, place, draft)
        return self._begun[1]

    def _encode_or_split(self, item: WorkItem) -> EncodedPrompt | None:
        """The prompt of a roll-up, or None when its notes were too long and got parts.  Raises PromptError."""
        encoded = self.encode(item)
        if encoded is None:
            inputs, name = children(self._store, item.id), _title(item, self._views[item.repository_id])
            runs = self._prompt_builder.split_notes(item.subject.unit, name, self._notes(item, inputs))
            self._store.add_parts(item.id, [[inputs[i][0] for i in run] for run in runs])
        return encoded

    def encode(self, item: WorkItem) -> EncodedPrompt | None:
        """The prompt of a roll-up from its inputs as they are; None when they are too long."""
        if item.subject.unit is Unit.TOPIC:
            return self._encode_topic(item)
        view, is_part = self._views[item.repository_id], item.subject.part is not None
        own = [] if is_part else self._own_notes(item, view)
        notes = [*own, *self._notes(item, children(self._store, item.id))]
        return self._prompt_builder.build_rollup_prompt(item.subject.unit, _title(item, view), notes, part=is_part)

    def _encode_topic(self, item: WorkItem) -> EncodedPrompt:
        view, topic = self._views[item.repository_id], Topic.of(item.subject)
        answers = drafts.needed_answers(self._store, item.repository_id, drafts.topic_place(item.subject))
        notes = topic_notes(topic, view, {answer.subject: answer for answer in answers})
        return self._prompt_builder.build_topic_prompt(topic, view.name, notes)

    def _notes(self, item: WorkItem, inputs: Sequence[tuple[int, Answer]]) -> list[Note]:
        named = {one.subject: one for one in self._views[item.repository_id].symbols.get(item.subject.path, ())}
        return [self._note(item, answer, named) for _, answer in inputs]

    def _reuse(self, item: WorkItem) -> bool:
        result = self._store.result(item.key) if item.key else None
        if result is None or item.key is None:
            return False
        self._complete_reused(item, item.key, result, self._store.prompt_ids(item.id))
        return True

    def _complete_reused(self, item: WorkItem, key: str, result: StoredResult, prompt_ids: Sequence[int]) -> None:
        validation = self._validate(item, result.text, result.completion, prompt_ids)
        self._store.complete_reused(item.id, key, result, validation)

    def _own_notes(self, item: WorkItem, view: IndexView) -> list[Note]:
        """What authors say of the subject itself, and of the symbols that nothing is asked about for that reason."""
        path, asked = item.subject.path, self._prompt_builder.job.symbol
        own = self._own_note(item, view)
        if item.subject.unit is not Unit.FILE or asked is None:
            return own
        if "documented" in asked.skip:
            told = {one.subject for one in answers(self._store, item.repository_id, [path], [Unit.SYMBOL])}
            own += self._prompt_builder.that_fit(Unit.FILE, _described(path, view, told))
        return own or [Note(_title(item, view), file_summary(path, view).text)]

    def _own_note(self, item: WorkItem, view: IndexView) -> list[Note]:
        """What the author says of the subject itself; empty when there is nothing."""
        path = item.subject.path
        summary = file_summary(path, view) if item.subject.unit is Unit.FILE else folder_summary(path, view)
        by_author = summary.text and summary.source is SummarySource.AUTHOR
        return [Note(_title(item, view), summary.text)] if by_author else []

    def _note(self, item: WorkItem, answer: Answer, named: Mapping[Subject, Symbol]) -> Note:
        """What a roll-up reads of one of its inputs: the prose when it may be shown, else the structure."""
        view, unit, path = self._views[item.repository_id], answer.subject.unit, answer.subject.path
        if answer.subject.part is not None:
            return Note("part", answer.shown_text or "more of the same")
        if unit is Unit.SYMBOL:
            symbol = named[answer.subject]
            structure = symbol_summary(symbol, view.language(path)).text
            return Note(f"`{symbol_label(symbol)}`", answer.shown_text or structure)
        if unit is Unit.CHUNK:
            chunk = next(chunk for chunk in view.chunks[path] if chunk.subject == answer.subject)
            symbols = view.symbols.get(path, ())
            label = ", ".join(chunk.symbols[:LABEL_NAMES]) or f"lines {chunk.start_line}-{chunk.end_line}"
            return Note(label, answer.shown_text or chunk_outline(chunk, symbols, view.language(path)))
        structural = file_summary(path, view) if unit is Unit.FILE else folder_summary(path, view)
        return Note(PurePosixPath(path).name, answer.shown_text or structural.text)

    def complete(self, claim: Claim, completion: Completion) -> Finished | Failed:
        """Decode and validate what the engine wrote.  An answer that was cut before its text began is none."""
        tokenizer = self._prompt_builder.tokenizer
        shown = tokenizer.answers.shown(completion.token_ids, claim.request.prompt_ids)
        if shown.fault is not None:
            remedy = "raise new_tokens of the job, or turn thinking off in its [template]"
            return Failed(claim=claim, error=f"no answer: {shown.fault}; {remedy}", retry_at=None)
        text = tokenizer.decode(shown.token_ids).strip()
        return Finished(
            claim=claim,
            completion=completion,
            text=text,
            validation=self._validate(claim.item, text, completion, claim.request.prompt_ids),
            provenance={
                "model": self._prompt_builder.manifest.name,
                "weights": self._prompt_builder.manifest.weights_digest,
                "experts": self._prompt_builder.manifest.experts,
                "numerics": self._prompt_builder.numerics,
                "job": claim.item.job,
                "resumed_at": len(claim.request.generated_ids) or None,
            },
        )

    def _validate(
        self, item: WorkItem, text: str, completion: Completion, prompt_ids: Sequence[int]
    ) -> ValidationResult:
        scopes, source = self._scopes[item.repository_id], self._prompt_builder.tokenizer.decode(prompt_ids)
        about = scopes.described(item.subject, source)
        if about is not None and item.subject.unit is Unit.DETAIL:
            detail = detail_of(drafts.place_of(self._store, item.id)[1])
            about = replace(about, detail=detail.name or about.name)
            if source.endswith(f": {detail.beginning}"):  # else the model thinks first, and begins the line itself
                text = f"{detail.beginning} {text}"
        return validate(
            text,
            mean_logprob=completion.mean_logprob,
            ended=completion.reason,
            min_mean_logprob=self._prompt_builder.manifest.min_mean_logprob,
            is_known=scopes.is_known(item.subject),
            source=source,
            about=about,
        )


def _title(item: WorkItem, view: IndexView) -> str:
    path = item.subject.path
    return PurePosixPath(path).name if path else view.name


def _described(path: str, view: IndexView, told: Collection[Subject]) -> list[Note]:
    """What authors say of the symbols of a file, without those that have a note: words in a header are found later."""
    summaries = (
        (symbol, brief(authored_summary(symbol.docstring, view.language(path))))
        for symbol in view.outline(path).sections
        if symbol.docstring and symbol.kind not in DATA_KINDS and symbol.subject not in told
    )
    return [Note(f"`{symbol_label(symbol)}`", text) for symbol, text in summaries if text]
