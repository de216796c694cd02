"""Exact attention by the compiled kernel, which reads the float32 KV cache in place.

The bits of a row depend on its sequence alone; they are not those of `exact.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from rotary_batch.engine.attention.base import NO_WINDOW, QuerySegment
from rotary_batch.engine.kernels.cpu import MAX_ATTENTION_ROWS, SEGMENT_FIELDS, CpuKernels
from rotary_batch.engine.kvcache.arena import KvArena
from rotary_batch.model.geometry import Geometry


class ExactCpuAttention:
    """Attention of one engine with exact numerics on a CPU."""

    def __init__(self, geometry: Geometry, kernels: CpuKernels) -> None:
        self._kernels = kernels
        self._rows = MAX_ATTENTION_ROWS // (geometry.num_heads // geometry.num_kv_heads)
        self._window = geometry.sliding_window or NO_WINDOW
        self._segments = torch.empty(0, SEGMENT_FIELDS, dtype=torch.int64)

    @staticmethod
    def supports(geometry: Geometry, kernels: CpuKernels, kv: KvArena) -> bool:
        """Whether the kernel reads such a KV cache, for such a model."""
        is_plain = not geometry.attention_sinks and not geometry.kv_lora_rank
        is_stored_so = kv.stored_as == "bf16" and not kv.host_tokens
        fits = geometry.num_heads // geometry.num_kv_heads <= MAX_ATTENTION_ROWS  # those of one position
        return is_plain and is_stored_so and fits and kernels.supports_head_dim(geometry.head_dim)

    def plan(self, segments: Sequence[QuerySegment]) -> None:
        """Cut segments into those that fit the kernel; neighbours share a prefix."""
        parts = [part for segment in segments for part in self._parts(segment)]
        parts.sort(key=lambda part: part[-2:])
        self._segments = torch.tensor(parts, dtype=torch.int64).view(-1, SEGMENT_FIELDS)

    def _parts(self, segment: QuerySegment) -> Iterator[QuerySegment]:
        for offset in range(0, segment.num_rows, self._rows):
            yield segment._replace(
                first_row=segment.first_row + offset,
                num_rows=min(self._rows, segment.num_rows - offset),
                first_position=segment.first_position + offset,
            )

    def attend(self, layer: int, queries: torch.Tensor, kv: KvArena, sinks: torch.Tensor | None = None) -> torch.Tensor:
        """queries [T, heads, D] -> [T, heads, D]."""
        assert sinks is None, "models with sinks have another implementation: select.py"
        out, (keys, values) = torch.empty(queries.shape), kv.layer_views(layer)
        if len(self._segments):
            self._kernels.attend(queries.float(), keys, values, out, self._segments, self._window)
        return out
