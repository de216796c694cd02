"""Random matrices in every format that model files have, for the tests of their arithmetic."""

from __future__ import annotations

import torch

from rotary_batch.engine.kernels.dispatch import GGML_TYPES
from rotary_batch.engine.kernels.matrices import (
    Fp8Matrix,
    GgmlMatrix,
    Int4Matrix,
    Int8GroupMatrix,
    Int8Matrix,
    Matrix,
)
from rotary_batch.model.ggml_types import BLOCK_TYPES
from rotary_batch.model.slabs import BLOCK_ROWS, padded_rows

# where a block has its float16 scales
HALVES = {
    "Q4_0": (0,),
    "Q4_1": (0, 2),
    "Q5_0": (0,),
    "Q5_1": (0, 2),
    "Q8_0": (0,),
    "Q2_K": (80, 82),
    "Q3_K": (108,),
    "Q4_K": (0, 2),
    "Q5_K": (0, 2),
    "Q6_K": (208,),
    "IQ4_NL": (0,),
    "IQ4_XS": (0,),
}
FLOAT_TYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def random_blocks(type_name: str, rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    """Rows of blocks of random bytes [rows, bytes of a row], whose weights are about as large as those of a model."""
    generator = torch.Generator().manual_seed(seed)
    if type_name in FLOAT_TYPES:
        weights = torch.randn(rows, columns, generator=generator).to(FLOAT_TYPES[type_name])
        return weights.view(torch.uint8).view(rows, -1)
    block_type = BLOCK_TYPES[type_name]
    count = rows * columns // block_type.columns
    blocks = torch.randint(0, 256, (count, block_type.nbytes), dtype=torch.uint8, generator=generator)
    for begin in HALVES.get(type_name, ()):
        scale = (torch.rand(count, 1, generator=generator) * 0.1 - 0.05).half()
        blocks[:, begin : begin + 2] = scale.view(torch.uint8)
    if type_name == "MXFP4":
        blocks[:, 0] = torch.randint(118, 127, (count,), dtype=torch.uint8, generator=generator)
    return blocks.view(rows, -1)


def ggml_matrix(type_name: str, rows: int, columns: int, seed: int = 0) -> GgmlMatrix:
    return GgmlMatrix(random_blocks(type_name, rows, columns, seed), type_name)


def int4_matrix(rows: int, columns: int, group: int, dtype: torch.dtype, seed: int = 0) -> Int4Matrix:
    generator = torch.Generator().manual_seed(seed)
    blocks = padded_rows(rows) // BLOCK_ROWS
    nibbles = torch.randint(0, 256, (blocks, columns, BLOCK_ROWS // 2), dtype=torch.uint8, generator=generator)
    scale_zero = torch.randn(columns // group, blocks * BLOCK_ROWS, 2, generator=generator) * 0.1
    return Int4Matrix(nibbles, scale_zero.to(dtype), rows)


INTEGER_FORMATS = (*GGML_TYPES, "int4", "int4:f16", "int4:f32", "int8")  # that are multiplied as integers


def integer_matrix(name: str, rows: int, columns: int, seed: int = 0) -> GgmlMatrix | Int4Matrix | Int8Matrix:
    """Noise in one of INTEGER_FORMATS; in int4 all columns share a scale if 64 do not divide them."""
    if name == "int8":
        generator = torch.Generator().manual_seed(seed)
        values = torch.randint(-128, 128, (rows, columns), dtype=torch.int8, generator=generator)
        return Int8Matrix(values, torch.randn(rows, generator=generator) * 0.01)
    if name.startswith("int4"):
        dtype = {"": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}[name[5:]]
        return int4_matrix(rows, columns, columns if columns % 64 else 64, dtype, seed)
    return ggml_matrix(name, rows, columns, seed)


def int8_group_matrix(rows: int, columns: int, group: int, dtype: torch.dtype, seed: int = 0) -> Int8GroupMatrix:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(-128, 128, (rows, columns), dtype=torch.int8, generator=generator)
    return Int8GroupMatrix(values, (torch.randn(rows, columns // group, generator=generator) * 0.01).to(dtype))


def fp8_matrix(rows: int, columns: int, block: tuple[int, int], seed: int = 0) -> Fp8Matrix:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(rows, columns, generator=generator).mul(100).clamp(-448, 448).to(torch.float8_e4m3fn)
    scales = -(-rows // block[0]), -(-columns // block[1])
    return Fp8Matrix(values, torch.rand(scales, generator=generator) * 0.01, block)


def file_matrices(rows: int, columns: int) -> dict[str, Matrix]:
    """A matrix in every format of model files; `columns` is a multiple of 256."""
    matrices: dict[str, Matrix] = {f"ggml:{name}": ggml_matrix(name, rows, columns) for name in BLOCK_TYPES}
    for name, dtype in (("bf16", torch.bfloat16), ("f16", torch.float16), ("f32", torch.float32)):
        matrices |= {f"int4:{group}:{name}": int4_matrix(rows, columns, group, dtype) for group in (32, columns)}
        matrices |= {f"int8:{group}:{name}": int8_group_matrix(rows, columns, group, dtype) for group in (32, columns)}
    blocks = {"128x128": (128, 128), "96x80": (96, 80), "1x0": (1, columns), "0x0": (rows, columns)}
    return matrices | {f"fp8:{name}": fp8_matrix(rows, columns, block) for name, block in blocks.items()}


def on_device(matrix: Matrix, device: torch.device) -> Matrix:
    if isinstance(matrix, torch.Tensor):
        return matrix.to(device)
    return type(matrix)(*(part.to(device) if isinstance(part, torch.Tensor) else part for part in matrix))
