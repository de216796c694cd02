"""Prompts of one job for one model: filled, encoded, fitted into the context, and keyed."""

from __future__ import annotations

import array
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import NamedTuple

from rotary_batch.core import Chunk, Unit
from rotary_batch.errors import ConfigError, PromptError
from rotary_batch.jobs import Job, UnitSpec
from rotary_batch.model.manifest import Manifest
from rotary_batch.model.tokens import Tokenizer
from rotary_batch.prompts import FilledPrompt, Prompt

# Bump when the same prompt, weights and limits may give other tokens: numerics, sampling, stop rules.
KEY_VERSION = "rotary-batch result 2"
CHUNK_VARIABLES = frozenset({"language", "name", "context", "source", "fence"})
NOTES_VARIABLES = frozenset({"name", "notes", "fence"})
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
        spec = self.job.units[Unit.CHUNK]
        frame_tokens = len(self._encode(self._fill_chunk("", "x", "", "language")))
        room = self.manifest.context_tokens - spec.new_tokens - frame_tokens
        budget = min(spec.chunk_tokens or room, self.manifest.chunk_tokens or room, room * 3 // 4)
        if budget < MIN_CHUNK_TOKENS:
            raise PromptError(
                f"model {self.manifest.name}: its context of {self.manifest.context_tokens} tokens leaves {budget} "
                f"for source code after {frame_tokens} for the prompt and {spec.new_tokens} for the answer; use a "
                f"model with more context, or lower [chunk] new_tokens in the job"
            )
        return budget

    def build_chunk_prompt(self, chunk: Chunk, source: bytes, language: str) -> EncodedPrompt:
        """The prompt of a chunk, without the breadcrumb when both do not fit.  Raises PromptError."""
        text = source.decode("utf-8", "replace")
        name = PurePosixPath(chunk.path).name
        spec = self.job.units[Unit.CHUNK]
        for breadcrumb in (chunk.breadcrumb, ""):
            encoded = self._encode_and_key(spec, self._fill_chunk(text, name, breadcrumb, language))
            if len(encoded.prompt_ids) + spec.new_tokens <= self.manifest.context_tokens:
                return encoded
        raise PromptError(
            f"{chunk.path}:{chunk.start_line}: its prompt of {len(encoded.prompt_ids)} tokens and an answer of "
            f"{spec.new_tokens} exceed the context of {self.manifest.context_tokens}; lower [chunk] chunk_tokens"
        )

    def _fill_chunk(self, source: str, name: str, breadcrumb: str, language: str) -> FilledPrompt:
        values = {"language": language, "name": name, "context": breadcrumb, "source": source.strip("\n")}
        return self.prompts[self.job.units[Unit.CHUNK].prompt].fill(values)

    def build_rollup_prompt(
        self, unit: Unit, name: str, notes: Sequence[Note], *, part: bool = False
    ) -> EncodedPrompt | None:
        """The prompt of a roll-up, or of a part of one; None when it exceeds its budget."""
        spec = self.job.units[unit]
        encoded = self._encode_and_key(spec, self._fill_notes(spec, name, notes, part=part))
        return encoded if len(encoded.prompt_ids) <= self._notes_budget_tokens(spec) else None

    def _fill_notes(self, spec: UnitSpec, name: str, notes: Sequence[Note], *, part: bool) -> FilledPrompt:
        prompt = self.prompts[spec.part if part and spec.part else spec.prompt]
        return prompt.fill({"name": name, "notes": "\n".join(map(note_line, notes))})

    def _notes_budget_tokens(self, spec: UnitSpec) -> int:
        return min(spec.prompt_tokens or self.manifest.context_tokens, self.manifest.context_tokens - spec.new_tokens)

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
        return EncodedPrompt(prompt_ids=prompt_ids, key=self._key(prompt_ids, spec), num_markers=filled.num_markers)

    def _encode(self, filled: FilledPrompt) -> tuple[int, ...]:
        return tuple(self.tokenizer.encode_chat(filled.text, self.job.template))

    def _key(self, prompt_ids: Sequence[int], spec: UnitSpec) -> str:
        """Everything that decides the answer: not the path, the commit, the time, the batch or the device."""
        prompt = hashlib.sha256(array.array("I", prompt_ids).tobytes()).hexdigest()
        model = [self.tokenizer.digest, self.manifest.weights_digest, self.manifest.experts]
        return _digest([KEY_VERSION, prompt, *model, "greedy", spec.new_tokens, spec.sentences, self.numerics])


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


def _digest(parts: Sequence[object]) -> str:
    return hashlib.sha256(json.dumps(parts, ensure_ascii=True).encode()).hexdigest()
