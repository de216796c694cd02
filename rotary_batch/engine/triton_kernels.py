"""The kernels themselves.  Imported only where Triton is installed and a CUDA device is used."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def unpack_int4_kernel(nibbles, scale_zero, out, columns, rows, group, group_stride, TILE: tl.constexpr):  # noqa: ANN001, ANN201, N803, PLR0913
    """Block `program_id(0)` of 64 rows, TILE of its columns: bytes -> out[column, row]."""
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
        tl.store(out + column[:, None] * rows + row[None, :], weight.to(out.dtype.element_ty), mask=there)


@triton.jit
def decode_int8_kernel(  # noqa: ANN201, PLR0913
    queries, keys, key_scales, values, value_scales, out, spans,  # noqa: ANN001
    scale, kv_heads, groups, window,  # noqa: ANN001
    DIM: tl.constexpr, ROWS: tl.constexpr, TILE: tl.constexpr,  # noqa: N803
):  # fmt: skip
    """Sequence `program_id(0)`, key head `program_id(1)`: its few rows over its prefix and its own int8 keys.

    queries and out [T, kv heads * groups, DIM]; keys and values [tokens, kv heads, DIM] int8, their scales without DIM.
    spans [sequences, 6]: first row, rows, first position, start of the own keys, start and length of the prefix.
    Running softmax in float32 (arXiv 1805.02867).
    """
    span, head = spans + tl.program_id(0) * 6, tl.program_id(1)
    first_row, num_rows, first_position = tl.load(span), tl.load(span + 1), tl.load(span + 2)
    kv_start, prefix_start, prefix = tl.load(span + 3), tl.load(span + 4), tl.load(span + 5)
    row, dim = tl.arange(0, ROWS), tl.arange(0, DIM)
    position = first_position + row // groups
    there = row < num_rows * groups
    place = (first_row + row // groups) * kv_heads * groups + head * groups + row % groups
    q = tl.load(queries + place[:, None] * DIM + dim[None, :], mask=there[:, None], other=0.0)
    best = tl.full((ROWS,), -1.0e30, tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    mixed = tl.zeros((ROWS, DIM), tl.float32)
    num_keys = first_position + num_rows
    for begin in range(0, num_keys, TILE):
        key = begin + tl.arange(0, TILE)
        inside = key < num_keys
        home = tl.where(key < prefix, prefix_start + key, kv_start + key - prefix).to(tl.int64) * kv_heads + head
        k = tl.load(keys + home[:, None] * DIM + dim[None, :], mask=inside[:, None], other=0).to(q.dtype)
        k_scale = tl.load(key_scales + home, mask=inside, other=0.0)
        scores = tl.dot(q, tl.trans(k)).to(tl.float32) * k_scale[None, :] * scale
        seen = inside[None, :] & (key[None, :] <= position[:, None]) & (key[None, :] > position[:, None] - window)
        scores = tl.where(seen, scores, -1.0e30)
        higher = tl.maximum(best, tl.max(scores, 1))
        weights = tl.where(seen, tl.exp(scores - higher[:, None]), 0.0)
        fade = tl.exp(best - higher)
        v = tl.load(values + home[:, None] * DIM + dim[None, :], mask=inside[:, None], other=0).to(q.dtype)
        v_scale = tl.load(value_scales + home, mask=inside, other=0.0)
        total = total * fade + tl.sum(weights, 1)
        mixed = mixed * fade[:, None] + tl.dot((weights * v_scale[None, :]).to(q.dtype), v).to(tl.float32)
        best = higher
    found = mixed / tl.maximum(total, 1.0e-30)[:, None]
    tl.store(out + place[:, None] * DIM + dim[None, :], found.to(q.dtype), mask=there[:, None])
