"""Prompts of one job for one model: filled, encoded, fitted into the context, and keyed."""

from __future__ import annotations

import array
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import NamedTuple

from rotary_batch.core import Chunk, Topic, Unit
from rotary_batch.errors import ConfigError, PromptError
from rotary_batch.jobs import Job, SymbolSpec, TopicSpec, UnitSpec
from rotary_batch.model.begun import BegunChat
from rotary_batch.model.manifest import Manifest
from rotary_batch.model.tokens import Tokenizer
from rotary_batch.pages.symbol_details import detail_of
from rotary_batch.planner.context import chunk_context
from rotary_batch.prompts import FilledPrompt, Prompt, break_markers
from rotary_batch.work.expected import NoteRoom

# Bump when the same prompt, weights and limits may give other tokens: numerics, sampling, stop rules.
KEY_VERSION = "rotary-batch result 2"
FAST_VERSION = "all in 8 bits"  # the same for fast numerics alone
CHUNK_VARIABLES = frozenset({"language", "name", "path", "context", "source", "fence"})
NOTES_VARIABLES = frozenset({"name", "notes", "fence"})
OPENING_TOKENS = 48  # of what begins the answer on one symbol; names take 5 to 15
MIN_CHUNK_TOKENS = 32  # with less, chunks are fragments: the context is too small for the job


