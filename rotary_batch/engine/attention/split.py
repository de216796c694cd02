"""Attention by two implementations: rows whose keys the device keeps, and rows whose keys visit it.

Knows where a row's own keys lie.  Kernels that read the arena as it lies take the first, plain torch, which gathers,
the second.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from rotary_batch.engine.attention.base import Attention, Rows
from rotary_batch.engine.kvcache.arena import KvArena


class SplitAttention:
    """Sends every row to the one that can read its keys."""

    def __init__(self, staying: Attention, visiting: Attention, device_tokens: int, device: torch.device) -> None:
        self._staying = staying
        self._visiting = visiting
        self._device_tokens = device_tokens
        self._device = device
        self._num_staying = 0
        self._visitors = torch.empty(0, dtype=torch.int64)

    def plan(self, rows: Sequence[Rows]) -> None:
        """Part the rows."""
        staying = [run for run in rows if run.kv_start < self._device_tokens]
        visiting = [run for run in rows if run.kv_start >= self._device_tokens]
        visitors = [n for run in visiting for n in range(run.first_row, run.first_row + run.num_rows)]
        self._num_staying, self._visitors = len(staying), torch.tensor(visitors, dtype=torch.int64).to(self._device)
        if staying:
            self._staying.plan(staying)
        if visiting:
            self._visiting.plan(visiting)

    def attend(self, layer: int, queries: torch.Tensor, kv: KvArena) -> torch.Tensor:
        """queries [T, heads, D] -> [T, heads, D]."""
        if not len(self._visitors):
            return self._staying.attend(layer, queries, kv)
        found = self._visiting.attend(layer, queries, kv)
        if not self._num_staying:
            return found
        out = self._staying.attend(layer, queries, kv)
        out[self._visitors] = found[self._visitors]
        return out
