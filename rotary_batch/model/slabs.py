"""The layout of a slab, the weights of one expert, for every format.

An expert is two matrices: `gate_up` = gate over up, [2 * intermediate, hidden], and `down`, [hidden, intermediate].
Gate and up are one matrix only where they are stored alike.  A format is named `KIND` or `KIND:PARAMETERS`:

- bf16: the checkpoint's own numbers, of whatever float type.
- int8: symmetric, one float32 scale for each row (output channel): weight = value * scale.
- int4: asymmetric round to nearest, one bf16 scale and one bf16 zero for each row and group of columns:
  weight = (nibble - 8) * scale + zero.  Rows are padded to 64 and stored in blocks of 64: byte [block, column, j]
  holds row j in its low and row j + 32 in its high nibble (j < 32).  Torch's CPU operator multiplies these very bytes
  where the processor has AVX-512; everywhere else they are unpacked first.
- ggml:TYPE: the blocks of a GGUF file as they are, row by row (model/ggml_types.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from rotary_batch.errors import ModelError
from rotary_batch.model.geometry import DTYPE_NBYTES, Geometry
from rotary_batch.model.ggml_types import BLOCK_TYPES
from rotary_batch.model.tables import shown

PAGE_NBYTES = 4096  # slabs start and end on it, so that O_DIRECT reads and page-locked copies need no staging
BLOCK_ROWS = 64
GROUPS = (128, 64, 32)  # columns that share a scale: the first that divides the row
_PART_ALIGNMENT = 64  # a cache line
_NBYTES = DTYPE_NBYTES | {"U8": 1, "I8": 1}
_Parts = Iterator[tuple[str, str, tuple[int, ...]]]  # suffix of the name, dtype, shape


class Part(NamedTuple):
    """One tensor inside a slab."""

    dtype: str  # as safetensors spells it
    shape: tuple[int, ...]
    offset: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class SlabLayout:
    """Every part of a slab by name, and the size of the whole, tail padding included."""

    parts: dict[str, Part]
    nbytes: int


def group_columns(columns: int) -> int:
    """How many columns share a scale in int4.  Raises ModelError when no group fits."""
    for group in GROUPS:
        if columns % group == 0:
            return group
    raise ModelError(f"int4 experts: rows of {columns} numbers cannot be cut into groups of {GROUPS[-1]}; use int8")


def padded_rows(rows: int) -> int:
    """Rows of an int4 matrix as stored."""
    return -(-rows // BLOCK_ROWS) * BLOCK_ROWS


def _bf16_parts(rows: int, columns: int, dtype: str) -> _Parts:
    yield "", dtype, (rows, columns)


def _int8_parts(rows: int, columns: int, _dtype: str) -> _Parts:
    yield "", "I8", (rows, columns)
    yield ".scale", "F32", (rows,)


def _int4_parts(rows: int, columns: int, _dtype: str) -> _Parts:
    stored_rows = padded_rows(rows)
    yield "", "U8", (stored_rows // BLOCK_ROWS, columns, BLOCK_ROWS // 2)
    yield ".scale_zero", "BF16", (columns // group_columns(columns), stored_rows, 2)


def _ggml_parts(rows: int, columns: int, _dtype: str, type_name: str) -> _Parts:
    kind = BLOCK_TYPES.get(type_name)
    if kind is None:
        raise ModelError(f"blocks of type {shown(type_name)}; this version has {', '.join(BLOCK_TYPES)}")
    if columns % kind.columns:
        raise ModelError(f"rows of {columns} numbers are no whole blocks of {type_name}, which have {kind.columns}")
    yield "", "U8", (rows, kind.row_nbytes(columns))


# What each kind stores of a matrix; engine/kernels/quant.py has the arithmetic.
_PARTS: dict[str, Callable[..., _Parts]] = {
    "bf16": _bf16_parts,
    "int8": _int8_parts,
    "int4": _int4_parts,
    "ggml": _ggml_parts,
}


def matrix_parts(stored_as: str, rows: int, columns: int, dtype: str) -> _Parts:
    """Suffix, type and shape of each tensor that stores a matrix; `dtype` is that of plain numbers.

    Raises ModelError for an unknown format, and for a matrix that it cannot store.
    """
    kind, *parameters = stored_as.split(":")
    if kind not in _PARTS:
        raise ModelError(f"stored as {shown(stored_as)}; this version has {', '.join(_PARTS)}")
    try:
        yield from _PARTS[kind](rows, columns, dtype, *parameters)
    except TypeError as error:
        raise ModelError(f"stored as {shown(stored_as)}: wrong parameters") from error


def part_suffixes(stored_as: str, rows: int, columns: int) -> list[str]:
    """What the names of the tensors of a quantised matrix end in.  Raises ModelError."""
    return [suffix for suffix, _, _ in matrix_parts(stored_as, rows, columns, "BF16")]


def stored_nbytes(stored_as: str, rows: int, columns: int) -> int:
    """Bytes of a quantised matrix.  Raises ModelError."""
    parts = matrix_parts(stored_as, rows, columns, "BF16")
    return sum(_NBYTES[dtype] * math.prod(shape) for _, dtype, shape in parts)


def slab_layout(
    shapes: Mapping[str, tuple[int, int]], stored: Mapping[str, str], dtype: str, biases: Mapping[str, int]
) -> SlabLayout:
    """The layout of a slab of these matrices [rows, columns], each stored in a format of its own; then their biases.

    Raises ModelError for an unknown format or an impossible group.
    """
    wanted = [
        (name + suffix, part_dtype, shape)
        for name, (rows, columns) in shapes.items()
        for suffix, part_dtype, shape in matrix_parts(stored[name], rows, columns, dtype)
    ]
    wanted += [(f"{name}.bias", "F32", (size,)) for name, size in biases.items()]
    parts, offset = {}, 0
    for name, part_dtype, shape in wanted:
        nbytes = _NBYTES[part_dtype] * math.prod(shape)
        parts[name] = Part(part_dtype, shape, offset, nbytes)
        offset = -(-(offset + nbytes) // _PART_ALIGNMENT) * _PART_ALIGNMENT
    return SlabLayout(parts, -(-offset // PAGE_NBYTES) * PAGE_NBYTES)


def expert_shapes(geometry: Geometry, stored: Mapping[str, str]) -> dict[str, tuple[int, int]]:
    """The matrices of an expert: gate over up as one, or each by itself where they are stored differently; down."""
    shapes = geometry.matrix_shapes
    if "gate_up" in stored:
        return shapes
    half = (geometry.intermediate_size, geometry.hidden_size)
    return {"gate": half, "up": half, "down": shapes["down"]}


def expert_layout(geometry: Geometry, stored: Mapping[str, str]) -> SlabLayout:
    """The layout of an expert's slab.  Raises ModelError."""
    return slab_layout(expert_shapes(geometry, stored), stored, geometry.dtype, geometry.expert_bias_sizes)
