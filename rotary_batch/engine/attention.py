"""Causal attention with grouped queries over the ragged rows of one revolution.

Knows tiles; knows nothing of projections or of how sequences are scheduled.

Rows of one sequence are cut into units of a few positions.  The query heads that share a key head are
folded into the rows of its unit, so a unit is one [R, D] matrix, R a multiple of 16.  Keys are taken in
tiles of KEY_TILE with a running softmax (arXiv 1805.02867), so a row's arithmetic does not depend on what
else is in the batch; a tile that is masked for a row changes no bit of it.
U = units, R = rows of a unit, G = query heads of a key head, D = head dimension, S = key tile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from rotary_batch.engine.numerics import TILE_ROWS
from rotary_batch.model.geometry import Geometry

KEY_TILE = 64
BLOCK_NBYTES = 16 * 2**20  # gathered keys of one block of units; bounds the workspace
_NOWHERE = -1e30  # a finite stand-in for -inf: exp of a difference of two of them is no NaN


class Rows(NamedTuple):
    """The rows of one sequence in this revolution."""

    first_row: int  # in the flattened batch
    num_rows: int
    first_position: int  # of its first row within the sequence
    kv_start: int  # in the arena


@dataclass(frozen=True, slots=True)
class Units:
    """Index tensors that cut one revolution into units, shared by all layers."""

    row: torch.Tensor  # [U, P] flattened batch row of each position, 0 where there is none
    position: torch.Tensor  # [U, P] position within the sequence, -1 where there is none
    kv_start: torch.Tensor  # [U]
    num_keys: list[int]  # how many keys each unit may look at, ascending

    @classmethod
    def cut(cls, rows: Sequence[Rows], geometry: Geometry, device: torch.device) -> Units:
        """Cut sequences into units, short contexts first so that a block has units of like length."""
        width = max(1, TILE_ROWS // (geometry.num_heads // geometry.num_kv_heads))
        cut = [
            (run, begin, min(width, run.num_rows - begin)) for run in rows for begin in range(0, run.num_rows, width)
        ]
        cut.sort(key=lambda unit: unit[0].first_position + unit[1] + unit[2])
        row = torch.zeros(len(cut), width, dtype=torch.int64)
        position = torch.full((len(cut), width), -1, dtype=torch.int64)
        for place, (run, begin, count) in enumerate(cut):
            row[place, :count] = torch.arange(run.first_row + begin, run.first_row + begin + count)
            position[place, :count] = torch.arange(run.first_position + begin, run.first_position + begin + count)
        starts = torch.tensor([run.kv_start for run, _, _ in cut], dtype=torch.int64)
        num_keys = [run.first_position + begin + count for run, begin, count in cut]
        return cls(row.to(device), position.to(device), starts.to(device), num_keys)


def attend(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, units: Units, sliding_window: int | None
) -> torch.Tensor:
    """queries [T, heads, D], keys and values [arena, kv heads, D] -> [T, heads, D]."""
    out = torch.zeros_like(queries)
    kv_heads, head_dim = keys.shape[1:]
    unit_nbytes = KEY_TILE * kv_heads * head_dim * keys.element_size()
    size = max(1, BLOCK_NBYTES // unit_nbytes)
    for begin in range(0, len(units.num_keys), size):
        block = slice(begin, min(begin + size, len(units.num_keys)))
        _attend_block(out, queries, keys, values, units, block, sliding_window)
    return out


def _attend_block(
    out: torch.Tensor,
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    units: Units,
    block: slice,
    sliding_window: int | None,
) -> None:
    row, position, kv_start = units.row[block], units.position[block], units.kv_start[block]
    q, row_position = _fold(queries, row, position, keys.shape[1])  # [U * kv, R, D], [U, R]
    num_units, num_keys = row.shape[0], units.num_keys[block.stop - 1]
    last = position.amax(-1)  # the last key that a unit may read; gathers beyond it read this one, masked
    best = torch.full((q.shape[0], q.shape[1], 1), _NOWHERE, dtype=torch.float32, device=q.device)
    total, mixed = torch.zeros_like(best), torch.zeros(q.shape, dtype=torch.float32, device=q.device)
    scale = q.shape[-1] ** -0.5
    for tile in range(0, num_keys, KEY_TILE):
        place = torch.arange(tile, tile + KEY_TILE, device=q.device)
        where = kv_start[:, None] + torch.minimum(place, last[:, None])  # [U, S]
        k, v = _gather(keys, where), _gather(values, where)  # [U * kv, S, D]
        seen = (place <= row_position[:, :, None]) & (place > row_position[:, :, None] - _reach(sliding_window))
        mask = seen.repeat_interleave(keys.shape[1], 0)  # [U * kv, R, S]
        scores = (torch.bmm(q, k.transpose(1, 2)).float() * scale).masked_fill_(~mask, _NOWHERE)
        higher = torch.maximum(best, scores.amax(-1, keepdim=True))
        weights = torch.exp(scores - higher).masked_fill_(~mask, 0.0)
        fade = torch.exp(best - higher)
        total = total * fade + weights.sum(-1, keepdim=True)
        mixed = mixed * fade + torch.bmm(weights.to(v.dtype), v).float()
        best = higher
    _unfold(out, mixed / total.clamp_min(1e-30), row, position, num_units)


def _reach(sliding_window: int | None) -> int:
    return sliding_window if sliding_window is not None else 2**62


def _fold(
    queries: torch.Tensor, row: torch.Tensor, position: torch.Tensor, kv_heads: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Queries of a unit as one matrix per key head, rows (position, group), padded to whole tiles."""
    num_units, width = row.shape
    heads, head_dim = queries.shape[1:]
    groups = heads // kv_heads
    q = queries[row].view(num_units, width, kv_heads, groups, head_dim).transpose(1, 2)
    q = q.reshape(num_units * kv_heads, width * groups, head_dim)
    missing = -(width * groups) % TILE_ROWS
    row_position = torch.nn.functional.pad(position.repeat_interleave(groups, 1), (0, missing), value=-1)
    return torch.nn.functional.pad(q, (0, 0, 0, missing)), row_position


def _gather(cache: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
    num_units, tile = where.shape
    _, kv_heads, head_dim = cache.shape
    taken = cache.index_select(0, where.flatten()).view(num_units, tile, kv_heads, head_dim)
    return taken.transpose(1, 2).reshape(num_units * kv_heads, tile, head_dim)


def _unfold(out: torch.Tensor, mixed: torch.Tensor, row: torch.Tensor, position: torch.Tensor, num_units: int) -> None:
    width = row.shape[1]
    heads, head_dim = out.shape[1:]
    kv_heads = mixed.shape[0] // num_units
    groups = heads // kv_heads
    parts = mixed[:, : width * groups].view(num_units, kv_heads, width, groups, head_dim).transpose(1, 2)
    there = position >= 0
    out[row[there]] = parts.reshape(num_units, width, heads, head_dim)[there].to(out.dtype)
