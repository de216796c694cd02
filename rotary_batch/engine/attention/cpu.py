"""Decode attention by the compiled kernel, which reads the bf16 KV cache in place, and a shared prefix once.

Segments that the kernel does not support, such as prefill chunks, go to `GatherAttention`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from rotary_batch.engine.attention.base import NO_WINDOW, QuerySegment
from rotary_batch.engine.attention.gather import DECODE_ROWS, GatherAttention
from rotary_batch.engine.kernels.cpu import MAX_ATTENTION_ROWS, SEGMENT_FIELDS, CpuKernels
from rotary_batch.engine.kvcache.arena import KvArena
from rotary_batch.model.geometry import Geometry


class CpuAttention:
    """Attention of one engine on a CPU."""

    def __init__(self, geometry: Geometry, dtype: torch.dtype, device: torch.device, kernels: CpuKernels) -> None:
        self._kernels = kernels
        self._groups = geometry.num_heads // geometry.num_kv_heads
        self._window = geometry.sliding_window or NO_WINDOW
        self._fallback = GatherAttention(geometry, dtype, device)
        self._kernel_segments = torch.empty(0, SEGMENT_FIELDS, dtype=torch.int64)
        self._uses_fallback = False

    def plan(self, segments: Sequence[QuerySegment]) -> None:
        """Divide the segments between the kernel, where neighbours share a prefix, and the fallback."""
        by_kernel = sorted((one for one in segments if self._supports(one)), key=lambda one: one[-2:])
        others = [segment for segment in segments if not self._supports(segment)]
        self._kernel_segments = torch.tensor(by_kernel, dtype=torch.int64).view(-1, SEGMENT_FIELDS)
        self._uses_fallback = bool(others)
        self._fallback.plan(others)

    def _supports(self, segment: QuerySegment) -> bool:
        return segment.num_rows <= DECODE_ROWS and segment.num_rows * self._groups <= MAX_ATTENTION_ROWS

    def attend(self, layer: int, queries: torch.Tensor, kv: KvArena, sinks: torch.Tensor | None = None) -> torch.Tensor:
        """queries [T, heads, D] -> [T, heads, D]."""
        assert sinks is None, "models with sinks have another implementation: select.py"
        if self._uses_fallback:
            out = self._fallback.attend(layer, queries.contiguous(), kv)
        else:
            out = torch.empty(queries.shape)
        if len(self._kernel_segments):
            out, (keys, values) = out.float(), kv.layer_views(layer)
            self._kernels.attend(queries.float(), keys, values, out, self._kernel_segments, self._window)
        return out.to(queries.dtype)
