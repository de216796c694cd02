"""The layout of a slab, the weights of one expert: matrices one after the other, each in a format of its own.

How a matrix is stored is a string, KIND or KIND:PARAMETERS.  What a pack quantises itself:

- bf16: the checkpoint's own bits; matrices that lie on one another's rows, such as w1 and w3, are one matrix.
- int8: symmetric, one float32 scale for each row (output channel): weight = value * scale.
- int4: asymmetric round to nearest, one bf16 scale and one bf16 zero for each row and group of columns:
  weight = (nibble - 8) * scale + zero.  Rows are padded to 64 and stored in blocks of 64: byte [block, column, j]
  holds row j in its low and row j + 32 in its high nibble (j < 32).  Torch's CPU operator multiplies these very bytes
  where the processor has AVX-512; everywhere else they are unpacked first.

What a model's file has, kept without loss; DTYPE is bf16, f16 or f32:

- int4:GROUP:DTYPE: as int4, with the file's own groups and the type of its scales and zeros.
- int8:GROUP:DTYPE: as int8, with one scale for each row and group of columns.
- either of these and `:ordered`: columns are in the order of their groups, which is stored too.
- fp8:ROWSxCOLUMNS: float8 (e4m3) times one float32 scale for each block of a matrix; the last blocks may be cut short.
  0 stands for all rows or columns: fp8:1x0 has a scale for each row, fp8:0x0 one.
- ggml:TYPE: the blocks of a GGUF file (ggml_types.py), row by row.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from rotary_batch.config import EXPERT_FORMATS
from rotary_batch.errors import ModelError
from rotary_batch.model.geometry import DTYPE_NBYTES, Geometry
from rotary_batch.model.ggml_types import BLOCK_TYPES
from rotary_batch.model.tables import shown

PAGE_NBYTES = 4096  # slabs start and end on it, so that O_DIRECT reads and page-locked copies need no staging
BLOCK_ROWS = 64
GROUPS = (128, 64, 32)  # columns that share a scale: the first that divides the row
_PART_ALIGNMENT = 64  # a cache line
_NBYTES = DTYPE_NBYTES | {"U8": 1, "I8": 1, "F8_E4M3": 1, "I32": 4}
_SCALE_DTYPES = {"bf16": "BF16", "f16": "F16", "f32": "F32"}
_WITH_GROUPS = re.compile(rf"(int4|int8):([1-9]\d{{0,6}}):({'|'.join(_SCALE_DTYPES)})(:ordered)?", re.ASCII)
_FP8 = re.compile(r"fp8:(\d{1,7})x(\d{1,7})", re.ASCII)
_GGML = "ggml:"


class StoredAs(NamedTuple):
    """How a matrix is stored, parsed."""

    kind: str  # bf16, int8, int4, fp8 or ggml
    group: int = 0  # columns that share a scale; 0 = in int8 all of them, in int4 as group_columns says
    scale_dtype: str = ""  # as safetensors spells it
    block: tuple[int, int] = (0, 0)  # rows and columns that share a scale in fp8; 0 = all of them
    type_name: str = ""  # of ggml blocks
    is_ordered: bool = False  # columns are in another order than the inputs


_OWN = {"bf16": StoredAs("bf16"), "int8": StoredAs("int8", 0, "F32"), "int4": StoredAs("int4", 0, "BF16")}
assert tuple(_OWN) == EXPERT_FORMATS


class MatrixPart(NamedTuple):
    """One tensor of a stored matrix."""

    suffix: str  # of its name
    dtype: str  # as safetensors spells it
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Its size."""
        return _NBYTES[self.dtype] * math.prod(self.shape)


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


def parse_stored_as(stored_as: str) -> StoredAs:
    """Read KIND or KIND:PARAMETERS.  Raises ModelError."""
    if stored_as in _OWN:
        return _OWN[stored_as]
    if found := _WITH_GROUPS.fullmatch(stored_as):
        return StoredAs(found[1], int(found[2]), _SCALE_DTYPES[found[3]], is_ordered=found[4] is not None)
    if found := _FP8.fullmatch(stored_as):
        return StoredAs("fp8", scale_dtype="F32", block=(int(found[1]), int(found[2])))
    type_name = stored_as.removeprefix(_GGML)
    if stored_as.startswith(_GGML) and type_name in BLOCK_TYPES:
        return StoredAs("ggml", type_name=type_name)
    raise ModelError(
        f"stored as {shown(stored_as)}; this version has {', '.join(_OWN)}, int4:GROUP:DTYPE, int8:GROUP:DTYPE, "
        f"fp8:ROWSxCOLUMNS and ggml:TYPE, with a DTYPE of {', '.join(_SCALE_DTYPES)} "
        f"and a TYPE of {', '.join(BLOCK_TYPES)}"
    )


