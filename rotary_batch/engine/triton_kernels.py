"""The kernels themselves.  Imported only where Triton is installed and a CUDA device is used."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def unpack_int4_kernel(nibbles, scale_zero, out, columns, rows, group, group_stride, TILE: tl.constexpr):  # noqa: ANN001, ANN201, N803, PLR0913
    """Block `program_id(0)` of 64 rows, TILE of its columns: bytes -> out[column, row], bf16."""
    block, column = tl.program_id(0), tl.program_id(1) * TILE + tl.arange(0, TILE)
    lane = tl.arange(0, 32)
    there = (column < columns)[:, None]
    byte = tl.load(nibbles + (block * columns + column)[:, None] * 32 + lane[None, :], mask=there, other=0)
    for half in tl.static_range(2):
        nibble = (byte >> 4) if half else (byte & 15)
        row = block * 64 + half * 32 + lane
        pair = scale_zero + (column // group)[:, None] * group_stride + row[None, :] * 2
        scale = tl.load(pair, mask=there, other=0.0).to(tl.float32)
        zero = tl.load(pair + 1, mask=there, other=0.0).to(tl.float32)
        weight = (nibble.to(tl.float32) - 8.0) * scale + zero
        tl.store(out + column[:, None] * rows + row[None, :], weight.to(tl.bfloat16), mask=there)
