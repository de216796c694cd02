"""Decode attention by a Triton kernel (CUDA), which reads the KV cache in place.

The cache may be bf16 or int8, and partly swapped in from host memory.  The kernel takes segments whose query heads fit
its 16 rows.  The others, such as prefill chunks, go to another implementation: `GatherAttention`, if none is given.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from rotary_batch.engine.attention.base import NO_WINDOW, Attention, QuerySegment
from rotary_batch.engine.attention.gather import GatherAttention
from rotary_batch.engine.kernels.cuda import triton_kernels
from rotary_batch.engine.kvcache.arena import KvArena
from rotary_batch.model.geometry import Geometry

KERNEL_ROWS = 16  # the fewest rows that a tensor core multiplies
KV_TILE = 64


class TritonAttention:
    """Attention of one engine on CUDA with Triton."""

    def __init__(
        self, geometry: Geometry, dtype: torch.dtype, device: torch.device, others: Attention | None = None
    ) -> None:
        self._geometry = geometry
        self._groups = geometry.num_heads // geometry.num_kv_heads
        self._device = device
        self._others = others or GatherAttention(geometry, dtype, device)
        self._has_others = False
        self._kernel_segments: torch.Tensor | None = None

    @staticmethod
    def supports_head_dim(head_dim: int) -> bool:
        """Whether the head dimension is a power of two that a tensor core multiplies."""
        return head_dim >= KERNEL_ROWS and head_dim.bit_count() == 1

    @property
    def takes_decode_rows(self) -> bool:
        """Whether the query heads of a row that share a KV head fit the kernel."""
        return self._groups <= KERNEL_ROWS

    def plan(self, segments: Sequence[QuerySegment]) -> None:
        """Divide the segments between the kernel and the other implementation."""
        by_kernel = [segment for segment in segments if segment.num_rows * self._groups <= KERNEL_ROWS]
        others = [segment for segment in segments if segment.num_rows * self._groups > KERNEL_ROWS]
        self._has_others = bool(others)
        if others:
            self._others.plan(others)
        self._kernel_segments = torch.tensor(by_kernel, dtype=torch.int32).to(self._device) if by_kernel else None

    def plan_for_kernel(self, segments: torch.Tensor) -> None:
        """The same for segments [n, 6] of one row each, which are on the device already and fit the kernel."""
        assert self.takes_decode_rows, "rows with more heads are for the other implementation"
        self._has_others = False
        self._kernel_segments = segments

    def attend(self, layer: int, queries: torch.Tensor, kv: KvArena, sinks: torch.Tensor | None = None) -> torch.Tensor:
        """queries [T, heads, D] -> [T, heads, D]."""
        out = self._others.attend(layer, queries, kv, sinks) if self._has_others else torch.empty_like(queries)
        if self._kernel_segments is not None:
            self._launch(layer, queries, kv, sinks, out)
        return out

    def _launch(
        self, layer: int, queries: torch.Tensor, kv: KvArena, sinks: torch.Tensor | None, out: torch.Tensor
    ) -> None:
        """Write the rows of the kernel's segments to `out`."""
        segments = self._kernel_segments
        assert segments is not None
        keys, values, *scales = kv.tensors
        key_scales, value_scales = scales or (keys, values)  # without SCALED the kernel reads no scale
        device_offset, host_offset = kv.layer_offsets(layer)
        heads, dim = self._geometry.num_kv_heads, self._geometry.head_dim
        triton_kernels().decode_attention_kernel[(len(segments), heads)](
            queries.contiguous(),
            keys,
            key_scales,
            values,
            value_scales,
            keys if sinks is None else sinks,  # without HAS_SINKS the kernel reads none
            out,
            segments,
            device_offset=device_offset,
            host_offset=host_offset,
            device_tokens=kv.device_tokens,
            scale=dim**-0.5,
            kv_heads=heads,
            groups=self._groups,
            window=self._geometry.sliding_window or NO_WINDOW,
            DIM=dim,
            ROWS=KERNEL_ROWS,
            TILE=KV_TILE,
            SCALED=kv.stored_as == "int8",
            HAS_SINKS=sinks is not None,
        )
