"""Matrices as they are stored: plain, int8, int4; made when packing, unpacked when used.

Knows values, scales and nibbles (the formats are written down in model/slabs.py); knows nothing of slabs in
files or of which matmul is fastest.  N = rows (output channels), K = columns, G = groups of columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch

from rotary_batch.model.slabs import BLOCK_ROWS, group_columns, padded_rows

HALF_ROWS = BLOCK_ROWS // 2
ENCODE_ROWS = 16 * BLOCK_ROWS
_TINY = 1e-8  # stands in for the scale of a row of zeros


class Int8Matrix(NamedTuple):
    """weight[n, k] = values[n, k] * scale[n]."""

    values: torch.Tensor  # [N, K] int8
    scale: torch.Tensor  # [N] float32

    @property
    def num_rows(self) -> int:
        """N."""
        return self.values.shape[0]


class Int4Matrix(NamedTuple):
    """weight[n, k] = (nibble[n, k] - 8) * scale[g, n] + zero[g, n] with g the group of column k."""

    nibbles: torch.Tensor  # [blocks, K, 32] uint8; low nibble = row j of the block, high = row j + 32
    scale_zero: torch.Tensor  # [G, padded N, 2] bf16
    num_rows: int

    @property
    def group(self) -> int:
        """Columns that share a scale."""
        return self.nibbles.shape[1] // self.scale_zero.shape[0]


Matrix = torch.Tensor | Int8Matrix | Int4Matrix


def num_rows(matrix: Matrix) -> int:
    """Output channels of a stored matrix."""
    return matrix.shape[0] if isinstance(matrix, torch.Tensor) else matrix.num_rows


def num_columns(matrix: Matrix) -> int:
    """Input channels of a stored matrix."""
    if isinstance(matrix, torch.Tensor):
        return matrix.shape[1]
    return (matrix.values if isinstance(matrix, Int8Matrix) else matrix.nibbles).shape[1]


def encode(weight: torch.Tensor, stored_as: str) -> dict[str, torch.Tensor]:
    """The stored parts of a matrix [N, K] by the suffixes of model/slabs.py; bf16 keeps the bits it came with.

    Works on ENCODE_ROWS rows at a time: in float32 an expert of Mixtral 8x22B would take 1.2 GB at once.
    """
    if stored_as == "bf16":
        return {"": weight}
    if stored_as == "int8":
        runs = [_encode_int8(rows) for rows in torch.split(weight, ENCODE_ROWS)]
        return {name: torch.cat([run[name] for run in runs]) for name in runs[0]}
    runs = [_encode_int4(rows) for rows in torch.split(weight, ENCODE_ROWS)]
    scale_zero = torch.cat([run[".scale_zero"] for run in runs], 1)
    return {"": torch.cat([run[""] for run in runs]), ".scale_zero": scale_zero}


def matrix_from(parts: Mapping[str, torch.Tensor], rows: int) -> Matrix:
    """The matrix that stored parts make."""
    if ".scale" in parts:
        return Int8Matrix(parts[""], parts[".scale"])
    if ".scale_zero" in parts:
        return Int4Matrix(parts[""], parts[".scale_zero"], rows)
    return parts[""]


def _encode_int8(weight: torch.Tensor) -> dict[str, torch.Tensor]:
    wide = weight.float()
    scale = (wide.abs().amax(1) / 127).clamp_min(_TINY)
    return {"": (wide / scale[:, None]).round().clamp(-127, 127).to(torch.int8), ".scale": scale}


def _encode_int4(weight: torch.Tensor) -> dict[str, torch.Tensor]:
    rows, columns = weight.shape
    group, stored = group_columns(columns), padded_rows(rows)
    wide = torch.nn.functional.pad(weight.float(), (0, 0, 0, stored - rows)).view(stored, -1, group)
    low, high = wide.amin(-1), wide.amax(-1)
    scale = ((high - low) / 15).clamp_min(_TINY).bfloat16()
    zero = (low + 8 * scale.float()).bfloat16()
    # rounded against the scale and zero as they are stored, so that their own rounding costs nothing twice
    nibble = ((wide - zero.float()[..., None]) / scale.float()[..., None]).round().add(8).clamp(0, 15)
    halves = nibble.view(-1, 2, HALF_ROWS, columns).to(torch.uint8)
    nibbles = (halves[:, 0] | (halves[:, 1] << 4)).transpose(1, 2).contiguous()
    return {"": nibbles, ".scale_zero": torch.stack([scale.T, zero.T], -1).contiguous()}


def decode(matrix: Matrix, out: torch.Tensor) -> torch.Tensor:
    """Unpack into `out` [N, K] of any float dtype, the straightforward way: the reference for everything faster."""
    if isinstance(matrix, torch.Tensor):
        return out.copy_(matrix)
    if isinstance(matrix, Int8Matrix):
        return out.copy_(matrix.values).mul_(matrix.scale[:, None])
    for block, columns in enumerate(_unpack(matrix.nibbles)):
        rows = slice(block * BLOCK_ROWS, min((block + 1) * BLOCK_ROWS, matrix.num_rows))
        scale_zero = matrix.scale_zero[:, rows].float().repeat_interleave(matrix.group, 0)  # [K, rows, 2]
        there = columns[:, : rows.stop - rows.start]
        out[rows] = ((there - 8) * scale_zero[..., 0] + scale_zero[..., 1]).T
    return out


def _unpack(nibbles: torch.Tensor) -> list[torch.Tensor]:
    """Blocks of [K, 64] float32."""
    return [torch.cat([block & 15, block >> 4], -1).float() for block in nibbles]
