"""The compiled products of bf16 rows: by registers for a few, by tiles for more, where the processor has them.

Knows pointers, and which kernel is right for what.  M = rows of x, N = rows of the matrix, K = columns.
"""

from __future__ import annotations

import ctypes

import torch

from rotary_batch.engine.compiling import function
from rotary_batch.engine.quant import Int4Matrix, Int8Matrix, Matrix, num_columns, num_rows

OUTPUTS, FEW_ROWS = 4, 4  # native_few.c: rows of a matrix, and of x, in registers
SIDE_ROWS, PANEL_ROWS = 16, 64  # native_tiles.c: rows of x in a tile, rows of a matrix in tiles at once
COLUMNS = 32  # of a register or a tile
# One row times int4 goes faster by torch's operator: 0.31 ms, by tiles 0.38 for [7168, 1024]; two rows 0.40 and 0.32.
LEAST_INT4_ROWS = 2


class Bf16Products:
    """The kernels of one library."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.has_registers, self.has_tiles = bool(library.multiplies_bf16()), bool(library.has_tiles())
        if self.has_registers:
            self._few_bf16 = function(library, "few_bf16", pointers=3, longs=3)
            self._few_int8 = function(library, "few_int8", pointers=4, longs=3)
        if self.has_tiles:
            self._tiles_bf16 = function(library, "tiles_bf16", pointers=4, longs=3)
            self._tiles_int8 = function(library, "tiles_int8", pointers=5, longs=3)
            self._tiles_int4 = function(library, "tiles_int4", pointers=6, longs=4)

    def takes(self, matrix: Matrix, rows: int) -> bool:
        """Whether this is the fastest way for so many rows, and the matrix lies in a way that the kernels know."""
        if num_columns(matrix) % COLUMNS:
            return False
        if isinstance(matrix, Int4Matrix):
            is_whole = matrix.nibbles.is_contiguous() and matrix.scale_zero.is_contiguous()
            return self.has_tiles and rows >= LEAST_INT4_ROWS and is_whole
        values, dtype = (matrix.values, torch.int8) if isinstance(matrix, Int8Matrix) else (matrix, torch.bfloat16)
        if values.dtype != dtype or not values.is_contiguous():
            return False
        if 0 < rows <= FEW_ROWS and self.has_registers:
            return num_rows(matrix) % OUTPUTS == 0
        return self.has_tiles and num_rows(matrix) % PANEL_ROWS == 0

    def linear(self, x: torch.Tensor, matrix: Matrix) -> torch.Tensor:
        """x [M, K] bf16 -> [M, N] bf16, for what `takes` takes."""
        assert (x.dtype, x.shape[1]) == (torch.bfloat16, num_columns(matrix)), "C would read past the end"
        x = x.contiguous()
        if isinstance(matrix, Int4Matrix):
            return self._int4(x, matrix)
        out = _room(len(x), num_rows(matrix))
        if isinstance(matrix, Int8Matrix):
            few, tiles, stored = self._few_int8, self._tiles_int8, [matrix.values.data_ptr(), matrix.scale.data_ptr()]
        else:
            few, tiles, stored = self._few_bf16, self._tiles_bf16, [matrix.data_ptr()]
        sizes = (*out.shape, x.shape[1], torch.get_num_threads())
        if len(x) <= FEW_ROWS and self.has_registers:
            few(*stored, x.data_ptr(), out.data_ptr(), *sizes)
        else:
            room = _room(*x.shape)  # named: it must live as long as the kernel writes there
            tiles(*stored, x.data_ptr(), room.data_ptr(), out.data_ptr(), *sizes)
        return out

    def _int4(self, x: torch.Tensor, matrix: Int4Matrix) -> torch.Tensor:
        out = _room(len(x), len(matrix.nibbles) * PANEL_ROWS)
        sums = x.view(len(x), -1, matrix.group).sum(-1, dtype=torch.float32)
        tensors = (matrix.nibbles, matrix.scale_zero, x, _room(*x.shape), out, sums)
        sizes = (*out.shape, x.shape[1], matrix.group, torch.get_num_threads())
        self._tiles_int4(*(tensor.data_ptr() for tensor in tensors), *sizes)
        return out[:, : matrix.num_rows]


def _room(rows: int, columns: int) -> torch.Tensor:
    """For so many rows, with memory for whole tiles behind them."""
    return torch.empty(-(-rows // SIDE_ROWS) * SIDE_ROWS, columns, dtype=torch.bfloat16)[:rows]