def matrix_parts(stored_as: str, rows: int, columns: int, dtype: str) -> list[MatrixPart]:
    """The tensors of a matrix [rows, columns]; `dtype` is that of the checkpoint's weights, which bf16 keeps.

    Raises ModelError for an unknown format, and for rows that cannot be cut into its groups or blocks.
    """
    stored = parse_stored_as(stored_as)
    order = [MatrixPart(".order", "I32", (columns,))] if stored.is_ordered else []
    return [*_PARTS[stored.kind](stored, rows, columns, dtype), *order]


def stored_nbytes(stored_as: str, rows: int, columns: int, dtype: str = "BF16") -> int:
    """Bytes of a stored matrix.  Raises ModelError."""
    return sum(part.nbytes for part in matrix_parts(stored_as, rows, columns, dtype))


def _bf16_parts(_stored: StoredAs, rows: int, columns: int, dtype: str) -> Iterator[MatrixPart]:
    yield MatrixPart("", dtype, (rows, columns))


def _int8_parts(stored: StoredAs, rows: int, columns: int, _dtype: str) -> Iterator[MatrixPart]:
    yield MatrixPart("", "I8", (rows, columns))
    scales = (rows, _whole("int8", columns, stored.group)) if stored.group else (rows,)
    yield MatrixPart(".scale", stored.scale_dtype, scales)


def _int4_parts(stored: StoredAs, rows: int, columns: int, _dtype: str) -> Iterator[MatrixPart]:
    stored_rows = padded_rows(rows)
    groups = _whole("int4", columns, stored.group or group_columns(columns))
    yield MatrixPart("", "U8", (stored_rows // BLOCK_ROWS, columns, BLOCK_ROWS // 2))
    yield MatrixPart(".scale_zero", stored.scale_dtype, (groups, stored_rows, 2))


def _fp8_parts(stored: StoredAs, rows: int, columns: int, _dtype: str) -> Iterator[MatrixPart]:
    block_rows, block_columns = fp8_block(stored, rows, columns)
    yield MatrixPart("", "F8_E4M3", (rows, columns))
    yield MatrixPart(".scale", stored.scale_dtype, (-(-rows // block_rows), -(-columns // block_columns)))


def _ggml_parts(stored: StoredAs, rows: int, columns: int, _dtype: str) -> Iterator[MatrixPart]:
    block_type = BLOCK_TYPES[stored.type_name]
    blocks = _whole(stored.type_name, columns, block_type.columns)
    yield MatrixPart("", "U8", (rows, blocks * block_type.nbytes))


def fp8_block(stored: StoredAs, rows: int, columns: int) -> tuple[int, int]:
    """Rows and columns that share a scale in fp8."""
    return stored.block[0] or rows, stored.block[1] or columns


def _whole(name: str, columns: int, group: int) -> int:
    if columns % group:
        raise ModelError(f"{name}: rows of {columns} numbers cannot be cut into groups of {group}")
    return columns // group


# What each kind stores of a matrix; engine/kernels/quant.py has the arithmetic.
_PARTS: dict[str, Callable[[StoredAs, int, int, str], Iterator[MatrixPart]]] = {
    "bf16": _bf16_parts,
    "int8": _int8_parts,
    "int4": _int4_parts,
    "fp8": _fp8_parts,
    "ggml": _ggml_parts,
}


def slab_layout(
    shapes: Mapping[str, tuple[int, int]], stored: Mapping[str, str], dtype: str, biases: Mapping[str, int]
) -> SlabLayout:
    """The layout of a slab of these matrices [rows, columns], each stored in a format of its own; then their biases.

    Raises ModelError, with the name of the matrix, as `matrix_parts` does.
    """
    wanted = [
        MatrixPart(name + part.suffix, part.dtype, part.shape)
        for name, (rows, columns) in shapes.items()
        for part in _parts_of(name, stored[name], rows, columns, dtype)
    ]
    wanted += [MatrixPart(f"{name}.bias", "F32", (size,)) for name, size in biases.items()]
    parts, offset = {}, 0
    for part in wanted:
        parts[part.suffix] = Part(part.dtype, part.shape, offset, part.nbytes)
        offset = -(-(offset + part.nbytes) // _PART_ALIGNMENT) * _PART_ALIGNMENT
    return SlabLayout(parts, -(-offset // PAGE_NBYTES) * PAGE_NBYTES)


def _parts_of(name: str, stored_as: str, rows: int, columns: int, dtype: str) -> list[MatrixPart]:
    try:
        return matrix_parts(stored_as, rows, columns, dtype)
    except ModelError as error:
        raise ModelError(f"{name}: {error}") from error


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


def uniform_layout(geometry: Geometry, experts: str) -> SlabLayout:
    """The layout of a slab whose matrices are all in one of EXPERT_FORMATS.  Raises ModelError."""
    if experts not in EXPERT_FORMATS:
        raise ModelError(f"experts {experts!r}: this version stores them as {', '.join(EXPERT_FORMATS)}")
    return expert_layout(geometry, dict.fromkeys(geometry.matrix_shapes, experts))
