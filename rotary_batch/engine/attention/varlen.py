"""Attention by torch's variable-length FlashAttention (CUDA): prefill and decode rows in one call for each layer.

`torch.nn.attention.varlen` gets the arena as it is: `cu_seq_k` holds the start of each range, and `seqused_k` how many
tokens of it are in use.  It needs torch 2.12 or later, where grouped queries and `seqused_k` are public.
`supports_varlen` tries the kernel on the device and does not trust a version number.

N = sequences, D = head dimension.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import accumulate
from typing import NamedTuple

import torch

from rotary_batch.engine.attention.base import QuerySegment
from rotary_batch.engine.attention.gather import GatherAttention, merge_states
from rotary_batch.engine.kvcache.arena import KvArena
from rotary_batch.model.geometry import Geometry

CAUSAL, UNMASKED = (-1, 0), (-1, -1)  # windows, as the kernel takes them


class Launch(NamedTuple):
    """The arguments of one call of the kernel."""

    rows: torch.Tensor  # [rows] batch rows in the order of their ranges
    cu_seq_q: torch.Tensor  # [N + 1]
    cu_seq_k: torch.Tensor  # [N + 1] start of each range, and the end of the last
    seqused_k: torch.Tensor  # [N]
    max_q: int
    max_k: int
    window: tuple[int, int]


class VarlenAttention:
    """Attention of one engine on CUDA, for a bf16 KV cache without a sliding window."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._own: Launch | None = None
        self._prefixes: list[Launch] = []

    def plan(self, segments: Sequence[QuerySegment]) -> None:
        """One call for the sequences' own ranges, and one for each shared prefix."""
        segments = sorted(segments, key=lambda segment: segment.kv_start)
        lengths = [segment.num_kv_tokens - segment.prefix_tokens for segment in segments]
        self._own = self._launch(segments, [segment.kv_start for segment in segments], lengths, CAUSAL)
        prefixes = sorted({(segment.prefix_start, segment.prefix_tokens) for segment in segments})
        self._prefixes = [self._prefix_launch(segments, start, length) for start, length in prefixes if length]

    def _prefix_launch(self, segments: Sequence[QuerySegment], start: int, length: int) -> Launch:
        """All rows that share a prefix, as if they were one sequence."""
        sharers = [segment for segment in segments if (segment.prefix_start, segment.prefix_tokens) == (start, length)]
        rows = [row for segment in sharers for row in segment.rows()]
        launch = self._launch([QuerySegment(0, len(rows), 0, start)], [start], [length], UNMASKED)
        return launch._replace(rows=self._to_device(rows))

    def _launch(
        self, segments: Sequence[QuerySegment], starts: list[int], lengths: list[int], window: tuple[int, int]
    ) -> Launch:
        cu_seq_q = list(accumulate((segment.num_rows for segment in segments), initial=0))
        return Launch(
            rows=self._to_device([row for segment in segments for row in segment.rows()]),
            cu_seq_q=self._to_device(cu_seq_q).int(),
            cu_seq_k=self._to_device([*starts, starts[-1] + lengths[-1]]).int(),
            seqused_k=self._to_device(lengths).int(),
            max_q=max(segment.num_rows for segment in segments),
            max_k=max(lengths),
            window=window,
        )

    def _to_device(self, numbers: list[int]) -> torch.Tensor:
        return torch.tensor(numbers, dtype=torch.int64).to(self._device, non_blocking=True)

    def attend(self, layer: int, queries: torch.Tensor, kv: KvArena, sinks: torch.Tensor | None = None) -> torch.Tensor:
        """queries [T, heads, D] -> [T, heads, D]."""
        assert sinks is None, "models with sinks have another implementation: select.py"
        assert self._own is not None, "plan comes first"
        keys, values = kv.layer_views(layer)
        out = torch.empty_like(queries)
        lse = torch.empty(queries.shape[:2], dtype=torch.float32, device=queries.device)
        out[self._own.rows], lse[self._own.rows] = _varlen(queries, keys, values, self._own)
        for launch in self._prefixes:
            prefix_out, prefix_lse = _varlen(queries, keys, values, launch)
            out[launch.rows] = merge_states(out[launch.rows], lse[launch.rows], prefix_out, prefix_lse)
        return out


def _varlen(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, launch: Launch
) -> tuple[torch.Tensor, torch.Tensor]:
    """Output [rows, heads, D] and log-sum-exp [rows, heads]."""
    from torch.nn.attention.varlen import AuxRequest, varlen_attn

    out, lse = varlen_attn(
        queries[launch.rows],
        keys,
        values,
        launch.cu_seq_q,
        launch.cu_seq_k,
        launch.max_q,
        launch.max_k,
        return_aux=AuxRequest(lse=True),
        window_size=launch.window,
        enable_gqa=True,
        seqused_k=launch.seqused_k,
    )
    return out, lse.T  # the kernel returns [heads, T], whatever its documentation says


def supports_varlen(geometry: Geometry, device: torch.device) -> bool:
    """Whether torch has the kernel, and it agrees with plain torch on this device.

    A sliding window is not supported: some rows may see the end of a shared prefix while others do not.
    """
    if geometry.sliding_window is not None:
        return False
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return False
    if not {"seqused_k", "enable_gqa"} <= set(inspect.signature(varlen_attn).parameters):
        return False
    try:
        return _agrees_with_torch(geometry, device)
    except (RuntimeError, TypeError, ValueError):
        return False


def _agrees_with_torch(geometry: Geometry, device: torch.device) -> bool:
    """Compare both on a small step of 11 rows, a number unlike any number of heads: a transposed result is noticed."""
    kv = KvArena(replace(geometry, num_layers=1), 64, "bf16", torch.bfloat16, device)
    segments = [
        QuerySegment(first_row=0, num_rows=10, first_position=0, kv_start=8),
        QuerySegment(first_row=10, num_rows=1, first_position=20, kv_start=30, prefix_start=0, prefix_tokens=8),
    ]
    generator = torch.Generator(device).manual_seed(0)
    randn = partial(torch.randn, generator=generator, device=device, dtype=torch.bfloat16)
    kv.write(0, torch.arange(64, device=device), *(randn(64, geometry.num_kv_heads, geometry.head_dim) for _ in "kv"))
    queries = randn(11, geometry.num_heads, geometry.head_dim)
    outputs = []
    for attention in (VarlenAttention(device), GatherAttention(geometry, torch.bfloat16, device)):
        attention.plan(segments)
        outputs.append(attention.attend(0, queries, kv).float())
    return bool((outputs[0] - outputs[1]).abs().max() < 0.05)