class Note(NamedTuple):
    """One line of the prompt of a roll-up."""

    label: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedPrompt:
    """A prompt as token ids, and the key of its result."""

    prompt_ids: tuple[int, ...]
    key: str
    num_markers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BegunPrompt:
    """The prompt of a chunk, which the prompts of its symbols begin with."""

    chat: BegunChat
    num_markers: int
    digest: hashlib._Hash  # of its ids


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptBuilder:
    """Builds the prompts of a job for a model."""

    job: Job
    prompts: Mapping[str, Prompt]
    tokenizer: Tokenizer
    manifest: Manifest
    numerics: str  # exact or fast, and the precision of the KV cache when it is not that of the computation

    def __post_init__(self) -> None:
        for unit, spec in self.job.units.items():
            wanted = CHUNK_VARIABLES if unit is Unit.CHUNK else NOTES_VARIABLES
            for name in filter(None, (spec.prompt, spec.part)):
                self._check_prompt(unit, name, wanted if name == spec.prompt else NOTES_VARIABLES)
        for name in self.job.topics.prompts.values() if self.job.topics else ():
            self._check_prompt(Unit.TOPIC, name, NOTES_VARIABLES)

    def _check_prompt(self, unit: Unit, name: str, variables: frozenset[str]) -> None:
        if name not in self.prompts:
            raise ConfigError(f"job {self.job.name}: [{unit}] names the prompt {name!r}; there is no prompts/{name}.md")
        if extra := self.prompts[name].variables - variables:
            raise ConfigError(f"prompts/{name}.md: ${min(extra)} is not among {', '.join(sorted(variables))}")

    def check_budget(self) -> None:
        """Raise PromptError when the context is too small for any chunk."""
        _ = self.chunk_budget_tokens

    @property
    def plan_key(self) -> str:
        """Everything that chunk boundaries depend on; under another key a repository is cut again."""
        return _digest(["cut 2", self.tokenizer.digest, self.chunk_budget_tokens, self.job.name])

    @property
    def chunk_budget_tokens(self) -> int:
        """The most source tokens in a chunk.  Raises PromptError when the context is too small."""
        spec, new_tokens = self.job.units[Unit.CHUNK], self._chunk_new_tokens
        frame_tokens = len(self._encode(self._fill_chunk("", "x", "", "language")))
        frame_tokens += OPENING_TOKENS + self._context_tokens if self.job.symbol else 0
        room = self.manifest.context_tokens - new_tokens - frame_tokens
        budget = min(spec.chunk_tokens or room, self.manifest.chunk_tokens or room, room * 3 // 4)
        if budget < MIN_CHUNK_TOKENS:
            raise PromptError(
                f"model {self.manifest.name}: its context of {self.manifest.context_tokens} tokens leaves {budget} "
                f"for source code after {frame_tokens} for the prompt and {new_tokens} for the answer; use a "
                f"model with more context, or lower [chunk] new_tokens in the job"
            )
        return budget

    @property
    def _chunk_new_tokens(self) -> int:
        """The most tokens of an answer to the prompt of a chunk."""
        own = self.job.units[Unit.CHUNK].new_tokens
        return max(own, self.job.symbol.new_tokens) if self.job.symbol else own

    def build_chunk_prompt(self, chunk: Chunk, source: bytes, language: str) -> EncodedPrompt:
        """The prompt of a chunk, without the breadcrumb when both do not fit.  Raises PromptError."""
        text = source.decode("utf-8", "replace")
        spec = self.job.units[Unit.CHUNK]
        for breadcrumb in (chunk.breadcrumb, ""):
            encoded = self._encode_and_key(spec, self._fill_chunk(text, chunk.path, breadcrumb, language))
            if len(encoded.prompt_ids) + spec.new_tokens <= self.manifest.context_tokens:
                return encoded
        raise self._too_long(f"{chunk.path}:{chunk.start_line}", len(encoded.prompt_ids))

    def begin_chunk_prompt(self, chunk: Chunk, source: bytes, language: str) -> BegunPrompt:
        """The prompt of a chunk of a source up to where each of its answers is begun.  Raises PromptError."""
        text = source[chunk.start_byte : chunk.end_byte].decode("utf-8", "replace")
        contexts = [chunk_context(chunk.breadcrumb), ""]
        return self.begin_prompt(f"{chunk.path}:{chunk.start_line}", chunk.path, text, language, contexts)

    def begin_prompt(self, place: str, path: str, source: str, language: str, contexts: Sequence[str]) -> BegunPrompt:
        """The prompt of a chunk up to where each of its answers is begun, with the first context that fits.

        `place` is what an error names.  Raises PromptError.
        """
        for context in contexts:
            filled = self._fill_chunk(source, path, context, language)
            chat = self.tokenizer.begin_chat(filled.text, self.job.template)
            tokens = len(chat.head_ids) + len(chat.tail_ids) + OPENING_TOKENS
            if tokens + self._chunk_new_tokens <= self.manifest.context_tokens:
                return BegunPrompt(chat=chat, num_markers=filled.num_markers, digest=_ids_digest(chat.head_ids))
        raise self._too_long(place, tokens)

    def contexts(self, lines: Sequence[str]) -> list[str]:
        """The lines of a context that fit into its budget; then none, for a chunk with which they do not fit."""
        kept, used = list[str](), 0
        for line in lines:
            tokens = self.tokenizer.count(line + "\n")
            if used + tokens <= self._context_tokens:
                kept.append(line)
                used += tokens
        return ["\n".join(kept), ""]

    @property
    def _context_tokens(self) -> int:
        """What a context may take; a model with little context keeps seven eighths for the rest."""
        wanted = self.job.symbol.context_tokens if self.job.symbol else None
        return min(wanted or 0, self.manifest.context_tokens // 8)

    def continue_prompt(self, begun: BegunPrompt, label: str, unit: Unit) -> EncodedPrompt:
        """What comes behind a begun prompt to ask about the thing with this label.  Raises PromptError.

        The key is that of the whole prompt.
        """
        name, num_markers = break_markers(label)
        chat = begun.chat
        begun_text = f" {detail_of(label).beginning}" if unit is Unit.DETAIL else ""
        own_ids = chat.ids(f"{name}:{begun_text}" if chat.is_answer else f"\n\nNow the line for {name}.")
        spec = self._spec(unit)
        tokens = len(chat.head_ids) + len(own_ids)
        if tokens + spec.new_tokens > self.manifest.context_tokens:
            raise PromptError(
                f"{label}: its prompt of {tokens} tokens and an answer of {spec.new_tokens} exceed the context of "
                f"{self.manifest.context_tokens}; lower [chunk] chunk_tokens"
            )
        digest = begun.digest.copy()
        digest.update(_packed(own_ids))
        key = self._key(digest, spec, at_line_end=True)
        return EncodedPrompt(prompt_ids=own_ids, key=key, num_markers=begun.num_markers + num_markers)

    def _spec(self, unit: Unit) -> UnitSpec | SymbolSpec:
        if unit in {Unit.SYMBOL, Unit.DETAIL} and self.job.symbol:
            return self.job.symbol
        return self.job.units[unit]

    def _too_long(self, place: str, tokens: int) -> PromptError:
        return PromptError(
            f"{place}: its prompt of {tokens} tokens and an answer of "
            f"{self._chunk_new_tokens} exceed the context of {self.manifest.context_tokens}; lower [chunk] chunk_tokens"
        )

    def _fill_chunk(self, source: str, path: str, context: str, language: str) -> FilledPrompt:
        prompt = self.prompts[self.job.units[Unit.CHUNK].prompt]
        values = {"language": language, "name": PurePosixPath(path).name, "context": context}
        # The fence is derived from all values: a file that is moved keeps a prompt that does not name its path.
        values |= {"path": path} if "path" in prompt.variables else {}
        return prompt.fill(values | {"source": source.strip("\n")})

    def build_rollup_prompt(
        self, unit: Unit, name: str, notes: Sequence[Note], *, part: bool = False
    ) -> EncodedPrompt | None:
        """The prompt of a roll-up, or of a part of one; None when it exceeds its budget."""
        spec = self.job.units[unit]
        encoded = self._encode_and_key(spec, self._fill_notes(spec, name, notes, part=part))
        return encoded if len(encoded.prompt_ids) <= self._notes_budget_tokens(spec) else None

    def _fill_notes(self, spec: UnitSpec, name: str, notes: Sequence[Note], *, part: bool) -> FilledPrompt:
        return _filled(self.prompts[spec.part if part and spec.part else spec.prompt], name, notes)

    def _notes_budget_tokens(self, spec: UnitSpec) -> int:
        return min(spec.prompt_tokens or self.manifest.context_tokens, self.manifest.context_tokens - spec.new_tokens)

    def that_fit(self, unit: Unit, notes: Sequence[Note]) -> list[Note]:
        """The first notes, as far as they take a third of the room: the rest is for those on inputs."""
        spec, used = self.job.units[unit], 0
        for place, note in enumerate(notes):
            used += self.tokenizer.count(note_line(note) + "\n")
            if used > self._notes_budget_tokens(spec) // 3:
                return list(notes[:place])
        return list(notes)

    def build_topic_prompt(self, topic: Topic, name: str, notes: Sequence[Note]) -> EncodedPrompt:
        """The prompt on a topic of a project, with the notes that fit, the first ones first.  Raises PromptError."""
        spec = self.job.topics
        assert spec is not None, "the job has topics"
        prompt, kept = self.prompts[spec.prompts[topic]], list[Note]()
        room = min(spec.prompt_tokens, self.manifest.context_tokens - spec.new_tokens)
        encoded = self._encode(_filled(prompt, name, ()))
        used = len(encoded)
        for note in notes:
            tokens = self.tokenizer.count(note_line(note) + "\n")
            if used + tokens <= room:
                kept.append(note)
                used += tokens
        filled = _filled(prompt, name, kept)
        while kept and len(encoded := self._encode(filled)) > room:  # tokens of lines are not quite those of the whole
            filled = _filled(prompt, name, kept := kept[:-1])
        if not kept:
            raise PromptError(f"{topic}: no fact fits into a prompt of {room} tokens; raise [topic] prompt_tokens")
        return EncodedPrompt(
            prompt_ids=encoded, key=self._key(_ids_digest(encoded), spec), num_markers=filled.num_markers
        )

    def note_rooms(self) -> dict[Unit, NoteRoom]:
        """What the prompts of each roll-up have room for."""
        rooms: dict[Unit, NoteRoom] = {}
        for unit, spec in self.job.units.items():
            if unit is not Unit.CHUNK:
                frame_tokens = len(self._encode(self._fill_notes(spec, "x", (), part=False)))
                rooms[unit] = NoteRoom(frame_tokens, max(0, self._notes_budget_tokens(spec) - frame_tokens))
        if self.job.topics:  # their facts are not known yet
            rooms[Unit.TOPIC] = NoteRoom(self.job.topics.prompt_tokens, 0)
        return rooms

    def split_notes(self, unit: Unit, name: str, notes: Sequence[Note]) -> list[range]:
        """Cut notes into runs that each fit a part's prompt.  Raises PromptError when every run would be one note."""
        spec = self.job.units[unit]
        frame_tokens = len(self._encode(self._fill_notes(spec, name, (), part=True)))
        room = self._notes_budget_tokens(spec) - frame_tokens
        runs = list(_runs([self.tokenizer.count(note_line(note) + "\n") + 1 for note in notes], room))
        if len(runs) >= len(notes):
            raise PromptError(
                f"{name}: notes do not get shorter in prompts of {room} tokens; raise [{unit}] prompt_tokens"
            )
        return runs

    def _encode_and_key(self, spec: UnitSpec, filled: FilledPrompt) -> EncodedPrompt:
        prompt_ids = self._encode(filled)
        key = self._key(_ids_digest(prompt_ids), spec)
        return EncodedPrompt(prompt_ids=prompt_ids, key=key, num_markers=filled.num_markers)

    def _encode(self, filled: FilledPrompt) -> tuple[int, ...]:
        return tuple(self.tokenizer.encode_chat(filled.text, self.job.template))

    def _key(self, prompt: hashlib._Hash, spec: UnitSpec | SymbolSpec | TopicSpec, *, at_line_end: bool = False) -> str:
        """Everything that decides the answer: not the path, the commit, the time, the batch or the device."""
        model = [self.tokenizer.digest, self.manifest.weights_digest, self.manifest.experts]
        limits = ["greedy", spec.new_tokens, spec.sentences, *(["line"] if at_line_end else [])]
        numerics = [self.numerics, FAST_VERSION] if self.numerics.startswith("fast") else [self.numerics]
        return _digest([KEY_VERSION, prompt.hexdigest(), *model, *limits, *numerics])


def _filled(prompt: Prompt, name: str, notes: Sequence[Note]) -> FilledPrompt:
    return prompt.fill({"name": name, "notes": "\n".join(map(note_line, notes))})


def note_line(note: Note) -> str:
    """A note as it is in the prompt of a roll-up."""
    return f"- {note.label}: {' '.join(note.text.split())}"


def _runs(sizes: Sequence[int], room: int) -> Iterator[range]:
    start, used = 0, 0
    for position, size in enumerate(sizes):
        if used + size > room and position > start:
            yield range(start, position)
            start, used = position, 0
        used += size
    if start < len(sizes):
        yield range(start, len(sizes))


def _packed(token_ids: Sequence[int]) -> bytes:
    return array.array("I", token_ids).tobytes()


def _ids_digest(token_ids: Sequence[int]) -> hashlib._Hash:
    return hashlib.sha256(_packed(token_ids))


def _digest(parts: Sequence[object]) -> str:
    return hashlib.sha256(json.dumps(parts, ensure_ascii=True).encode()).hexdigest()
