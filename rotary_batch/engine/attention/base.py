"""What attention computes in one step, and the interface of its implementations.

`exact.py` and `exact_cpu.py` give bits that do not depend on the batch.  The others are fast: `gather.py` runs on every
device, `cpu.py`, `triton.py` and `varlen.py` call kernels, and `split.py` combines two of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch

from rotary_batch.engine.kvcache.arena import KvArena

NO_WINDOW = 2**30  # tokens that a row sees back; longer than any context


class QuerySegment(NamedTuple):
    """Consecutive rows of one sequence in this step, and where the KV cache of the sequence is in the arena.

    Position p is at index `prefix_start + p` if it belongs to the shared prefix, otherwise at
    `kv_start + p - prefix_tokens`.  The rows themselves never belong to the shared prefix.
    Kernels read a segment as six integers in this order.
    """

    first_row: int  # in the flattened batch
    num_rows: int
    first_position: int  # of the first row within the sequence
    kv_start: int
    prefix_start: int = 0
    prefix_tokens: int = 0

    @property
    def num_kv_tokens(self) -> int:
        """Context length of the last row, including the row itself."""
        return self.first_position + self.num_rows

    def rows(self) -> range:
        """Its rows in the flattened batch."""
        return range(self.first_row, self.first_row + self.num_rows)

    def positions(self) -> range:
        """Positions of its rows within the sequence."""
        return range(self.first_position, self.num_kv_tokens)

    def slot_mapping(self) -> range:
        """Indices in the arena where the KV of its own rows is written."""
        start = self.kv_start - self.prefix_tokens
        return range(start + self.first_position, start + self.num_kv_tokens)

    def kv_indices(self, num_kv_tokens: int) -> list[int]:
        """Indices in the arena of the first `num_kv_tokens` positions of the sequence."""
        shared = min(num_kv_tokens, self.prefix_tokens)
        own = range(self.kv_start, self.kv_start + num_kv_tokens - shared)
        return [*range(self.prefix_start, self.prefix_start + shared), *own]


class Attention(Protocol):
    """Causal attention with grouped queries over the rows of a step."""

    def plan(self, segments: Sequence[QuerySegment]) -> None:
        """Prepare the index tensors of a step; all layers share them."""
        ...

    def attend(self, layer: int, queries: torch.Tensor, kv: KvArena, sinks: torch.Tensor | None = None) -> torch.Tensor:
        """queries [T, heads, D] -> [T, heads, Dv]; the KV of these rows is in the arena already.

        Dv, the numbers of a value, is D but in latent attention, which the kernels do not have.

        `sinks` [heads] are logits of one more token for each head, whose value is zero; models that have them say so in
        their geometry.
        """
        ...
