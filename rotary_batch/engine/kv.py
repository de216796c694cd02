"""Keys and values of live sequences: one contiguous range of tokens per sequence in one arena.

Knows ranges and bytes; knows nothing of attention.  A sequence's prompt and output limits are known at
admission, so it needs one range and no paging.
"""

from __future__ import annotations

import torch

from rotary_batch.model.geometry import Geometry


class KvArena:
    """Keys and values [layers, tokens, kv heads, head dim] and the free ranges of tokens."""

    def __init__(self, geometry: Geometry, capacity_tokens: int, dtype: torch.dtype, device: torch.device) -> None:
        shape = (geometry.num_layers, capacity_tokens, geometry.num_kv_heads, geometry.head_dim)
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        self.capacity_tokens = capacity_tokens
        self._free: list[tuple[int, int]] = [(0, capacity_tokens)]  # (start, length), ascending, never adjacent

    def has_room(self, num_tokens: int) -> bool:
        """Answer whether `take` would succeed."""
        return any(length >= num_tokens for _, length in self._free)

    def take(self, num_tokens: int) -> int:
        """Reserve a range; answer its start.  First fit keeps the used part of the arena low."""
        for place, (start, length) in enumerate(self._free):
            if length >= num_tokens:
                self._free[place : place + 1] = [(start + num_tokens, length - num_tokens)] * (length > num_tokens)
                return start
        raise ValueError(f"no free range of {num_tokens} tokens")

    def give_back(self, start: int, num_tokens: int) -> None:
        """Return a range; ranges that touch become one."""
        merged: list[tuple[int, int]] = []
        for begin, length in sorted([*self._free, (start, num_tokens)]):
            if merged and sum(merged[-1]) == begin:
                merged[-1] = (merged[-1][0], merged[-1][1] + length)
            else:
                merged.append((begin, length))
        self._free = merged

    @property
    def free_tokens(self) -> int:
        """How many tokens are free in all."""
        return sum(length for _, length in self._free)
