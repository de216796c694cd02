"""Decode attention that reads keys as they lie, bf16 or int8, those that visit the device too (CUDA with Triton).

Prompt spans go the torch way.

Knows which rows the kernel can take: those whose query heads fit its 16 rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from rotary_batch.engine.attention.base import NO_WINDOW, Rows
from rotary_batch.engine.attention.gather import GatherAttention
from rotary_batch.engine.kernels.cuda import triton_kernels
from rotary_batch.engine.kvcache.arena import KvArena
from rotary_batch.model.geometry import Geometry

KERNEL_ROWS = 16  # the least that a tensor core multiplies
KEY_TILE = 64


class TritonAttention:
    """Plans and runs it for one engine."""

    def __init__(self, geometry: Geometry, dtype: torch.dtype, device: torch.device) -> None:
        self._geometry = geometry
        self._groups = geometry.num_heads // geometry.num_kv_heads
        self._device = device
        self._rest = GatherAttention(geometry, dtype, device)
        self._few: torch.Tensor | None = None

    @staticmethod
    def takes_heads(head_dim: int) -> bool:
        """Whether the kernel knows this head dimension: a power of two that a tensor core multiplies."""
        return head_dim >= KERNEL_ROWS and head_dim.bit_count() == 1

    def plan(self, rows: Sequence[Rows]) -> None:
        """Rows that the kernel takes, and the rest."""
        few = [run for run in rows if run.num_rows * self._groups <= KERNEL_ROWS]
        self._rest.plan([run for run in rows if run.num_rows * self._groups > KERNEL_ROWS])
        self._few = torch.tensor(few, dtype=torch.int32).to(self._device) if few else None

    def attend(self, layer: int, queries: torch.Tensor, kv: KvArena) -> torch.Tensor:
        """queries [T, heads, D] -> [T, heads, D]."""
        out = self._rest.attend(layer, queries, kv)
        if self._few is not None:
            keys, values, *scales = kv.stores
            key_scales, value_scales = scales or (keys, values)  # without scales the kernel looks at none
            heads, dim = self._geometry.num_kv_heads, self._geometry.head_dim
            window = self._geometry.sliding_window or NO_WINDOW
            triton_kernels().decode_kernel[(len(self._few), heads)](
                queries.contiguous(),
                keys,
                key_scales,
                values,
                value_scales,
                out,
                self._few,
                *kv.bases(layer),
                kv.device_tokens,
                dim**-0.5,
                heads,
                self._groups,
                window,
                DIM=dim,
                ROWS=KERNEL_ROWS,
                TILE=KEY_TILE,
                SCALED=kv.stored_as == "int8",
            )
        return out
