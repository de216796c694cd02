"""Attention in float32 whose bits do not depend on what else is in the batch.

The rows of a sequence are cut into query blocks of a few positions.  The query heads that share a KV head are folded
into the rows of the block, so that a block is one [R, D] matrix with R a multiple of 16.  The KV cache is read in tiles
of KV_TILE tokens with an online softmax (arXiv 1805.02867): the arithmetic of a row does not depend on the batch, and a
tile that is masked for a row changes none of its bits.  A shared prefix is gathered like any other KV.  Sharing saves
memory and prefill and changes no bit.

B = query blocks, P = positions of a block, R = rows of a block, G = query heads of a KV head, D = head dimension,
Dv = numbers of a value, S = tokens of a KV tile.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from rotary_batch.engine.attention.base import QuerySegment
from rotary_batch.engine.kernels.linear import TILE_ROWS
from rotary_batch.engine.kvcache.arena import KvArena
from rotary_batch.model.geometry import Geometry

KV_TILE = 64
BATCH_NBYTES = 16 * 2**20  # KV that is gathered at once for a batch of query blocks; bounds the workspace
CUDA_BLOCKS = 32  # in every batch on CUDA: libraries choose a kernel by the size of the batch (numerics.py)
_MASKED = -1e30  # instead of -inf: the difference of two infinities is NaN


class QueryBlock(NamedTuple):
    """Some rows of one segment."""

    segment: QuerySegment
    offset: int  # of its first row within the segment
    num_rows: int

    @property
    def num_kv_tokens(self) -> int:
        """Context length of its last row."""
        return self.segment.first_position + self.offset + self.num_rows


@dataclass(frozen=True, slots=True)
class BlockBatch:
    """Index tensors of query blocks whose contexts have similar lengths."""

    rows: torch.Tensor  # [B, P] batch row of each position; padding is row 0
    positions: torch.Tensor  # [B, P] position within the sequence; padding is -1
    kv_indices: torch.Tensor  # [B, whole KV tiles] where the KV is in the arena; padding repeats the last index
    num_ended: Sequence[int]  # of each KV tile: blocks whose contexts end before it, which are the first of the batch


class ExactAttention:
    """Attention of one engine with exact numerics."""

    def __init__(self, geometry: Geometry, device: torch.device) -> None:
        self._geometry = geometry
        self._device = device
        self._window = geometry.sliding_window if geometry.sliding_window is not None else 2**62
        self._batches: list[BlockBatch] = []

    def plan(self, segments: Sequence[QuerySegment]) -> None:
        """Cut segments into query blocks; short contexts come first, so that a batch has similar lengths."""
        width = max(1, TILE_ROWS // (self._geometry.num_heads // self._geometry.num_kv_heads))
        blocks = [
            QueryBlock(segment, offset, min(width, segment.num_rows - offset))
            for segment in segments
            for offset in range(0, segment.num_rows, width)
        ]
        blocks.sort(key=lambda block: block.num_kv_tokens)
        on_cuda = self._device.type == "cuda"
        tile_nbytes = KV_TILE * self._geometry.num_kv_heads * self._geometry.head_dim * 4
        size = CUDA_BLOCKS if on_cuda else max(1, BATCH_NBYTES // tile_nbytes)
        batches = [blocks[begin : begin + size] for begin in range(0, len(blocks), size)]
        self._batches = [self._batch(batch, width, size if on_cuda else len(batch)) for batch in batches]

    def _batch(self, blocks: Sequence[QueryBlock], width: int, num_blocks: int) -> BlockBatch:
        """Index tensors for `num_blocks` blocks of `width` positions; missing blocks are padding."""
        rows = torch.zeros(num_blocks, width, dtype=torch.int64)
        positions = torch.full((num_blocks, width), -1, dtype=torch.int64)
        num_tiles = -(-blocks[-1].num_kv_tokens // KV_TILE)
        kv_indices = torch.zeros(num_blocks, num_tiles * KV_TILE, dtype=torch.int64)
        for n, block in enumerate(blocks):
            first_row = block.segment.first_row + block.offset
            rows[n, : block.num_rows] = torch.arange(first_row, first_row + block.num_rows)
            first_position = block.num_kv_tokens - block.num_rows
            positions[n, : block.num_rows] = torch.arange(first_position, block.num_kv_tokens)
            indices = torch.tensor(block.segment.kv_indices(block.num_kv_tokens))
            kv_indices[n, : len(indices)] = indices
            kv_indices[n, len(indices) :] = indices[-1]
        # On CUDA a batch keeps its size, and so its blocks until the end.
        ends = [] if self._device.type == "cuda" else [block.num_kv_tokens for block in blocks]
        num_ended = [bisect_right(ends, tile * KV_TILE) for tile in range(num_tiles)]
        rows, positions, kv_indices = (tensor.to(self._device) for tensor in (rows, positions, kv_indices))
        return BlockBatch(rows, positions, kv_indices, num_ended)

    def attend(self, layer: int, queries: torch.Tensor, kv: KvArena, sinks: torch.Tensor | None = None) -> torch.Tensor:
        """queries [T, heads, D] -> [T, heads, Dv]; `sinks` [heads]."""
        out = queries.new_zeros(*queries.shape[:2], self._geometry.value_dim)
        for batch in self._batches:
            _unfold(out, self._attend_batch(layer, queries, kv, batch, sinks), batch)
        return out

    def _attend_batch(
        self, layer: int, queries: torch.Tensor, kv: KvArena, batch: BlockBatch, sinks: torch.Tensor | None
    ) -> torch.Tensor:
        """Folded output [B * kv heads, R, Dv] in float32."""
        kv_heads = self._geometry.num_kv_heads
        q, positions = _fold(queries, batch, kv_heads)  # [B * kv, R, D], [B, R]
        state = SoftmaxState.initial(q, self._geometry.value_dim)
        if sinks is not None:
            state = state.after_sinks(sinks.view(kv_heads, -1))
        ended, num_ended = list[torch.Tensor](), 0
        for tile, first in enumerate(batch.num_ended):
            if first > num_ended:
                folded = (first - num_ended) * kv_heads
                ended.append(state.rows(slice(folded)).result())
                state, num_ended = state.rows(slice(folded, None)), first
            columns = slice(tile * KV_TILE, (tile + 1) * KV_TILE)
            kv_positions = torch.arange(columns.start, columns.stop, device=q.device)
            k, v = _gather(kv, layer, batch.kv_indices[first:, columns])  # [B * kv, S, D], [B * kv, S, Dv]
            rows = positions[first:, :, None]
            visible = (kv_positions <= rows) & (kv_positions > rows - self._window)
            state = state.update(q[first * kv_heads :], k, v, visible.repeat_interleave(kv_heads, 0))
        return torch.cat([*ended, state.result()])


class SoftmaxState(NamedTuple):
    """The online softmax after some KV tiles."""

    row_max: torch.Tensor  # [B * kv, R, 1]
    row_sum: torch.Tensor  # [B * kv, R, 1] of exp(score - row_max)
    out: torch.Tensor  # [B * kv, R, Dv], not yet divided by row_sum

    @classmethod
    def initial(cls, q: torch.Tensor, value_dim: int) -> SoftmaxState:
        """Before the first tile."""
        row_max = torch.full((q.shape[0], q.shape[1], 1), _MASKED, dtype=torch.float32, device=q.device)
        out = torch.zeros((*q.shape[:2], value_dim), dtype=torch.float32, device=q.device)
        return cls(row_max, torch.zeros_like(row_max), out)

    def after_sinks(self, sinks: torch.Tensor) -> SoftmaxState:
        """After a token with the logits `sinks` [kv heads, G] and a value of zero; rows of q take them in turn."""
        kv_heads, groups = sinks.shape
        blocks, rows, _ = self.row_max.shape
        padded = sinks.float().repeat(1, -(-rows // groups))[:, :rows]
        row_max = padded.repeat(blocks // kv_heads, 1)[..., None]
        return SoftmaxState(row_max, torch.ones_like(row_max), self.out)

    def rows(self, blocks: slice) -> SoftmaxState:
        """That of some of the folded blocks."""
        return SoftmaxState(*(tensor[blocks] for tensor in self))

    def result(self) -> torch.Tensor:
        """The output [B * kv, R, Dv]."""
        return self.out / self.row_sum.clamp_min(1e-30)

    def update(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor) -> SoftmaxState:
        """After one more tile; `mask` [B * kv, R, S] is true where a row sees a token."""
        scale = q.shape[-1] ** -0.5
        scores = (torch.bmm(q, k.transpose(1, 2)).float() * scale).masked_fill_(~mask, _MASKED)
        row_max = torch.maximum(self.row_max, scores.amax(-1, keepdim=True))
        weights = torch.exp(scores - row_max).masked_fill_(~mask, 0.0)
        rescale = torch.exp(self.row_max - row_max)
        row_sum = self.row_sum * rescale + weights.sum(-1, keepdim=True)
        out = self.out * rescale + torch.bmm(weights.to(v.dtype), v).float()
        return SoftmaxState(row_max, row_sum, out)


def _fold(queries: torch.Tensor, batch: BlockBatch, kv_heads: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Queries of a block as one matrix for each KV head, with rows (position, group), padded to whole tiles."""
    num_blocks, width = batch.rows.shape
    heads, head_dim = queries.shape[1:]
    groups = heads // kv_heads
    q = queries[batch.rows].view(num_blocks, width, kv_heads, groups, head_dim).transpose(1, 2)
    q = q.reshape(num_blocks * kv_heads, width * groups, head_dim)
    padding = -(width * groups) % TILE_ROWS
    positions = torch.nn.functional.pad(batch.positions.repeat_interleave(groups, 1), (0, padding), value=-1)
    return torch.nn.functional.pad(q, (0, 0, 0, padding)), positions


def _gather(kv: KvArena, layer: int, kv_indices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values of a tile of each block: indices [B, S] -> [B * kv, S, D] and [B * kv, S, Dv]."""
    num_blocks, tile = kv_indices.shape
    keys, values = (
        part.view(num_blocks, tile, *part.shape[1:]).transpose(1, 2).reshape(-1, tile, part.shape[2])
        for part in kv.gather(layer, kv_indices.flatten(), torch.float32)
    )
    return keys, values


def _unfold(out: torch.Tensor, folded: torch.Tensor, batch: BlockBatch) -> None:
    """Write the folded output [B * kv heads, R, Dv] to the rows of `out` [T, heads, Dv]."""
    num_blocks, width = batch.rows.shape
    heads, head_dim = out.shape[1:]
    kv_heads = folded.shape[0] // num_blocks
    groups = heads // kv_heads
    parts = folded[:, : width * groups].view(num_blocks, kv_heads, width, groups, head_dim).transpose(1, 2)
    is_row = batch.positions >= 0
    out[batch.rows[is_row]] = parts.reshape(num_blocks, width, heads, head_dim)[is_row].to(out.dtype)
