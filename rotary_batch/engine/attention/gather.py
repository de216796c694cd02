"""Attention at speed, in plain torch, for any device.

Decode rows are taken in blocks of sequences with contexts of like length; the query heads that share a key head are
folded into rows (10x over the naive call on a CPU).  Prompt spans go one by one, they have enough rows.  When several
sequences share a prefix, their decode rows attend to its one copy together, and the two parts are merged by their
log-sum-exps (arXiv 2402.05099).
U = sequences of a block, P = their rows, G = query heads of a key head, D = head dimension, S = keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
import torch.nn.functional as F

from rotary_batch.engine.attention.base import Rows
from rotary_batch.engine.kernels.threads import threads_for
from rotary_batch.engine.kvcache.arena import KvArena
from rotary_batch.model.geometry import Geometry

DECODE_ROWS = 8  # sequences with at most so many rows are taken in blocks
BLOCK_SEQUENCES = 16  # 3.4 ms for 128 sequences in blocks of 16, 6.0 in blocks of 64 (caches)
MIN_SHARERS = 4  # from so many sequences on, one pass over the shared prefix beats gathering it for each


@dataclass(frozen=True, slots=True)
class Block:
    """Decode rows of some sequences."""

    row: torch.Tensor  # [U, P] batch rows; a sequence with fewer repeats its last
    place: torch.Tensor  # [U * S] where each key lies; padding repeats the last
    mask: torch.Tensor  # [U, 1, P * G, S] added to scores


@dataclass(frozen=True, slots=True)
class Span:
    """Rows of one sequence."""

    rows: slice
    place: torch.Tensor  # [S]
    mask: torch.Tensor | None  # [rows, S] added to scores; None = plain causal


@dataclass(frozen=True, slots=True)
class Shared:
    """A prefix and the decode rows that attend to it apart from their own keys."""

    row: torch.Tensor  # [rows]
    place: torch.Tensor  # [S]


class GatherAttention:
    """Plans and runs it for one engine."""

    def __init__(self, geometry: Geometry, dtype: torch.dtype, device: torch.device) -> None:
        self._groups = geometry.num_heads // geometry.num_kv_heads
        self._window = geometry.sliding_window
        self._dtype = dtype
        self._device = device
        self._blocks: list[Block] = []
        self._spans: list[Span] = []
        self._shared: list[Shared] = []

    def plan(self, rows: Sequence[Rows]) -> None:
        """Sort the rows of a revolution into blocks, spans and shared prefixes."""
        few = [run for run in rows if run.num_rows <= DECODE_ROWS]
        self._spans = [self._span(run) for run in rows if run.num_rows > DECODE_ROWS]
        self._blocks, self._shared = [], []
        by_prefix = sorted(few, key=lambda run: (run.prefix_start, run.prefix_tokens))
        for (start, length), group in groupby(by_prefix, key=lambda run: (run.prefix_start, run.prefix_tokens)):
            runs = list(group)
            apart = bool(length) and len(runs) >= MIN_SHARERS and self._window is None
            if apart:
                row = torch.tensor([run.first_row + n for run in runs for n in range(run.num_rows)])
                self._shared.append(Shared(self._to(row), self._to(torch.arange(start, start + length))))
            self._blocks += self._cut(runs, skip=length if apart else 0)

    def _cut(self, runs: Iterable[Rows], skip: int) -> Iterator[Block]:
        alike = sorted(runs, key=lambda run: (run.num_rows > 1, run.num_kv_tokens))
        for begin in range(0, len(alike), BLOCK_SEQUENCES):
            yield self._block(alike[begin : begin + BLOCK_SEQUENCES], skip)

    def _block(self, runs: Sequence[Rows], skip: int) -> Block:
        width, num_kv_tokens = max(run.num_rows for run in runs), max(run.num_kv_tokens for run in runs) - skip
        row = torch.empty(len(runs), width, dtype=torch.int64)
        place = torch.empty(len(runs), num_kv_tokens, dtype=torch.int64)
        for unit, run in enumerate(runs):
            found = torch.tensor(run.places(run.num_kv_tokens)[skip:])
            place[unit, : len(found)] = found
            place[unit, len(found) :] = found[-1]
            row[unit] = torch.arange(width).clamp_max(run.num_rows - 1) + run.first_row
        offset = torch.tensor([run.first_position - run.first_row for run in runs])
        position = row + offset[:, None]
        mask = self._mask(position[:, :, None], skip, num_kv_tokens).repeat_interleave(self._groups, 1)[:, None]
        return Block(self._to(row), self._to(place.flatten()), self._to(mask))

    def _span(self, run: Rows) -> Span:
        place = self._to(torch.tensor(run.places(run.num_kv_tokens)))
        plain = run.first_position == 0 and (self._window is None or run.num_kv_tokens <= self._window)
        mask = None if plain else self._to(self._mask(torch.tensor(run.positions())[:, None], 0, run.num_kv_tokens))
        return Span(slice(run.first_row, run.first_row + run.num_rows), place, mask)

    def _mask(self, position: torch.Tensor, skip: int, num_kv_tokens: int) -> torch.Tensor:
        """[..., num_kv_tokens]: 0 where a row at `position` [..., 1] sees key skip + n, else -inf."""
        key = torch.arange(skip, skip + num_kv_tokens)
        hidden = key > position
        if self._window is not None:
            hidden |= key <= position - self._window
        return torch.zeros(hidden.shape, dtype=self._dtype).masked_fill_(hidden, float("-inf"))

    def _to(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(self._device)

    def attend(self, layer: int, queries: torch.Tensor, kv: KvArena) -> torch.Tensor:
        """queries [T, heads, D] -> [T, heads, D]."""
        out = torch.empty_like(queries)
        weight = torch.empty(queries.shape[:2], dtype=torch.float32, device=queries.device)  # log-sum-exp
        for span in self._spans:
            with threads_for(len(span.place) * queries[span.rows, :, 0].numel()):  # scores
                self._attend_span(out, layer, queries, kv, span)
        for block in self._blocks:
            with threads_for(len(block.place) * queries[0].numel()):
                self._attend_block(out, weight, layer, queries, kv, block)
        for shared in self._shared:
            with threads_for(len(shared.place) * len(shared.row) * queries.shape[1]):
                self._attend_shared(out, weight, layer, queries, kv, shared)
        return out

    def _attend_span(self, out: torch.Tensor, layer: int, queries: torch.Tensor, kv: KvArena, span: Span) -> None:
        k, v = (part.transpose(0, 1)[None] for part in kv.gather(layer, span.place, queries.dtype))
        q = queries[span.rows].transpose(0, 1)[None]
        found = F.scaled_dot_product_attention(
            q, k, v, attn_mask=span.mask, is_causal=span.mask is None, enable_gqa=True
        )
        out[span.rows] = found[0].transpose(0, 1)

    def _attend_block(
        self, out: torch.Tensor, weight: torch.Tensor, layer: int, queries: torch.Tensor, kv: KvArena, block: Block
    ) -> None:
        units, width = block.row.shape
        heads, head_dim = queries.shape[1:]
        q = queries[block.row].view(units, width, -1, self._groups, head_dim).transpose(1, 2)
        q = q.reshape(units, -1, width * self._groups, head_dim)
        k, v = (
            part.view(units, -1, *part.shape[1:]).transpose(1, 2)
            for part in kv.gather(layer, block.place, queries.dtype)
        )
        found, lse = attend_with_lse(q, k, v, block.mask)
        parts = found.view(units, -1, width, self._groups, head_dim).transpose(1, 2)
        out[block.row] = parts.reshape(units, width, heads, head_dim)
        weight[block.row] = lse.view(units, -1, width, self._groups).transpose(1, 2).reshape(units, width, heads)

    def _attend_shared(
        self, out: torch.Tensor, weight: torch.Tensor, layer: int, queries: torch.Tensor, kv: KvArena, shared: Shared
    ) -> None:
        heads, head_dim = queries.shape[1:]
        rows = len(shared.row)
        q = queries[shared.row].view(rows, -1, self._groups, head_dim).transpose(0, 1)
        k, v = (part.transpose(0, 1)[None] for part in kv.gather(layer, shared.place, queries.dtype))
        found, lse = attend_with_lse(q.reshape(1, -1, rows * self._groups, head_dim), k, v, None)
        theirs = found.view(-1, rows, self._groups, head_dim).transpose(0, 1).reshape(rows, heads, head_dim)
        share = torch.sigmoid(
            lse.view(-1, rows, self._groups).transpose(0, 1).reshape(rows, heads) - weight[shared.row]
        )[..., None]
        own = out[shared.row].float()
        out[shared.row] = (own + share * (theirs.float() - own)).to(out.dtype)


def attend_with_lse(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """q [B, heads, R, D], k and v [B, heads, S, D], mask added to scores -> mixed values, log-sum-exp [B, heads, R]."""
    if q.device.type == "cpu":
        found, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, attn_mask=mask)
        return found, lse
    scores = (q @ k.transpose(-1, -2)).float() * q.shape[-1] ** -0.5
    if mask is not None:
        scores = scores + mask
    lse = scores.logsumexp(-1)
    return (scores - lse[..., None]).exp().to(v.dtype) @ v, lse
