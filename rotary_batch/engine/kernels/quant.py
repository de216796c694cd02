"""The arithmetic of stored matrices: quantised when packing, dequantised when used.

model/slabs.py specifies the formats, matrices.py has the types.  N = rows (output channels), K = columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

import torch

from rotary_batch.config import EXPERT_FORMATS
from rotary_batch.engine.kernels.ggml import PLAIN_DTYPES, dequantise_blocks
from rotary_batch.engine.kernels.matrices import (
    Fp8Matrix,
    GgmlMatrix,
    Int4Matrix,
    Int8GroupMatrix,
    Int8Matrix,
    Matrix,
    OrderedMatrix,
    num_columns,
    num_rows,
    rows_of,
)
from rotary_batch.model.footprint import UNPACKED_NUMBERS
from rotary_batch.model.slabs import BLOCK_ROWS, fp8_block, group_columns, padded_rows, parse_stored_as

HALF_ROWS = BLOCK_ROWS // 2
QUANTISE_ROWS = 16 * BLOCK_ROWS
_TINY = 1e-8  # the scale of a row of zeros
_ROWS_DIM = {".scale_zero": 1}  # of the parts whose rows are not the first dimension
_Parts = dict[str, torch.Tensor]


def quantise(weight: torch.Tensor, stored_as: str) -> _Parts:
    """The stored parts of a matrix [N, K], by the suffixes of model/slabs.py; bf16 keeps its bits."""
    return _QUANTISERS[stored_as](weight)


def matrix_from(parts: Mapping[str, torch.Tensor], rows: int, stored_as: str) -> Matrix:
    """The matrix of N rows with these stored parts.  Raises ModelError for an unknown format."""
    stored, weights = parse_stored_as(stored_as), parts[""]
    if stored.is_ordered:
        matrix = matrix_from(parts, rows, stored_as.removesuffix(":ordered"))
        assert isinstance(matrix, Int4Matrix | Int8GroupMatrix), "no other format has an order"
        return OrderedMatrix(matrix, parts[".order"])
    if stored.kind == "int4":
        return Int4Matrix(weights, parts[".scale_zero"], rows)
    if stored.kind == "int8":
        return (Int8GroupMatrix if stored.group else Int8Matrix)(weights, parts[".scale"])
    if stored.kind == "fp8":
        return Fp8Matrix(weights, parts[".scale"], fp8_block(stored, *weights.shape))
    if stored.type_name in PLAIN_DTYPES:
        return weights.view(PLAIN_DTYPES[stored.type_name])
    return GgmlMatrix(weights, stored.type_name) if stored.kind == "ggml" else weights


def _in_blocks(quantise_rows: Callable[[torch.Tensor], _Parts], weight: torch.Tensor) -> _Parts:
    """QUANTISE_ROWS rows at a time: in float32 an expert of Mixtral 8x22B takes 1.2 GB."""
    blocks = [quantise_rows(rows) for rows in torch.split(weight, QUANTISE_ROWS)]
    return {name: torch.cat([block[name] for block in blocks], _ROWS_DIM.get(name, 0)) for name in blocks[0]}


def _quantise_int8(weight: torch.Tensor) -> _Parts:
    weight_f32 = weight.float()
    scale = (weight_f32.abs().amax(1) / 127).clamp_min(_TINY)
    return {"": (weight_f32 / scale[:, None]).round().clamp(-127, 127).to(torch.int8), ".scale": scale}


def _quantise_int4(weight: torch.Tensor) -> _Parts:
    rows, columns = weight.shape
    group, rows_stored = group_columns(columns), padded_rows(rows)
    padded = torch.nn.functional.pad(weight.float(), (0, 0, 0, rows_stored - rows)).view(rows_stored, -1, group)
    low, high = padded.amin(-1), padded.amax(-1)
    scale = ((high - low) / 15).clamp_min(_TINY).bfloat16()
    zero = (low + 8 * scale.float()).bfloat16()
    # from the scale and zero as they are stored, so that their own rounding error does not count twice
    nibble = ((padded - zero.float()[..., None]) / scale.float()[..., None]).round().add(8).clamp(0, 15)
    halves = nibble.view(-1, 2, HALF_ROWS, columns).to(torch.uint8)
    nibbles = (halves[:, 0] | (halves[:, 1] << 4)).transpose(1, 2).contiguous()
    return {"": nibbles, ".scale_zero": torch.stack([scale.T, zero.T], -1).contiguous()}


_QUANTISERS: dict[str, Callable[[torch.Tensor], _Parts]] = {
    "bf16": lambda weight: {"": weight},
    "int8": partial(_in_blocks, _quantise_int8),
    "int4": partial(_in_blocks, _quantise_int4),
}
assert tuple(_QUANTISERS) == EXPERT_FORMATS


def dequantise(matrix: Matrix, out: torch.Tensor) -> torch.Tensor:
    """Dequantise into `out` [N, K] of any float dtype.  Simple and slow: the reference for all kernels."""
    if isinstance(matrix, torch.Tensor):
        return out.copy_(matrix)
    if isinstance(matrix, Int8Matrix):
        return out.copy_(matrix.values).mul_(matrix.scale[:, None])
    if isinstance(matrix, Int4Matrix):
        return _dequantise_int4(matrix, out)
    if isinstance(matrix, OrderedMatrix):
        return out.index_copy_(1, matrix.order.long(), dequantise(matrix.matrix, torch.empty_like(out)))
    step = max(1, UNPACKED_NUMBERS[out.device.type] // max(1, num_columns(matrix)))
    for begin in range(0, num_rows(matrix), step):
        out[begin : begin + step] = _in_float32(matrix.rows(slice(begin, begin + step)))
    return out


def dequantised_rows(matrix: Matrix, rows: torch.Tensor) -> torch.Tensor:
    """The rows with these numbers, [len(rows), K] in float32."""
    if isinstance(matrix, Int4Matrix):
        return _int4_rows(matrix, rows)
    if isinstance(matrix, OrderedMatrix):
        in_order = dequantised_rows(matrix.matrix, rows)
        return torch.empty_like(in_order).index_copy_(1, matrix.order.long(), in_order)
    return dequantise(rows_of(matrix, rows), torch.empty(len(rows), num_columns(matrix), device=rows.device))


def _in_float32(matrix: Int8GroupMatrix | Fp8Matrix | GgmlMatrix) -> torch.Tensor:
    if isinstance(matrix, GgmlMatrix):
        return dequantise_blocks(matrix.blocks, matrix.type_name)
    if isinstance(matrix, Fp8Matrix):  # each row has scales of its own, as Fp8Matrix.rows gives
        return matrix.values.float() * matrix.scale.repeat_interleave(matrix.block[1], 1)[:, : matrix.num_columns]
    grouped = matrix.values.float().view(*matrix.scale.shape, matrix.group)
    return (grouped * matrix.scale.float()[..., None]).view(matrix.values.shape)


def _int4_rows(matrix: Int4Matrix, rows: torch.Tensor) -> torch.Tensor:
    block, row = rows // BLOCK_ROWS, rows % BLOCK_ROWS
    byte = matrix.nibbles[block, :, row % HALF_ROWS]
    nibble = torch.where((row < HALF_ROWS)[:, None], byte & 15, byte >> 4)
    scale, zero = matrix.scale_zero[:, rows].float().repeat_interleave(matrix.group, 0).unbind(-1)  # [K, rows] each
    return (nibble.float() - 8) * scale.T + zero.T


def _dequantise_int4(matrix: Int4Matrix, out: torch.Tensor) -> torch.Tensor:
    for block, columns in enumerate(_unpack(matrix.nibbles)):
        rows = slice(block * BLOCK_ROWS, min((block + 1) * BLOCK_ROWS, matrix.num_rows))
        scale_zero = matrix.scale_zero[:, rows].float().repeat_interleave(matrix.group, 0)  # [K, rows, 2]
        values = columns[:, : rows.stop - rows.start]
        out[rows] = ((values - 8) * scale_zero[..., 0] + scale_zero[..., 1]).T
    return out


def _unpack(nibbles: torch.Tensor) -> Iterator[torch.Tensor]:
    """The values of each block, [K, 64] float32."""
    return (torch.cat([block & 15, block >> 4], -1).float() for block in nibbles)
