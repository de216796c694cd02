"""The prompts of the `summarize` job as text: a chunk with its context, the opening of each answer, notes for roll-ups.

`chunk_prompt` is the one place where the text of a chunk's prompt is put together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from rotary_batch.prompts import Prompt

CONTEXT_TOKENS = 300


@dataclass(frozen=True, slots=True)
class Context:
    """What stands around a chunk, most useful first within each kind."""

    within: str = ""
    imports: Sequence[str] = ()
    uses: Sequence[tuple[str, str]] = ()  # signature, first sentence of its docs
    used_in: Sequence[tuple[str, str]] = ()  # path, signature of the caller
    outline: Sequence[str] = field(default_factory=tuple)

    def lines(self) -> list[str]:
        """One line for each fact."""
        found = [f"Within: {self.within}"] if self.within else []
        found += [f"Imports: {', '.join(self.imports)}"] if self.imports else []
        found += [
            f"Uses `{signature}`: {sentence}" if sentence else f"Uses `{signature}`"
            for signature, sentence in self.uses
        ]
        found += [f"Used in {PurePosixPath(path).name}: {signature}" for path, signature in self.used_in]
        return found + ([f"Outline: {', '.join(self.outline)}"] if self.outline else [])


def chunk_prompt(prompt: Prompt, language: str, path: str, context: str, source: str) -> str:
    """The user's turn about one chunk."""
    name = PurePosixPath(path).name
    values = {"language": language, "name": name, "context": context, "source": source.strip("\n")}
    return prompt.fill(values | ({"path": path} if "path" in prompt.variables else {})).text


def opening(name: str) -> str:
    """What the assistant's turn begins with."""
    return f"`{name}`:"
