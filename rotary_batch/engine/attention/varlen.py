"""Attention by torch's variable-length FlashAttention (CUDA): prompts and decode rows in one call a layer.

Knows how a contiguous arena looks to `torch.nn.attention.varlen`: cumulative starts are where ranges begin, and
`seqused_k` says how much of each is filled.  Needs torch >= 2.12 (grouped queries and seqused_k are public there);
`varlen_works` tries it on the device instead of trusting a version.
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

from rotary_batch.engine.attention.base import Rows
from rotary_batch.engine.attention.gather import GatherAttention
from rotary_batch.engine.kvcache.arena import KvArena
from rotary_batch.model.geometry import Geometry


class Launch(NamedTuple):
    """One call of the kernel."""

    rows: torch.Tensor  # [rows] batch rows in the order of ranges
    cu_seq_q: torch.Tensor  # [N + 1]
    cu_seq_k: torch.Tensor  # [N + 1] where ranges begin; the last is where the last one ends
    seqused_k: torch.Tensor  # [N]
    max_q: int
    max_k: int
    window: tuple[int, int]


class VarlenAttention:
    """Plans and runs it for one engine."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._own: Launch | None = None
        self._prefixes: list[Launch] = []

    def plan(self, rows: Sequence[Rows]) -> None:
        """Own ranges in one call; each shared prefix in one more."""
        runs = sorted(rows, key=lambda run: run.kv_start)
        lengths = [run.num_kv_tokens - run.prefix_tokens for run in runs]
        self._own = self._call(runs, [run.kv_start for run in runs], lengths, (-1, 0))
        shared = sorted({(run.prefix_start, run.prefix_tokens) for run in rows if run.prefix_tokens})
        self._prefixes = []
        for start, length in shared:
            users = [run for run in runs if (run.prefix_start, run.prefix_tokens) == (start, length)]
            row = [n for run in users for n in range(run.first_row, run.first_row + run.num_rows)]
            everyone = Rows(0, len(row), 0, start)
            call = self._call([everyone], [start], [length], (-1, -1))
            self._prefixes.append(call._replace(rows=self._to(row)))

    def _call(self, runs: Sequence[Rows], starts: list[int], lengths: list[int], window: tuple[int, int]) -> Launch:
        row = [n for run in runs for n in range(run.first_row, run.first_row + run.num_rows)]
        cu_seq_q = list(accumulate((run.num_rows for run in runs), initial=0))
        return Launch(
            self._to(row),
            self._to(cu_seq_q).int(),
            self._to([*starts, starts[-1] + lengths[-1]]).int(),
            self._to(lengths).int(),
            max(run.num_rows for run in runs),
            max(lengths),
            window,
        )

    def _to(self, numbers: list[int]) -> torch.Tensor:
        return torch.tensor(numbers, dtype=torch.int64).to(self._device, non_blocking=True)

    def attend(self, layer: int, queries: torch.Tensor, kv: KvArena) -> torch.Tensor:
        """queries [T, heads, D] -> [T, heads, D]."""
        assert self._own is not None, "plan comes first"
        keys, values = kv.layer(layer)
        out = torch.empty_like(queries)
        weight = torch.empty(queries.shape[:2], dtype=torch.float32, device=queries.device)  # log-sum-exp
        out[self._own.rows], weight[self._own.rows] = _varlen(queries, keys, values, self._own)
        for call in self._prefixes:
            found, lse = _varlen(queries, keys, values, call)
            share = torch.sigmoid(lse - weight[call.rows])[..., None]
            own = out[call.rows].float()
            out[call.rows] = (own + share * (found.float() - own)).to(out.dtype)
        return out


def _varlen(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, call: Launch
) -> tuple[torch.Tensor, torch.Tensor]:
    from torch.nn.attention.varlen import AuxRequest, varlen_attn

    found, lse = varlen_attn(
        queries[call.rows],
        keys,
        values,
        call.cu_seq_q,
        call.cu_seq_k,
        call.max_q,
        call.max_k,
        return_aux=AuxRequest(lse=True),
        window_size=call.window,
        enable_gqa=True,
        seqused_k=call.seqused_k,
    )
    return found, lse.T  # [heads, T] as the kernel gives it, whatever the documentation says


def varlen_works(geometry: Geometry, device: torch.device) -> bool:
    """Whether this torch and this device give the same as plain torch on a small mixed revolution.

    Not for a sliding window: the end of a shared prefix may be in sight of some rows only.
    """
    if geometry.sliding_window is not None:
        return False
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return False
    if not {"seqused_k", "enable_gqa"} <= set(inspect.signature(varlen_attn).parameters):
        return False
    kv = KvArena(replace(geometry, num_layers=1), 64, "bf16", torch.bfloat16, device)
    rows = [Rows(0, 10, 0, 8), Rows(10, 1, 20, 30, 0, 8)]  # 11: unlike any number of heads, so that no turn goes unseen
    generator = torch.Generator(device).manual_seed(0)
    make = partial(torch.randn, generator=generator, device=device, dtype=torch.bfloat16)
    kv.write(0, torch.arange(64, device=device), *(make(64, geometry.num_kv_heads, geometry.head_dim) for _ in "kv"))
    queries = make(11, geometry.num_heads, geometry.head_dim)
    found = []
    try:
        for attention in (VarlenAttention(device), GatherAttention(geometry, torch.bfloat16, device)):
            attention.plan(rows)
            found.append(attention.attend(0, queries, kv).float())
    except (RuntimeError, TypeError, ValueError):
        return False
    return bool((found[0] - found[1]).abs().max() < 0.05)
