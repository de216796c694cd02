"""The kernels themselves.  Imported only where Triton is installed and a CUDA device is used."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def unpack_int4_kernel(nibbles, scale_zero, out, columns, rows, group, group_stride, TILE: tl.constexpr):
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


@triton.jit(do_not_specialize=["num_rows"])  # else it is compiled three times
def int4_product_kernel(
    x,
    nibbles,
    scale_zero,
    out,
    num_rows,
    columns,
    group,
    group_stride,
    width,
    part_columns,
    ROWS: tl.constexpr,
    TILE: tl.constexpr,
):
    """Few rows of x times block `program_id(0)` of 64 weight rows, over part `program_id(1)` of the columns.

    x [num_rows, columns]; out [parts, num_rows, width].  Weights are rounded as unpack_int4_kernel rounds them.
    TILE columns have one scale.
    """
    block, part = tl.program_id(0), tl.program_id(1)
    row, step, lane = tl.arange(0, ROWS), tl.arange(0, TILE), tl.arange(0, 32)
    there = (row < num_rows)[:, None]
    low = tl.zeros((ROWS, 32), tl.float32)
    high = tl.zeros((ROWS, 32), tl.float32)
    pairs = scale_zero + (block * 64 + lane) * 2
    for offset in range(0, part_columns, TILE):
        begin = part * part_columns + offset
        column = begin + step
        inside = column < columns
        rows = tl.load(x + row[:, None] * columns + column[None, :], mask=there & inside[None, :], other=0.0)
        byte = tl.load(
            nibbles + (block * columns + column)[:, None] * 32 + lane[None, :], mask=inside[:, None], other=0
        )
        pair = pairs + tl.minimum(begin, columns - 1) // group * group_stride
        scale, zero = tl.load(pair).to(tl.float32), tl.load(pair + 1).to(tl.float32)
        weight = ((byte & 15).to(tl.float32) - 8.0) * scale[None, :] + zero[None, :]
        low += tl.dot(rows, weight.to(rows.dtype))
        scale, zero = tl.load(pair + 64).to(tl.float32), tl.load(pair + 65).to(tl.float32)
        weight = ((byte >> 4).to(tl.float32) - 8.0) * scale[None, :] + zero[None, :]
        high += tl.dot(rows, weight.to(rows.dtype))
    place = out + (part * num_rows + row)[:, None] * width + block * 64 + lane[None, :]
    tl.store(place, low.to(out.dtype.element_ty), mask=there)
    tl.store(place + 32, high.to(out.dtype.element_ty), mask=there)


@triton.jit(do_not_specialize=["staying", "visiting", "device_tokens"])  # else compiled for every kind of layer
def decode_kernel(
    queries,
    keys,
    key_scales,
    values,
    value_scales,
    out,
    spans,
    staying,
    visiting,
    device_tokens,
    scale,
    kv_heads,
    groups,
    window,
    DIM: tl.constexpr,
    ROWS: tl.constexpr,
    TILE: tl.constexpr,
    SCALED: tl.constexpr,
):
    """Sequence `program_id(0)`, key head `program_id(1)`: its few rows over its prefix and its own keys.

    queries and out [T, kv heads * groups, DIM]; keys and values [rows, kv heads, DIM]; SCALED: their scales are
    without DIM.  A place below `device_tokens` is found `staying` rows further on, one above `visiting` rows.
    spans [sequences, 6]: first row, rows, first position, start of the own keys, start and length of the prefix.
    Running softmax in float32 (arXiv 1805.02867).
    """
    span, head = spans + tl.program_id(0) * 6, tl.program_id(1)
    first_row, num_rows, first_position = tl.load(span), tl.load(span + 1), tl.load(span + 2)
    kv_start, prefix_start, prefix = tl.load(span + 3), tl.load(span + 4), tl.load(span + 5)
    kv_start += tl.where(kv_start < device_tokens, staying, visiting)
    prefix_start += staying
    row, dim = tl.arange(0, ROWS), tl.arange(0, DIM)
    position = first_position + row // groups
    there = row < num_rows * groups
    place = (first_row + row // groups) * kv_heads * groups + head * groups + row % groups
    q = tl.load(queries + place[:, None] * DIM + dim[None, :], mask=there[:, None], other=0.0)
    best = tl.full((ROWS,), -1.0e30, tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    mixed = tl.zeros((ROWS, DIM), tl.float32)
    num_kv_tokens = first_position + num_rows
    for begin in range(0, num_kv_tokens, TILE):
        key = begin + tl.arange(0, TILE)
        inside = key < num_kv_tokens
        home = tl.where(key < prefix, prefix_start + key, kv_start + key - prefix).to(tl.int64) * kv_heads + head
        k = tl.load(keys + home[:, None] * DIM + dim[None, :], mask=inside[:, None], other=0).to(q.dtype)
        scores = tl.dot(q, tl.trans(k)).to(tl.float32) * scale
        if SCALED:
            scores *= tl.load(key_scales + home, mask=inside, other=0.0)[None, :]
        seen = inside[None, :] & (key[None, :] <= position[:, None]) & (key[None, :] > position[:, None] - window)
        scores = tl.where(seen, scores, -1.0e30)
        higher = tl.maximum(best, tl.max(scores, 1))
        weights = tl.where(seen, tl.exp(scores - higher[:, None]), 0.0)
        fade = tl.exp(best - higher)
        v = tl.load(values + home[:, None] * DIM + dim[None, :], mask=inside[:, None], other=0).to(q.dtype)
        total = total * fade + tl.sum(weights, 1)
        if SCALED:
            weights *= tl.load(value_scales + home, mask=inside, other=0.0)[None, :]
        mixed = mixed * fade[:, None] + tl.dot(weights.to(q.dtype), v).to(tl.float32)
        best = higher
    found = mixed / tl.maximum(total, 1.0e-30)[:, None]
    tl.store(out + place[:, None] * DIM + dim[None, :], found.to(q.dtype), mask=there[:, None])
