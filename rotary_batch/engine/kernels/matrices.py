"""Matrices as they are stored: plain, quantised when packing, or as a model's own file has them.

model/slabs.py specifies the formats, quant.py has their arithmetic.
N = rows (output channels), K = columns (input channels), G = groups of columns.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from rotary_batch.model.ggml_types import BLOCK_TYPES
from rotary_batch.model.slabs import BLOCK_ROWS

FLOATS = {torch.bfloat16: "bf16", torch.float16: "f16", torch.float32: "f32"}


class Int8Matrix(NamedTuple):
    """weight[n, k] = values[n, k] * scale[n]."""

    values: torch.Tensor  # [N, K] int8
    scale: torch.Tensor  # [N] float32

    @property
    def num_rows(self) -> int:
        """N."""
        return self.values.shape[0]

    @property
    def num_columns(self) -> int:
        """K."""
        return self.values.shape[1]

    @property
    def format_name(self) -> str:
        """By which a kernel is chosen."""
        return "int8"

    def is_well_formed(self) -> bool:
        """Whether types and shapes of the parts are those of the format."""
        types = (self.values.dtype, self.scale.dtype) == (torch.int8, torch.float32)
        return types and self.values.dim() == 2 and self.scale.shape == (self.num_rows,)

    def rows(self, chosen: slice | torch.Tensor) -> Int8Matrix:
        """Some of the rows."""
        return Int8Matrix(self.values[chosen], self.scale[chosen])


class Int4Matrix(NamedTuple):
    """weight[n, k] = (nibble[n, k] - 8) * scale[g, n] + zero[g, n] with g the group of column k."""

    nibbles: torch.Tensor  # [blocks, K, 32] uint8; low nibble = row j of the block, high = row j + 32
    scale_zero: torch.Tensor  # [G, padded N, 2] bf16, float16 or float32
    num_rows: int

    @property
    def num_columns(self) -> int:
        """K."""
        return self.nibbles.shape[1]

    @property
    def group(self) -> int:
        """Columns that share a scale."""
        return self.nibbles.shape[1] // self.scale_zero.shape[0]

    @property
    def format_name(self) -> str:
        """By which a kernel is chosen; a type of scale and zero other than bf16 is part of it."""
        pair = FLOATS.get(self.scale_zero.dtype, str(self.scale_zero.dtype))
        return "int4" if pair == "bf16" else f"int4:{pair}"

    def is_well_formed(self) -> bool:
        """Whether types and shapes of the parts are those of the format."""
        blocks, columns, half = self.nibbles.shape
        groups, rows, pair = self.scale_zero.shape
        sizes = (half, rows, pair, columns % groups) == (BLOCK_ROWS // 2, blocks * BLOCK_ROWS, 2, 0)
        rows_fit = (blocks - 1) * BLOCK_ROWS < self.num_rows <= rows
        return sizes and rows_fit and self.nibbles.dtype == torch.uint8 and self.scale_zero.dtype in FLOATS


class Int8GroupMatrix(NamedTuple):
    """weight[n, k] = values[n, k] * scale[n, g] with g the group of column k."""

    values: torch.Tensor  # [N, K] int8
    scale: torch.Tensor  # [N, G] bf16, float16 or float32

    @property
    def num_rows(self) -> int:
        """N."""
        return self.values.shape[0]

    @property
    def num_columns(self) -> int:
        """K."""
        return self.values.shape[1]

    @property
    def group(self) -> int:
        """Columns that share a scale."""
        return self.values.shape[1] // self.scale.shape[1]

    @property
    def format_name(self) -> str:
        """By which a kernel is chosen."""
        return f"int8:{FLOATS.get(self.scale.dtype, str(self.scale.dtype))}"

    def is_well_formed(self) -> bool:
        """Whether types and shapes of the parts are those of the format."""
        if (self.values.dim(), self.scale.dim()) != (2, 2) or not self.scale.shape[1]:
            return False
        sizes = len(self.scale) == self.num_rows and self.num_columns % self.scale.shape[1] == 0
        return sizes and self.values.dtype == torch.int8 and self.scale.dtype in FLOATS

    def rows(self, chosen: slice | torch.Tensor) -> Int8GroupMatrix:
        """Some of the rows."""
        return Int8GroupMatrix(self.values[chosen], self.scale[chosen])


class Fp8Matrix(NamedTuple):
    """weight[n, k] = values[n, k] * scale[n // rows, k // columns]; the last blocks may be cut short."""

    values: torch.Tensor  # [N, K] float8_e4m3fn
    scale: torch.Tensor  # [ceil(N / rows), ceil(K / columns)] float32
    block: tuple[int, int]  # rows and columns that share a scale

    @property
    def num_rows(self) -> int:
        """N."""
        return self.values.shape[0]

    @property
    def num_columns(self) -> int:
        """K."""
        return self.values.shape[1]

    @property
    def format_name(self) -> str:
        """By which a kernel is chosen."""
        return "fp8"

    def is_well_formed(self) -> bool:
        """Whether types and shapes of the parts are those of the format."""
        types = (self.values.dtype, self.scale.dtype) == (torch.float8_e4m3fn, torch.float32)
        if not types or self.values.dim() != 2 or min(self.block) < 1:
            return False
        return self.scale.shape == tuple(
            -(-size // own) for size, own in zip(self.values.shape, self.block, strict=True)
        )

    def rows(self, chosen: slice | torch.Tensor) -> Fp8Matrix:
        """Some of the rows, each with scales of its own: they may begin inside a block."""
        numbers = torch.arange(self.num_rows, device=self.values.device)[chosen]
        return Fp8Matrix(self.values[chosen], self.scale[numbers // self.block[0]], (1, self.block[1]))


class GgmlMatrix(NamedTuple):
    """The blocks of a GGUF file as they are (model/ggml_types.py), row by row."""

    blocks: torch.Tensor  # [N, bytes of a row] uint8
    type_name: str  # a block type, such as Q4_K

    @property
    def num_rows(self) -> int:
        """N."""
        return self.blocks.shape[0]

    @property
    def num_columns(self) -> int:
        """K."""
        block_type = BLOCK_TYPES[self.type_name]
        return self.blocks.shape[1] // block_type.nbytes * block_type.columns

    @property
    def format_name(self) -> str:
        """By which a kernel is chosen."""
        return f"ggml:{self.type_name}"

    def is_well_formed(self) -> bool:
        """Whether rows are whole blocks."""
        is_bytes = self.blocks.dtype == torch.uint8 and self.blocks.dim() == 2
        return is_bytes and self.blocks.shape[1] % BLOCK_TYPES[self.type_name].nbytes == 0

    def rows(self, chosen: slice | torch.Tensor) -> GgmlMatrix:
        """Some of the rows."""
        return GgmlMatrix(self.blocks[chosen], self.type_name)


RowMatrix = torch.Tensor | Int8Matrix | Int8GroupMatrix | Fp8Matrix | GgmlMatrix  # rows are apart from one another


class OrderedMatrix(NamedTuple):
    """weight[n, order[k]] = matrix[n, k]: columns that share a scale need not be neighbours in the weight."""

    matrix: Int4Matrix | Int8GroupMatrix
    order: torch.Tensor  # [K] int32: a permutation

    @property
    def num_rows(self) -> int:
        """N."""
        return self.matrix.num_rows

    @property
    def num_columns(self) -> int:
        """K."""
        return self.matrix.num_columns

    @property
    def format_name(self) -> str:
        """No kernel reads it: inputs are gathered, then multiplied by `matrix`."""
        return f"{self.matrix.format_name}:ordered"

    def is_well_formed(self) -> bool:
        """Whether types and shapes of the parts are those of the format."""
        is_order = self.order.dtype == torch.int32 and self.order.shape == (self.num_columns,)
        return is_order and self.matrix.is_well_formed()


InOrderMatrix = RowMatrix | Int4Matrix  # columns are in the order of the inputs
Matrix = InOrderMatrix | OrderedMatrix


def num_rows(matrix: Matrix) -> int:
    """Output channels of a stored matrix."""
    return matrix.shape[0] if isinstance(matrix, torch.Tensor) else matrix.num_rows


def num_columns(matrix: Matrix) -> int:
    """Input channels of a stored matrix."""
    return matrix.shape[1] if isinstance(matrix, torch.Tensor) else matrix.num_columns


def in_order(x: torch.Tensor, matrix: Matrix) -> tuple[torch.Tensor, InOrderMatrix]:
    """x [M, K] with its columns in the order of a matrix, and that matrix."""
    return (x[:, matrix.order], matrix.matrix) if isinstance(matrix, OrderedMatrix) else (x, matrix)


def rows_of(matrix: RowMatrix, chosen: slice | torch.Tensor) -> RowMatrix:
    """Some rows of a matrix: views for a slice, copies for row numbers."""
    return matrix[chosen] if isinstance(matrix, torch.Tensor) else matrix.rows(chosen)


def format_name(matrix: Matrix) -> str:
    """By which dispatch.py chooses a kernel: f32, bf16, int8, int4, int4:f16, int8:f16, fp8, ggml:Q4_K and so on."""
    if isinstance(matrix, torch.Tensor):
        return FLOATS.get(matrix.dtype, str(matrix.dtype))
    return matrix.format_name


def is_well_formed(matrix: Matrix) -> bool:
    """Whether types and shapes of its parts are those of the format."""
    if isinstance(matrix, torch.Tensor):
        return matrix.dtype in FLOATS and matrix.dim() == 2
    return matrix.is_well_formed()


def parts_of(matrix: Matrix) -> dict[str, torch.Tensor]:
    """The tensors of a matrix, by the names of the kernels' parameters."""
    if isinstance(matrix, torch.Tensor):
        return {"weights": matrix}
    if isinstance(matrix, Int4Matrix):
        return {"nibbles": matrix.nibbles, "scale_zero": matrix.scale_zero}
    if isinstance(matrix, OrderedMatrix):
        return {**parts_of(matrix.matrix), "order": matrix.order}
    if isinstance(matrix, GgmlMatrix):
        return {"blocks": matrix.blocks}
    return {"weights": matrix.values, "scale": matrix.scale}
