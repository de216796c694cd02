"""The Triton kernels.  Imported only where Triton is installed and a CUDA device is used."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def dequant_int4_kernel(nibbles, scale_zero, out, columns, rows, group, group_stride, TILE: tl.constexpr):
    """Block `program_id(0)` of 64 rows, TILE of its columns: bytes -> out[column, row]."""
    block, column = tl.program_id(0), tl.program_id(1) * TILE + tl.arange(0, TILE)
    lane = tl.arange(0, 32)
    in_bounds = (column < columns)[:, None]
    byte = tl.load(nibbles + (block * columns + column)[:, None] * 32 + lane[None, :], mask=in_bounds, other=0)
    for half in tl.static_range(2):
        nibble = (byte >> 4) if half else (byte & 15)
        row = block * 64 + half * 32 + lane
        pair = scale_zero + (column // group)[:, None] * group_stride + row[None, :] * 2
        scale = tl.load(pair, mask=in_bounds, other=0.0).to(tl.float32)
        zero = tl.load(pair + 1, mask=in_bounds, other=0.0).to(tl.float32)
        weight = (nibble.to(tl.float32) - 8.0) * scale + zero
        tl.store(out + column[:, None] * rows + row[None, :], weight.to(out.dtype.element_ty), mask=in_bounds)


@triton.jit(do_not_specialize=["num_rows"])  # it would be compiled three times otherwise
def int4_gemm_kernel(
    x,
    nibbles,
    scale_zero,
    out,
    num_rows,
    columns,
    group,
    group_stride,
    width,
    split_columns,
    ROWS: tl.constexpr,
    TILE: tl.constexpr,
):
    """A few rows of x times block `program_id(0)` of 64 weight rows, over split `program_id(1)` of the columns.

    x [num_rows, columns]; out [splits, num_rows, width].  Weights are rounded as dequant_int4_kernel rounds them.
    The TILE columns of a step share a scale.
    """
    block, split = tl.program_id(0), tl.program_id(1)
    row, tile_column, lane = tl.arange(0, ROWS), tl.arange(0, TILE), tl.arange(0, 32)
    row_in_bounds = (row < num_rows)[:, None]
    low_sums = tl.zeros((ROWS, 32), tl.float32)
    high_sums = tl.zeros((ROWS, 32), tl.float32)
    block_pairs = scale_zero + (block * 64 + lane) * 2
    for offset in range(0, split_columns, TILE):
        begin = split * split_columns + offset
        column = begin + tile_column
        in_bounds = column < columns
        x_tile = tl.load(
            x + row[:, None] * columns + column[None, :], mask=row_in_bounds & in_bounds[None, :], other=0.0
        )
        byte = tl.load(
            nibbles + (block * columns + column)[:, None] * 32 + lane[None, :], mask=in_bounds[:, None], other=0
        )
        pair = block_pairs + tl.minimum(begin, columns - 1) // group * group_stride
        scale, zero = tl.load(pair).to(tl.float32), tl.load(pair + 1).to(tl.float32)
        weight = ((byte & 15).to(tl.float32) - 8.0) * scale[None, :] + zero[None, :]
        low_sums += tl.dot(x_tile, weight.to(x_tile.dtype))
        scale, zero = tl.load(pair + 64).to(tl.float32), tl.load(pair + 65).to(tl.float32)
        weight = ((byte >> 4).to(tl.float32) - 8.0) * scale[None, :] + zero[None, :]
        high_sums += tl.dot(x_tile, weight.to(x_tile.dtype))
    target = out + (split * num_rows + row)[:, None] * width + block * 64 + lane[None, :]
    tl.store(target, low_sums.to(out.dtype.element_ty), mask=row_in_bounds)
    tl.store(target + 32, high_sums.to(out.dtype.element_ty), mask=row_in_bounds)


# without specialisation, because the offsets of every layer would be compiled separately
@triton.jit(do_not_specialize=["device_offset", "host_offset", "device_tokens"])
def decode_attention_kernel(
    queries,
    keys,
    key_scales,
    values,
    value_scales,
    sinks,
    out,
    segments,
    device_offset,
    host_offset,
    device_tokens,
    scale,
    kv_heads,
    groups,
    window,
    DIM: tl.constexpr,
    ROWS: tl.constexpr,
    TILE: tl.constexpr,
    SCALED: tl.constexpr,
    HAS_SINKS: tl.constexpr,
):
    """Segment `program_id(0)`, KV head `program_id(1)`: its rows attend to its prefix and its own KV.

    queries and out [T, kv heads * groups, DIM]; keys and values [tokens, kv heads, DIM]; scales, which are read when
    SCALED, [tokens, kv heads]; sinks, which are read when HAS_SINKS, [kv heads * groups].  The KV index of a token is
    offset by `device_offset` if it is below `device_tokens`, otherwise by `host_offset`.
    segments [n, 6]: first row, rows, first position, start of the own KV, start and length of the prefix.
    Online softmax in float32 (arXiv 1805.02867).
    """
    segment, head = segments + tl.program_id(0) * 6, tl.program_id(1)
    first_row, num_rows, first_position = tl.load(segment), tl.load(segment + 1), tl.load(segment + 2)
    kv_start, prefix_start, prefix_tokens = tl.load(segment + 3), tl.load(segment + 4), tl.load(segment + 5)
    kv_start += tl.where(kv_start < device_tokens, device_offset, host_offset)
    prefix_start += device_offset
    row, dim = tl.arange(0, ROWS), tl.arange(0, DIM)
    position = first_position + row // groups
    is_row = row < num_rows * groups
    query = (first_row + row // groups) * kv_heads * groups + head * groups + row % groups
    q = tl.load(queries + query[:, None] * DIM + dim[None, :], mask=is_row[:, None], other=0.0)
    row_max = tl.full((ROWS,), -1.0e30, tl.float32)
    row_sum = tl.zeros((ROWS,), tl.float32)
    acc = tl.zeros((ROWS, DIM), tl.float32)
    num_kv_tokens = first_position + num_rows
    for begin in range(0, num_kv_tokens, TILE):
        token = begin + tl.arange(0, TILE)
        in_bounds = token < num_kv_tokens
        index = tl.where(token < prefix_tokens, prefix_start + token, kv_start + token - prefix_tokens)
        kv_row = index.to(tl.int64) * kv_heads + head
        k = tl.load(keys + kv_row[:, None] * DIM + dim[None, :], mask=in_bounds[:, None], other=0).to(q.dtype)
        scores = tl.dot(q, tl.trans(k)).to(tl.float32) * scale
        if SCALED:
            scores *= tl.load(key_scales + kv_row, mask=in_bounds, other=0.0)[None, :]
        in_window = (token[None, :] <= position[:, None]) & (token[None, :] > position[:, None] - window)
        visible = in_bounds[None, :] & in_window
        scores = tl.where(visible, scores, -1.0e30)
        new_max = tl.maximum(row_max, tl.max(scores, 1))
        weights = tl.where(visible, tl.exp(scores - new_max[:, None]), 0.0)
        rescale = tl.exp(row_max - new_max)
        v = tl.load(values + kv_row[:, None] * DIM + dim[None, :], mask=in_bounds[:, None], other=0).to(q.dtype)
        row_sum = row_sum * rescale + tl.sum(weights, 1)
        if SCALED:
            weights *= tl.load(value_scales + kv_row, mask=in_bounds, other=0.0)[None, :]
        acc = acc * rescale[:, None] + tl.dot(weights.to(q.dtype), v).to(tl.float32)
        row_max = new_max
    if HAS_SINKS:  # the logit of one more token, whose value is zero
        sink = tl.load(sinks + head * groups + row % groups).to(tl.float32)
        new_max = tl.maximum(row_max, sink)
        rescale = tl.exp(row_max - new_max)
        row_sum = row_sum * rescale + tl.exp(sink - new_max)
        acc = acc * rescale[:, None]
    acc = acc / tl.maximum(row_sum, 1.0e-30)[:, None]
    tl.store(out + query[:, None] * DIM + dim[None, :], acc.to(q.dtype), mask=is_row[:, None])
