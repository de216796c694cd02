"""Quantised weights between file and pack: rows and columns are chosen, and matrices stacked, before they are stored.

N = rows, K = columns, G = groups of columns.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from rotary_batch.engine.kernels.matrices import Fp8Matrix, GgmlMatrix, Int4Matrix, Int8GroupMatrix
from rotary_batch.engine.packs.quantised.source import num_groups
from rotary_batch.model.ggml_types import BLOCK_TYPES
from rotary_batch.model.slabs import BLOCK_ROWS, padded_rows

MIDDLE = 8  # the code that stands for zero in symmetric 4 bits
_PAIRS = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}
_HALF_ROWS = BLOCK_ROWS // 2


class Codes(NamedTuple):
    """weight[n, k] = (codes[n, k] - zero_points[n, g]) * scale[n, g] with g = k // group; the last may be short."""

    codes: torch.Tensor  # [N, K] uint8
    scale: torch.Tensor  # [N, G] bf16, float16 or float32
    zero_points: torch.Tensor  # [N, G] uint8
    group: int

    def regrouped(self, group: int) -> Codes:
        """In groups that cut these evenly: scales are repeated."""
        groups, times = self.codes.shape[1] // group, self.group // group
        scale, zeros = (part.repeat_interleave(times, 1)[:, :groups] for part in (self.scale, self.zero_points))
        return Codes(self.codes, scale, zeros, group)

    def rows(self, chosen: slice | torch.Tensor) -> Codes:
        """Some of the rows."""
        return Codes(self.codes[chosen], self.scale[chosen], self.zero_points[chosen], self.group)

    def columns(self, begin: int, end: int) -> Codes:
        """Columns from `begin` to before `end`, whole groups."""
        groups = slice(begin // self.group, end // self.group)
        return Codes(self.codes[:, begin:end], self.scale[:, groups], self.zero_points[:, groups], self.group)


Weights = Codes | Fp8Matrix | GgmlMatrix
Stored = Int4Matrix | Int8GroupMatrix | Fp8Matrix | GgmlMatrix


def stored(weights: Weights, stored_as: str) -> Stored:
    """The weights as `stored_as` says; its groups and blocks are theirs already."""
    if not isinstance(weights, Codes):
        return weights
    if stored_as.startswith("int8:"):
        return Int8GroupMatrix((weights.codes ^ 0x80).contiguous().view(torch.int8), weights.scale.contiguous())
    return _int4_matrix(weights, _PAIRS[stored_as.split(":")[2]])


def _int4_matrix(weights: Codes, pair: torch.dtype) -> Int4Matrix:
    """Blocks of 64 rows (model/slabs.py), each group's scale and zero in the type `pair`."""
    rows, columns = weights.codes.shape
    missing, pad = padded_rows(rows) - rows, torch.nn.functional.pad
    codes = pad(weights.codes, (0, 0, 0, missing)) if missing else weights.codes.contiguous()  # pad copies in any case
    halves = codes.view(-1, 2, _HALF_ROWS, columns)
    nibbles = (halves[:, 0] | (halves[:, 1] << 4)).transpose(1, 2).contiguous()
    scale = weights.scale.float()
    both = torch.stack([scale, scale * (MIDDLE - weights.zero_points.float())], -1)  # [N, G, 2]
    return Int4Matrix(nibbles, pad(both, (0, 0, 0, 0, 0, missing)).transpose(0, 1).to(pair).contiguous(), rows)


def stacked(first: Weights, second: Weights) -> Weights:
    """The rows of both, which have equal groups and blocks."""
    if isinstance(first, Codes) and isinstance(second, Codes):
        codes, scale, zeros = (torch.cat(pair) for pair in zip(first[:3], second[:3], strict=True))
        return Codes(codes, scale, zeros, first.group)
    if isinstance(first, Fp8Matrix) and isinstance(second, Fp8Matrix):
        values, scale = (torch.cat(pair) for pair in zip(first[:2], second[:2], strict=True))
        return Fp8Matrix(values, scale, first.block)
    assert isinstance(first, GgmlMatrix)
    assert isinstance(second, GgmlMatrix)
    return GgmlMatrix(torch.cat([first.blocks, second.blocks]), first.type_name)


def regrouped(weights: Weights, stored_as: str) -> Weights:
    """With the groups or blocks of `stored_as`, which cut those of the file evenly."""
    parameters = stored_as.split(":")[1]
    if isinstance(weights, Codes):
        return weights.regrouped(int(parameters))
    if isinstance(weights, Fp8Matrix):
        (rows, columns), block, scale = weights.values.shape, [], weights.scale
        for dim, side in enumerate(parameters.split("x")):
            block.append(int(side) or weights.values.shape[dim])
            scale = scale.repeat_interleave(-(-weights.block[dim] // block[dim]), dim)
        scale = scale[: num_groups(rows, block[0]), : num_groups(columns, block[1])]
        return Fp8Matrix(weights.values, scale, (block[0], block[1]))
    return weights


def some_rows(weights: Weights, chosen: slice) -> Weights:
    """Some of the rows; of FP8 whole blocks of them."""
    if isinstance(weights, Fp8Matrix) and weights.block[0] > 1:  # `rows` would give each row scales of its own
        blocks = slice(chosen.start // weights.block[0], num_groups(chosen.stop, weights.block[0]))
        return Fp8Matrix(weights.values[chosen], weights.scale[blocks], weights.block)
    return weights.rows(chosen)


def some_columns(weights: Weights, begin: int, end: int) -> Weights:
    """Columns from `begin` to before `end`: whole groups or blocks."""
    if isinstance(weights, Codes):
        return weights.columns(begin, end)
    if isinstance(weights, Fp8Matrix):
        blocks = slice(begin // weights.block[1], num_groups(end, weights.block[1]))
        block = (weights.block[0], min(weights.block[1], end - begin))
        return Fp8Matrix(weights.values[:, begin:end].contiguous(), weights.scale[:, blocks], block)
    kind = BLOCK_TYPES[weights.type_name]
    return GgmlMatrix(weights.blocks[:, kind.row_nbytes(begin) : kind.row_nbytes(end)].contiguous(), weights.type_name)
