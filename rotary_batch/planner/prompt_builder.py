"""One job put to one model: fills and encodes prompts, fits them into the context, keys the results.

Knows tokens and limits; knows nothing of the queue or of where a note's text comes from.
"""

from __future__ import annotations

import array
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import NamedTuple

from rotary_batch.core import Chunk
from rotary_batch.errors import ConfigError, PromptError
from rotary_batch.jobs import Job, UnitSpec
from rotary_batch.model.manifest import Manifest
from rotary_batch.model.tokens import Tokenizer
from rotary_batch.prompts import Prompt

# Bump when the same prompt, weights and limits may give other tokens: numerics, sampling, stop rules.
KEY_VERSION = "rotary-batch result 2"
CHUNK_VARIABLES = frozenset({"language", "name", "context", "source", "fence"})
NOTES_VARIABLES = frozenset({"name", "notes", "fence"})
MIN_CHUNK_TOKENS = 32  # less than this and chunks are crumbs: the context is too small for the job


class Note(NamedTuple):
    """One line of what a roll-up reads."""

    label: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedPrompt:
    """A prompt as the model will read it, and the key of its answer."""

    prompt_ids: tuple[int, ...]
    key: str
    num_markers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptBuilder:
    """A job, its prompts and the model that will answer them."""

    job: Job
    prompts: Mapping[str, Prompt]
    tokenizer: Tokenizer
    manifest: Manifest
    numerics: str  # exact or fast, and how keys are kept when not as computed

    def __post_init__(self) -> None:
        for unit, spec in self.job.units.items():
            wanted = CHUNK_VARIABLES if unit == "chunk" else NOTES_VARIABLES
            for name in filter(None, (spec.prompt, spec.part)):
                self._check_prompt(unit, name, wanted if name == spec.prompt else NOTES_VARIABLES)

    def _check_prompt(self, unit: str, name: str, variables: frozenset[str]) -> None:
        if name not in self.prompts:
            raise ConfigError(f"job {self.job.name}: [{unit}] names the prompt {name!r}; there is no prompts/{name}.md")
        if extra := self.prompts[name].variables - variables:
            raise ConfigError(f"prompts/{name}.md: ${min(extra)} is not among {', '.join(sorted(variables))}")

    def check_budget(self) -> None:
        """Raise PromptError now when no chunk could ever be asked."""
        _ = self.chunk_budget_tokens

    @property
    def plan_key(self) -> str:
        """What the cut into chunks depends on; a repository indexed under another one is cut again."""
        return _digest(["cut 2", self.tokenizer.digest, self.chunk_budget_tokens, self.job.name])

    @property
    def chunk_budget_tokens(self) -> int:
        """The most source tokens in one chunk.  Raises PromptError when the context is too small."""
        spec = self.job.units["chunk"]
        frame = self._encode(self._chunk_text("", "x", "", "language"))[0]
        room = self.manifest.context_tokens - spec.new_tokens - len(frame)
        budget = min(spec.chunk_tokens or room, self.manifest.chunk_tokens or room, room * 3 // 4)
        if budget < MIN_CHUNK_TOKENS:
            raise PromptError(
                f"model {self.manifest.name}: its context of {self.manifest.context_tokens} tokens leaves {budget} "
                f"for source code beside {len(frame)} of prompt and {spec.new_tokens} of answer; use a model with "
                f"more context, or lower [chunk] new_tokens in the job"
            )
        return budget

    def build_chunk_prompt(self, chunk: Chunk, source: bytes, language: str) -> EncodedPrompt:
        """The prompt of a chunk.  The breadcrumb gives way when both do not fit.  Raises PromptError."""
        text = source.decode("utf-8", "replace")
        name = PurePosixPath(chunk.path).name
        spec = self.job.units["chunk"]
        for breadcrumb in (chunk.breadcrumb, ""):
            asked = self._ask(spec, self._chunk_text(text, name, breadcrumb, language))
            if len(asked.prompt_ids) + spec.new_tokens <= self.manifest.context_tokens:
                return asked
        raise PromptError(
            f"{chunk.path}:{chunk.start_line}: its prompt of {len(asked.prompt_ids)} tokens and an answer of "
            f"{spec.new_tokens} exceed the context of {self.manifest.context_tokens}; lower [chunk] chunk_tokens"
        )

    def _chunk_text(self, source: str, name: str, breadcrumb: str, language: str) -> tuple[str, int]:
        values = {"language": language, "name": name, "context": breadcrumb, "source": source.strip("\n")}
        filled = self.prompts[self.job.units["chunk"].prompt].fill(values)
        return filled.text, filled.num_markers

    def build_rollup_prompt(
        self, unit: str, name: str, notes: Sequence[Note], *, part: bool = False
    ) -> EncodedPrompt | None:
        """The prompt of a roll-up, or of a part of one; None when it is longer than its budget."""
        spec = self.job.units[unit]
        asked = self._ask(spec, self._notes_text(spec, name, notes, part=part))
        return asked if len(asked.prompt_ids) <= self._notes_budget_tokens(spec) else None

    def _notes_text(self, spec: UnitSpec, name: str, notes: Sequence[Note], *, part: bool) -> tuple[str, int]:
        prompt = self.prompts[spec.part if part and spec.part else spec.prompt]
        filled = prompt.fill({"name": name, "notes": "\n".join(map(note_line, notes))})
        return filled.text, filled.num_markers

    def _notes_budget_tokens(self, spec: UnitSpec) -> int:
        return min(spec.prompt_tokens or self.manifest.context_tokens, self.manifest.context_tokens - spec.new_tokens)

    def split_notes(self, unit: str, name: str, notes: Sequence[Note]) -> list[range]:
        """Cut notes into runs that each fit the part prompt.  Raises PromptError when that gains nothing."""
        spec = self.job.units[unit]
        frame = len(self._encode(self._notes_text(spec, name, (), part=True))[0])
        room = self._notes_budget_tokens(spec) - frame
        runs = list(_runs([self.tokenizer.count(note_line(note) + "\n") + 1 for note in notes], room))
        if len(runs) >= len(notes):
            raise PromptError(
                f"{name}: notes do not shrink within prompts of {room} tokens; raise [{unit}] prompt_tokens"
            )
        return runs

    def _ask(self, spec: UnitSpec, text: tuple[str, int]) -> EncodedPrompt:
        prompt_ids, num_markers = self._encode(text)
        return EncodedPrompt(prompt_ids=prompt_ids, key=self._key(prompt_ids, spec), num_markers=num_markers)

    def _encode(self, text: tuple[str, int]) -> tuple[tuple[int, ...], int]:
        return tuple(self.tokenizer.encode_chat(text[0])), text[1]

    def _key(self, prompt_ids: Sequence[int], spec: UnitSpec) -> str:
        """Everything that decides the answer; not the path, the commit, the time, the batch or the device."""
        prompt = hashlib.sha256(array.array("I", prompt_ids).tobytes()).hexdigest()
        model = [self.tokenizer.digest, self.manifest.weights_digest, self.manifest.experts]
        return _digest([KEY_VERSION, prompt, *model, "greedy", spec.new_tokens, spec.sentences, self.numerics])


def note_line(note: Note) -> str:
    """One note as a roll-up's prompt shows it."""
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
