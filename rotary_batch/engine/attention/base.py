"""What attention has to do in one revolution, and who does it.

Knows the rows of sequences and where their keys lie; the arithmetic is in attention_exact, attention_fast and, for
decode rows or on some devices, attention_native, attention_triton and attention_varlen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch

from rotary_batch.engine.kvcache.arena import KvArena

NO_WINDOW = 2**30  # keys that a row sees back; longer than any context


class Rows(NamedTuple):
    """Consecutive rows of one sequence in this revolution, and where its keys lie in the arena.

    Position p lies at `prefix_start + p` when it belongs to the shared prefix, else at `kv_start + p - prefix_tokens`.
    The rows themselves never belong to the shared prefix.
    """

    first_row: int  # in the flattened batch
    num_rows: int
    first_position: int  # of its first row within the sequence
    kv_start: int
    prefix_start: int = 0
    prefix_tokens: int = 0

    @property
    def num_kv_tokens(self) -> int:
        """Keys that the last row looks at, itself included."""
        return self.first_position + self.num_rows

    def positions(self) -> range:
        """Of the rows within the sequence."""
        return range(self.first_position, self.num_kv_tokens)

    def homes(self) -> range:
        """Places of the rows' own keys in the arena."""
        start = self.kv_start - self.prefix_tokens
        return range(start + self.first_position, start + self.num_kv_tokens)

    def places(self, num_kv_tokens: int) -> list[int]:
        """Places of the keys of positions 0 to num_kv_tokens in the arena."""
        shared = min(num_kv_tokens, self.prefix_tokens)
        own = range(self.kv_start, self.kv_start + num_kv_tokens - shared)
        return [*range(self.prefix_start, self.prefix_start + shared), *own]


class Attention(Protocol):
    """Causal attention with grouped queries over the ragged rows of a revolution."""

    def plan(self, rows: Sequence[Rows]) -> None:
        """Prepare index tensors for a revolution; shared by all layers."""
        ...

    def attend(self, layer: int, queries: torch.Tensor, kv: KvArena) -> torch.Tensor:
        """queries [T, heads, D] -> [T, heads, D]; the rows' own keys are in the arena already."""
        ...
