"""The layout of a slab, the weights of one expert, for every format.

An expert is two matrices: `up` = w1 over w3, [2 * intermediate, hidden], and `down` = w2, [hidden, intermediate].

- bf16: the checkpoint's own bits, `up` then `down`; w1 and w3 are adjacent, so they are one matrix.
- int8: symmetric, one float32 scale for each row (output channel): weight = value * scale.
- int4: asymmetric round to nearest, one bf16 scale and one bf16 zero for each row and group of columns:
  weight = (nibble - 8) * scale + zero.  Rows are padded to 64 and stored in blocks of 64: byte [block, column, j]
  holds row j in its low and row j + 32 in its high nibble (j < 32).  Torch's CPU operator multiplies these very bytes
  where the processor has AVX-512; everywhere else they are unpacked first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from rotary_batch.config import EXPERT_FORMATS
from rotary_batch.errors import ModelError
from rotary_batch.model.geometry import DTYPE_NBYTES, Geometry

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


def matrix_shapes(geometry: Geometry) -> dict[str, tuple[int, int]]:
    """The two matrices of an expert, [rows, columns]."""
    hidden, middle = geometry.hidden_size, geometry.intermediate_size
    return {"up": (2 * middle, hidden), "down": (hidden, middle)}


def _bf16_parts(rows: int, columns: int, dtype: str) -> _Parts:
    yield "", dtype, (rows, columns)


def _int8_parts(rows: int, columns: int, _dtype: str) -> _Parts:
    yield "", "I8", (rows, columns)
    yield ".scale", "F32", (rows,)


def _int4_parts(rows: int, columns: int, _dtype: str) -> _Parts:
    stored_rows = padded_rows(rows)
    yield "", "U8", (stored_rows // BLOCK_ROWS, columns, BLOCK_ROWS // 2)
    yield ".scale_zero", "BF16", (columns // group_columns(columns), stored_rows, 2)


# What each format stores of a matrix; engine/kernels/quant.py has the arithmetic.
_PARTS: dict[str, Callable[[int, int, str], _Parts]] = {
    "bf16": _bf16_parts,
    "int8": _int8_parts,
    "int4": _int4_parts,
}
assert tuple(_PARTS) == EXPERT_FORMATS


def slab_layout(geometry: Geometry, experts: str) -> SlabLayout:
    """The layout of a slab of this model.  Raises ModelError for an unknown format or an impossible group."""
    if experts not in _PARTS:
        raise ModelError(f"experts {experts!r}: this version stores them as {', '.join(_PARTS)}")
    parts, offset = {}, 0
    for name, (rows, columns) in matrix_shapes(geometry).items():
        for suffix, dtype, shape in _PARTS[experts](rows, columns, geometry.dtype):
            nbytes = _NBYTES[dtype]
            for size in shape:
                nbytes *= size
            parts[name + suffix] = Part(dtype, shape, offset, nbytes)
            offset = -(-(offset + nbytes) // _PART_ALIGNMENT) * _PART_ALIGNMENT
    return SlabLayout(parts, -(-offset // PAGE_NBYTES) * PAGE_NBYTES)
