"""Decode attention by the compiled kernel, which reads bf16 keys as they lie; prompt spans go the torch way.

Knows which rows the kernel can take.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from rotary_batch.engine.attention.base import NO_WINDOW, Rows
from rotary_batch.engine.attention.gather import DECODE_ROWS, GatherAttention
from rotary_batch.engine.kernels.cpu import MAX_ATTENTION_ROWS, CpuKernels
from rotary_batch.engine.kvcache.arena import KvArena
from rotary_batch.model.geometry import Geometry


class CpuAttention:
    """Plans and runs it for one engine."""

    def __init__(self, geometry: Geometry, dtype: torch.dtype, device: torch.device, kernels: CpuKernels) -> None:
        self._kernels = kernels
        self._groups = geometry.num_heads // geometry.num_kv_heads
        self._window = geometry.sliding_window or NO_WINDOW
        self._rest = GatherAttention(geometry, dtype, device)
        self._few = torch.empty(0, 6, dtype=torch.int64)
        self._has_rest = False

    def plan(self, rows: Sequence[Rows]) -> None:
        """Rows that the kernel takes, and the rest."""
        few = [run for run in rows if self._takes(run)]
        rest = [run for run in rows if not self._takes(run)]
        self._few, self._has_rest = torch.tensor(few, dtype=torch.int64).view(-1, 6), bool(rest)
        self._rest.plan(rest)

    def _takes(self, run: Rows) -> bool:
        return run.num_rows <= DECODE_ROWS and run.num_rows * self._groups <= MAX_ATTENTION_ROWS

    def attend(self, layer: int, queries: torch.Tensor, kv: KvArena) -> torch.Tensor:
        """queries [T, heads, D] -> [T, heads, D]."""
        out = self._rest.attend(layer, queries.contiguous(), kv) if self._has_rest else torch.empty(queries.shape)
        if len(self._few):
            out, (keys, values) = out.float(), kv.layer(layer)
            self._kernels.attend(queries.float(), keys, values, out, self._few, self._window)
        return out.to(queries.dtype)
