"""Attention by two implementations: one for KV cache in device memory, one for KV cache in host memory.

Kernels read the KV cache in place and need it in device memory.  `GatherAttention` reads both.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from rotary_batch.engine.attention.base import Attention, QuerySegment
from rotary_batch.engine.kvcache.arena import KvArena


class SplitAttention:
    """Sends each segment to the implementation that can read its KV cache."""

    def __init__(self, on_device: Attention, on_host: Attention, device_tokens: int, device: torch.device) -> None:
        self._on_device = on_device
        self._on_host = on_host
        self._device_tokens = device_tokens
        self._device = device
        self._has_device_segments = False
        self._host_rows = torch.empty(0, dtype=torch.int64)

    def plan(self, segments: Sequence[QuerySegment]) -> None:
        """Divide the segments by where their own KV is."""
        on_device = [segment for segment in segments if segment.kv_start < self._device_tokens]
        on_host = [segment for segment in segments if segment.kv_start >= self._device_tokens]
        host_rows = [row for segment in on_host for row in segment.rows()]
        self._has_device_segments = bool(on_device)
        self._host_rows = torch.tensor(host_rows, dtype=torch.int64).to(self._device)
        if on_device:
            self._on_device.plan(on_device)
        if on_host:
            self._on_host.plan(on_host)

    def attend(self, layer: int, queries: torch.Tensor, kv: KvArena, sinks: torch.Tensor | None = None) -> torch.Tensor:
        """queries [T, heads, D] -> [T, heads, D]."""
        assert sinks is None, "models with sinks have another implementation: select.py"
        if not len(self._host_rows):
            return self._on_device.attend(layer, queries, kv)
        host_out = self._on_host.attend(layer, queries, kv)
        if not self._has_device_segments:
            return host_out
        out = self._on_device.attend(layer, queries, kv)
        out[self._host_rows] = host_out[self._host_rows]
        return out
