"""Matrices of quantised checkpoints, from the bytes of their files to the parts that a pack stores of them.

Codes and scales are rearranged, never computed anew.  N = rows, K = columns, G = groups of columns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch

from rotary_batch.engine.kernels.matrices import Fp8Matrix, GgmlMatrix, Int4Matrix
from rotary_batch.engine.packs.loading import load
from rotary_batch.engine.packs.quantised.expert import ORDERED
from rotary_batch.engine.packs.quantised.fp8 import SCALE_NAMES
from rotary_batch.engine.packs.quantised.mxfp4 import BLOCK_COLUMNS, BLOCK_NBYTES
from rotary_batch.engine.packs.quantised.source import QuantisedMatrix, num_groups
from rotary_batch.engine.packs.quantised.weights import (
    MIDDLE,
    Codes,
    Stored,
    Weights,
    regrouped,
    some_columns,
    some_rows,
    stacked,
    stored,
)
from rotary_batch.errors import ModelError

_AWQ_NIBBLES = (0, 4, 1, 5, 2, 6, 3, 7)  # which nibble of a word has columns 0 to 7
_Tensors = Mapping[str, torch.Tensor]


class Decoded(NamedTuple):
    """A matrix, and which column of the weight each of its columns is (None: they are in their own order)."""

    weights: Weights
    order: torch.Tensor | None  # [K] int64


def decode(matrix: QuantisedMatrix, stored_as: str, row_order: torch.Tensor | None = None) -> Decoded:
    """Read what a matrix takes of the file, with the groups or blocks of `stored_as`, its rows in `row_order`.

    Raises ModelError when the bytes contradict the config.
    """
    tensors = {suffix: load(place) for suffix, place in matrix.places.items()}
    weights, order = LAYOUTS[matrix.layout](matrix, tensors)
    weights = regrouped(weights, stored_as)
    if row_order is not None:
        weights = weights.rows(row_order)
    if matrix.taken_rows:
        weights = some_rows(weights, slice(*matrix.taken_rows))
    if matrix.taken_columns:
        begin, end = matrix.taken_columns
        weights, order = some_columns(weights, begin, end), None if order is None else order[begin:end]
    return Decoded(weights, order)


def quantised_parts(
    matrices: Sequence[QuantisedMatrix], stored_as: str, row_order: torch.Tensor | None = None
) -> dict[str, torch.Tensor]:
    """The stored parts of one or two matrices, the first over the second, by the suffixes of model/slabs.py.

    `row_order` has the numbers of the rows as they are wanted.  Raises ModelError.
    """
    form = stored_as.removesuffix(ORDERED)
    (weights, order), *others = [decode(matrix, form, row_order) for matrix in matrices]
    for other in others:
        weights = stacked(weights, other.weights)
    parts = _parts(stored(weights, form))
    if form == stored_as:
        return parts
    own = torch.arange(matrices[0].shape[1]) if order is None else order
    return parts | {".order": own.int()}


def column_order(matrix: QuantisedMatrix) -> torch.Tensor | None:
    """Which column of the weight each stored one is, of all columns; None when they are in their own order."""
    place = next((place for suffix, place in matrix.places.items() if suffix.endswith("g_idx")), None)
    return None if place is None else _order(matrix, load(place))


def _parts(matrix: Stored) -> dict[str, torch.Tensor]:
    if isinstance(matrix, Int4Matrix):
        return {"": matrix.nibbles, ".scale_zero": matrix.scale_zero}
    if isinstance(matrix, GgmlMatrix):
        return {"": matrix.blocks}
    return {"": matrix.values, ".scale": matrix.scale}


def _gptq(matrix: QuantisedMatrix, tensors: _Tensors) -> Decoded:
    bits = matrix.bits
    packed_zeros = tensors[".qzeros"]
    if matrix.layout == "gptq":  # version 1: one less in each field; they were subtracted from the whole word
        packed_zeros = packed_zeros + (0x11111111 if bits == 4 else 0x01010101)
    zeros = _unpacked(packed_zeros, bits).T[: matrix.rows]
    codes, scale = _unpacked(tensors[".qweight"].T, bits)[:, : matrix.columns], tensors[".scales"].T
    _require_middle(matrix, zeros, ".qzeros")
    return _grouped(matrix, codes, scale, zeros, tensors.get(".g_idx"))


def _awq(matrix: QuantisedMatrix, tensors: _Tensors) -> Decoded:
    def in_order(words: torch.Tensor) -> torch.Tensor:
        return _unpacked(words, 4).view(len(words), -1, len(_AWQ_NIBBLES))[..., _AWQ_NIBBLES].flatten(1)

    codes, scale = in_order(tensors[".qweight"]).T, tensors[".scales"].T
    zeros = in_order(tensors[".qzeros"]).T if ".qzeros" in tensors else torch.full_like(scale, MIDDLE).to(torch.uint8)
    return _grouped(matrix, codes, scale, zeros, None)


def _packed(matrix: QuantisedMatrix, tensors: _Tensors) -> Decoded:
    scale = _one_for_each_row(tensors[".weight_scale"], matrix.rows)
    codes = _unpacked(tensors[".weight_packed"], matrix.bits)[:, : matrix.columns]
    zeros = torch.full(scale.shape, 1 << (matrix.bits - 1), dtype=torch.uint8)
    if ".weight_zero_point" in tensors:
        zeros = _unpacked(tensors[".weight_zero_point"].T, matrix.bits).T[: matrix.rows]
    g_idx = tensors.get(".weight_g_idx")
    # compressed-tensors fills the index with -1 where columns are in their own order
    return _grouped(matrix, codes, scale, zeros, None if g_idx is None or (g_idx == -1).all() else g_idx)


def _int8(matrix: QuantisedMatrix, tensors: _Tensors) -> Decoded:
    if ".weight_zero_point" in tensors and tensors[".weight_zero_point"].any():
        raise _contradiction(matrix, ".weight_zero_point", "has zero points; this version reads symmetric 8 bits")
    codes, scale = tensors[".weight"].view(torch.uint8) ^ 0x80, _one_for_each_row(tensors[".weight_scale"], matrix.rows)
    return _grouped(matrix, codes, scale, torch.zeros(scale.shape, dtype=torch.uint8), None)


def _fp8(matrix: QuantisedMatrix, tensors: _Tensors) -> Decoded:
    scale = next(tensors[name] for name in SCALE_NAMES if name in tensors)
    if scale.dtype == torch.uint8:
        scale = scale.view(torch.float8_e8m0fnu)
    block = (matrix.block[0] or matrix.rows, matrix.block[1] or matrix.columns)
    shape = (num_groups(matrix.rows, block[0]), num_groups(matrix.columns, block[1]))
    return Decoded(Fp8Matrix(tensors[".weight"], scale.float().view(shape), block), None)


def _mxfp4(matrix: QuantisedMatrix, tensors: _Tensors) -> Decoded:
    codes, scales = tensors.values()  # as mxfp4.py names them
    rows = len(codes)
    codes = codes.view(rows, -1, BLOCK_NBYTES)
    columns = torch.stack([codes & 15, codes >> 4], -1).view(rows, -1, BLOCK_COLUMNS)
    halves = columns[..., :BLOCK_NBYTES] | (columns[..., BLOCK_NBYTES:] << 4)
    blocks = torch.cat([scales.view(torch.uint8)[..., None], halves], -1)
    return Decoded(GgmlMatrix(blocks.flatten(1), "MXFP4"), None)


LAYOUTS: dict[str, Callable[[QuantisedMatrix, _Tensors], Decoded]] = {
    "gptq": _gptq,
    "gptq_v2": _gptq,
    "awq": _awq,
    "packed": _packed,
    "int8": _int8,
    "fp8": _fp8,
    "mxfp4": _mxfp4,
}


def _unpacked(words: torch.Tensor, bits: int) -> torch.Tensor:
    """The numbers in 32-bit words [R, W], the lowest bits first: uint8 [R, W * 32 / bits]."""
    octets = words.contiguous().view(torch.uint8)
    if bits == 8:
        return octets
    numbers = octets.new_empty(*octets.shape, 2)
    torch.bitwise_and(octets, 15, out=numbers[..., 0])
    torch.bitwise_right_shift(octets, 4, out=numbers[..., 1])
    return numbers.flatten(1)


def _grouped(
    matrix: QuantisedMatrix, codes: torch.Tensor, scale: torch.Tensor, zeros: torch.Tensor, g_idx: torch.Tensor | None
) -> Decoded:
    """Columns in the order of their groups."""
    order = None if g_idx is None else _order(matrix, g_idx)
    return Decoded(Codes(codes if order is None else codes[:, order], scale, zeros, matrix.group), order)


def _order(matrix: QuantisedMatrix, g_idx: torch.Tensor) -> torch.Tensor | None:
    """Which column comes where when sorted by group; None when they are sorted.  Every group must be whole."""
    groups = torch.arange(matrix.columns) // matrix.group
    if torch.equal(g_idx.long(), groups):
        return None
    suffix = next(suffix for suffix in matrix.places if suffix.endswith("g_idx"))
    order = g_idx.argsort(stable=True)
    if not torch.equal(g_idx[order].long(), groups):
        raise _contradiction(matrix, suffix, f"does not divide {matrix.columns} columns into groups of {matrix.group}")
    if not matrix.is_ordered:
        raise _contradiction(matrix, suffix, "reorders columns, but the config says that they are in their own order")
    return order


def _one_for_each_row(scale: torch.Tensor, rows: int) -> torch.Tensor:
    """[N, G] of a scale [N, G], [N], or one for the whole matrix."""
    return scale if scale.dim() == 2 and len(scale) == rows else scale.view(-1, 1).expand(rows, 1).contiguous()


def _require_middle(matrix: QuantisedMatrix, zeros: torch.Tensor, suffix: str) -> None:
    middle = 1 << (matrix.bits - 1)
    if not matrix.is_symmetric or bool((zeros == middle).all()):
        return
    stored_value = int(zeros[zeros != middle][0])
    raise _contradiction(
        matrix,
        suffix,
        f"has the zero point {stored_value}, but the config says symmetric, which is {middle}; if another program "
        f'reads this model, add "checkpoint_format": "gptq_v2" (or "sym": false) to its config',
    )


def _contradiction(matrix: QuantisedMatrix, suffix: str, fact: str) -> ModelError:
    return ModelError(f"{matrix.places[suffix].path}: tensor {matrix.name}{suffix} {fact}")
