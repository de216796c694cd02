"""Attention in float32 whose bits do not depend on what else rides the revolution.

Rows of one sequence are cut into units of a few positions.  The query heads that share a key head are
folded into the rows of its unit, so a unit is one [R, D] matrix, R a multiple of 16.  Keys are taken in
tiles of KEY_TILE with a running softmax (arXiv 1805.02867), so a row's arithmetic does not depend on what
else is in the batch; a tile that is masked for a row changes no bit of it.  Shared prefixes are gathered like
any other keys: sharing saves their memory and their prefill and changes no bit.
U = units, R = rows of a unit, G = query heads of a key head, D = head dimension, S = key tile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from rotary_batch.engine.attention.base import Rows
from rotary_batch.engine.kernels.linear import TILE_ROWS
from rotary_batch.engine.kvcache.arena import KvArena
from rotary_batch.model.geometry import Geometry

KEY_TILE = 64
BLOCK_NBYTES = 16 * 2**20  # gathered keys of one block of units; bounds the workspace
CUDA_UNITS = 32  # of every block on CUDA: a library chooses its kernel by the size of the batch (numerics.py)
_NOWHERE = -1e30  # a finite stand-in for -inf: exp of a difference of two of them is no NaN


@dataclass(frozen=True, slots=True)
class Units:
    """Index tensors of some units with contexts of like length."""

    row: torch.Tensor  # [U, P] flattened batch row of each position, 0 where there is none
    position: torch.Tensor  # [U, P] position within the sequence, -1 where there is none
    place: torch.Tensor  # [U, keys] where each key lies in the arena; whole tiles, the last key repeated

    @property
    def num_tiles(self) -> int:
        """Tiles of keys that the longest unit needs."""
        return self.place.shape[1] // KEY_TILE


class ExactAttention:
    """Plans and runs it for one engine."""

    def __init__(self, geometry: Geometry, device: torch.device) -> None:
        self._geometry = geometry
        self._device = device
        self._window = geometry.sliding_window if geometry.sliding_window is not None else 2**62
        self._blocks: list[Units] = []

    def plan(self, rows: Sequence[Rows]) -> None:
        """Cut sequences into units, short contexts first so that a block has units of like length."""
        width = max(1, TILE_ROWS // (self._geometry.num_heads // self._geometry.num_kv_heads))
        cut = [
            (run, begin, min(width, run.num_rows - begin)) for run in rows for begin in range(0, run.num_rows, width)
        ]
        cut.sort(key=lambda unit: unit[0].first_position + unit[1] + unit[2])
        on_cuda = self._device.type == "cuda"
        most = max(1, BLOCK_NBYTES // (KEY_TILE * self._geometry.num_kv_heads * self._geometry.head_dim * 4))
        size = CUDA_UNITS if on_cuda else most
        blocks = [cut[begin : begin + size] for begin in range(0, len(cut), size)]
        self._blocks = [self._block(block, width, size if on_cuda else len(block)) for block in blocks]

    def _block(self, cut: Sequence[tuple[Rows, int, int]], width: int, num_units: int) -> Units:
        row = torch.zeros(num_units, width, dtype=torch.int64)
        position = torch.full((num_units, width), -1, dtype=torch.int64)
        last, begin, count = cut[-1]
        num_kv_tokens = -(-(last.first_position + begin + count) // KEY_TILE) * KEY_TILE
        place = torch.zeros(num_units, num_kv_tokens, dtype=torch.int64)
        for unit, (run, begin, count) in enumerate(cut):
            first = run.first_position + begin
            row[unit, :count] = torch.arange(run.first_row + begin, run.first_row + begin + count)
            position[unit, :count] = torch.arange(first, first + count)
            found = torch.tensor(run.places(first + count))
            place[unit, : len(found)] = found
            place[unit, len(found) :] = found[-1]
        return Units(*(tensor.to(self._device) for tensor in (row, position, place)))

    def attend(self, layer: int, queries: torch.Tensor, kv: KvArena) -> torch.Tensor:
        """queries [T, heads, D] -> [T, heads, D]."""
        out = torch.zeros_like(queries)
        for units in self._blocks:
            self._attend_block(out, layer, queries, kv, units)
        return out

    def _attend_block(self, out: torch.Tensor, layer: int, queries: torch.Tensor, kv: KvArena, units: Units) -> None:
        kv_heads = self._geometry.num_kv_heads
        q, row_position = _fold(queries, units, kv_heads)  # [U * kv, R, D], [U, R]
        best = torch.full((q.shape[0], q.shape[1], 1), _NOWHERE, dtype=torch.float32, device=q.device)
        total, mixed = torch.zeros_like(best), torch.zeros(q.shape, dtype=torch.float32, device=q.device)
        scale = q.shape[-1] ** -0.5
        for tile in range(units.num_tiles):
            key = torch.arange(tile * KEY_TILE, (tile + 1) * KEY_TILE, device=q.device)
            k, v = _gather(kv, layer, units.place[:, tile * KEY_TILE : (tile + 1) * KEY_TILE])  # [U * kv, S, D]
            seen = (key <= row_position[:, :, None]) & (key > row_position[:, :, None] - self._window)
            mask = seen.repeat_interleave(kv_heads, 0)  # [U * kv, R, S]
            scores = (torch.bmm(q, k.transpose(1, 2)).float() * scale).masked_fill_(~mask, _NOWHERE)
            higher = torch.maximum(best, scores.amax(-1, keepdim=True))
            weights = torch.exp(scores - higher).masked_fill_(~mask, 0.0)
            fade = torch.exp(best - higher)
            total = total * fade + weights.sum(-1, keepdim=True)
            mixed = mixed * fade + torch.bmm(weights.to(v.dtype), v).float()
            best = higher
        _unfold(out, mixed / total.clamp_min(1e-30), units)


def _fold(queries: torch.Tensor, units: Units, kv_heads: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Queries of a unit as one matrix per key head, rows (position, group), padded to whole tiles."""
    num_units, width = units.row.shape
    heads, head_dim = queries.shape[1:]
    groups = heads // kv_heads
    q = queries[units.row].view(num_units, width, kv_heads, groups, head_dim).transpose(1, 2)
    q = q.reshape(num_units * kv_heads, width * groups, head_dim)
    missing = -(width * groups) % TILE_ROWS
    row_position = torch.nn.functional.pad(units.position.repeat_interleave(groups, 1), (0, missing), value=-1)
    return torch.nn.functional.pad(q, (0, 0, 0, missing)), row_position


def _gather(kv: KvArena, layer: int, place: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values of units [U, S], each [U * kv, S, D]."""
    num_units, tile = place.shape
    found = []
    for taken in kv.gather(layer, place.flatten(), torch.float32):
        _, kv_heads, head_dim = taken.shape
        by_head = taken.view(num_units, tile, kv_heads, head_dim).transpose(1, 2)
        found.append(by_head.reshape(num_units * kv_heads, tile, head_dim))
    return found[0], found[1]


def _unfold(out: torch.Tensor, mixed: torch.Tensor, units: Units) -> None:
    num_units, width = units.row.shape
    heads, head_dim = out.shape[1:]
    kv_heads = mixed.shape[0] // num_units
    groups = heads // kv_heads
    parts = mixed[:, : width * groups].view(num_units, kv_heads, width, groups, head_dim).transpose(1, 2)
    there = units.position >= 0
    out[units.row[there]] = parts.reshape(num_units, width, heads, head_dim)[there].to(out.dtype)
