"""Triton kernels that compute many experts in one launch.  Imported only where Triton is installed and CUDA is used.

Rows are sorted by expert.  `held` [n, 2] says which experts of the layer are in which slots, `offsets` [experts + 1]
which rows are whose.  A program multiplies all rows of one expert by one block of BLOCK of its weight rows, so every
weight is read and unpacked once, or once for every ROWS rows.  An expert without rows costs nothing.
"""

from __future__ import annotations

import triton
import triton.language as tl

from rotary_batch.engine.kernels.triton_ggml import ggml_weight

BLOCK: tl.constexpr = tl.constexpr(64)


@triton.jit
def _weights(
    slab,
    at,
    scale_at,
    block,
    begin,
    width,
    columns,
    group,
    scale_rows,
    KIND: tl.constexpr,
    SCALE: tl.constexpr,
    COLUMNS: tl.constexpr,
    NBYTES: tl.constexpr,
    TILE: tl.constexpr,
):
    """Columns `begin` to `begin` + TILE of block `block` of a matrix at byte `at` of a slab: float32 [TILE, BLOCK]."""
    lane = tl.arange(0, BLOCK)
    row = tl.minimum(block * BLOCK + lane, width - 1)[None, :]
    column = begin + tl.arange(0, TILE)[:, None]
    if KIND == "int4":  # low nibbles are rows 0 to 31 of a block, high ones rows 32 to 63
        byte = tl.load(slab + at + (block * columns + column) * 32 + lane[None, :] % 32)
        nibble = (byte.to(tl.int32) >> (lane[None, :] // 32 * 4)) & 15
        pair = begin // group * scale_rows + block * BLOCK + lane
        if SCALE == tl.bfloat16:  # both in one load: a bf16 is the upper half of a float32
            both = tl.load((slab + scale_at).to(tl.pointer_type(tl.int32)) + pair)
            scale, zero = (both << 16).to(tl.float32, bitcast=True), (both & -65536).to(tl.float32, bitcast=True)
        else:
            pairs = (slab + scale_at).to(tl.pointer_type(SCALE)) + pair * 2
            scale, zero = tl.load(pairs).to(tl.float32), tl.load(pairs + 1).to(tl.float32)
        weight = (nibble.to(tl.float32) - 8.0) * scale[None, :] + zero[None, :]
    elif KIND == "plain":
        numbers = (slab + at).to(tl.pointer_type(SCALE))
        weight = tl.load(numbers + row * columns + column, mask=column < columns, other=0.0).to(tl.float32)
    else:
        address = slab + at + (row * (columns // COLUMNS) + begin // COLUMNS) * NBYTES
        weight = ggml_weight(address, begin % COLUMNS + tl.arange(0, TILE)[:, None], KIND)
    return weight


@triton.jit
def gate_up_kernel(
    x,
    rows,
    out,
    memory,
    held,
    offsets,
    slot_nbytes,
    gate_at,
    gate_scale_at,
    up_at,
    up_scale_at,
    bias_at,
    width,
    columns,
    group,
    scale_rows,
    limit,
    alpha,
    KIND: tl.constexpr,
    SCALE: tl.constexpr,
    COLUMNS: tl.constexpr,
    NBYTES: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    CLAMPED: tl.constexpr,
    ROWS: tl.constexpr,
    TILE: tl.constexpr,
):
    """SwiGLU of x [T, columns]: row `rows[n]` of x by the expert that row n of `out` [A, width] belongs to."""
    entry, block = held + tl.program_id(0) * 2, tl.program_id(1)
    expert, slab = tl.load(entry), memory + tl.load(entry + 1).to(tl.int64) * slot_nbytes
    first, last = tl.load(offsets + expert).to(tl.int32), tl.load(offsets + expert + 1).to(tl.int32)
    lane, tile = block * BLOCK + tl.arange(0, BLOCK), tl.arange(0, TILE)
    for start in range(first, last, ROWS):
        place = start + tl.arange(0, ROWS)
        is_row = place < last
        source = tl.load(rows + place, mask=is_row, other=0)
        gate = tl.zeros((ROWS, BLOCK), tl.float32)
        up = tl.zeros((ROWS, BLOCK), tl.float32)
        for begin in range(0, columns, TILE):
            column = begin + tile
            mask = is_row[:, None] & (column < columns)[None, :]
            inputs = tl.load(x + source[:, None] * columns + column[None, :], mask=mask, other=0.0)
            weight = _weights(
                slab, gate_at, gate_scale_at, block, begin, width, columns, group, scale_rows,
                KIND, SCALE, COLUMNS, NBYTES, TILE,
            )  # fmt: skip
            gate += tl.dot(inputs, weight.to(inputs.dtype))
            weight = _weights(
                slab, up_at, up_scale_at, block, begin, width, columns, group, scale_rows,
                KIND, SCALE, COLUMNS, NBYTES, TILE,
            )  # fmt: skip
            up += tl.dot(inputs, weight.to(inputs.dtype))
        if HAS_BIAS:
            bias = (slab + bias_at).to(tl.pointer_type(tl.float32)) + lane
            gate += tl.load(bias, mask=lane < width, other=0.0)[None, :]
            up += tl.load(bias + width, mask=lane < width, other=0.0)[None, :]
        if CLAMPED:
            gate = tl.minimum(gate, limit)
            up = tl.minimum(tl.maximum(up, -limit), limit) + 1.0
            gate = gate / (1.0 + tl.exp(-alpha * gate))
        else:
            gate = gate / (1.0 + tl.exp(-gate))
        target = out + place.to(tl.int64)[:, None] * width + lane[None, :]
        tl.store(target, (gate * up).to(out.dtype.element_ty), mask=is_row[:, None] & (lane < width)[None, :])


@triton.jit(do_not_specialize=["num_rows"])
def down_kernel(
    x,
    out,
    memory,
    held,
    offsets,
    num_rows,
    slot_nbytes,
    at,
    scale_at,
    bias_at,
    width,
    columns,
    group,
    scale_rows,
    split_columns,
    KIND: tl.constexpr,
    SCALE: tl.constexpr,
    COLUMNS: tl.constexpr,
    NBYTES: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    ROWS: tl.constexpr,
    TILE: tl.constexpr,
):
    """x [A, columns] by the expert that each row belongs to, over split `program_id(2)` of the columns.

    out [splits, A, width]; `num_rows` is A.
    """
    entry, block, split = held + tl.program_id(0) * 2, tl.program_id(1), tl.program_id(2)
    expert, slab = tl.load(entry), memory + tl.load(entry + 1).to(tl.int64) * slot_nbytes
    first, last = tl.load(offsets + expert).to(tl.int32), tl.load(offsets + expert + 1).to(tl.int32)
    lane, tile = block * BLOCK + tl.arange(0, BLOCK), tl.arange(0, TILE)
    for start in range(first, last, ROWS):
        place = (start + tl.arange(0, ROWS)).to(tl.int64)
        is_row = place < last
        total = tl.zeros((ROWS, BLOCK), tl.float32)
        for begin in range(split * split_columns, tl.minimum((split + 1) * split_columns, columns), TILE):
            column = begin + tile
            mask = is_row[:, None] & (column < columns)[None, :]
            inputs = tl.load(x + place[:, None] * columns + column[None, :], mask=mask, other=0.0)
            weight = _weights(
                slab, at, scale_at, block, begin, width, columns, group, scale_rows,
                KIND, SCALE, COLUMNS, NBYTES, TILE,
            )  # fmt: skip
            total += tl.dot(inputs, weight.to(inputs.dtype))
        if HAS_BIAS:
            bias = (slab + bias_at).to(tl.pointer_type(tl.float32)) + lane
            total += tl.load(bias, mask=(lane < width) & (lane >= width * split), other=0.0)[None, :]
        target = out + (split.to(tl.int64) * num_rows + place)[:, None] * width + lane[None, :]
        tl.store(target, total.to(out.dtype.element_ty), mask=is_row[:, None] & (lane < width)[None, :])


@triton.jit(do_not_specialize=["num_rows"])
def combine_kernel(
    expert_out, assignments, weights, out, num_rows, width, splits, TOP_K: tl.constexpr, TILE: tl.constexpr
):
    """Row `program_id(0)` of out [T, width]: the weighted sum of its experts' rows of expert_out [splits, A, width]."""
    row, lane = tl.program_id(0).to(tl.int64), tl.program_id(1) * TILE + tl.arange(0, TILE)
    total = tl.zeros((TILE,), tl.float32)
    for choice in range(TOP_K):
        place = tl.load(assignments + row * TOP_K + choice)
        part = tl.zeros((TILE,), tl.float32)
        for split in range(splits):
            source = expert_out + (split * num_rows + place) * width + lane
            part += tl.load(source, mask=lane < width, other=0.0).to(tl.float32)
        total += part * tl.load(weights + row * TOP_K + choice)
    tl.store(out + row * width + lane, total.to(out.dtype.element_ty), mask=lane < width)
