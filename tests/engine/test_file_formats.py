"""The formats of model files: GGUF blocks have gguf-py's bits, every format its definition, and all of them multiply."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch
from matrices import file_matrices, fp8_matrix, int4_matrix, int8_group_matrix, random_blocks

from rotary_batch.engine.kernels.build import Library
from rotary_batch.engine.kernels.cpu import CpuKernels
from rotary_batch.engine.kernels.dispatch import Level
from rotary_batch.engine.kernels.ggml import dequantise_blocks
from rotary_batch.engine.kernels.linear import FastMatmul
from rotary_batch.engine.kernels.matrices import is_well_formed, num_columns, num_rows, parts_of
from rotary_batch.engine.kernels.numerics import Numerics
from rotary_batch.engine.kernels.quant import dequantise, dequantised_rows, matrix_from
from rotary_batch.engine.packs.loading import DTYPES
from rotary_batch.model.footprint import UNPACKED_NUMBERS, UNPACKING_NBYTES
from rotary_batch.model.ggml_types import BLOCK_TYPES, PLAIN_TYPES
from rotary_batch.model.slabs import slab_layout
from tests.engine.peak import peak_nbytes

CPU = torch.device("cpu")
ROWS, COLUMNS = 131, 512
MATRICES = file_matrices(ROWS, COLUMNS)
PLAIN = {f"ggml:{name}" for name in PLAIN_TYPES}  # which become plain tensors


def decoded(matrix) -> torch.Tensor:
    return dequantise(matrix, torch.empty(num_rows(matrix), num_columns(matrix)))


def torch_alone(dtype: torch.dtype) -> FastMatmul:
    """Products without compiled kernels."""
    portable = CpuKernels(Library(None, frozenset([Level.PORTABLE]), {}), has_bf16=dtype == torch.bfloat16)
    return FastMatmul(CPU, portable)


def bits(weights: torch.Tensor) -> torch.Tensor:
    return weights.view(torch.int32)


def test_types_are_numbered_and_sized_as_in_gguf_py():
    expected = {
        name: (gguf.GGMLQuantizationType[name], *gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[name]])
        for name in BLOCK_TYPES
    }
    assert {name: tuple(block_type) for name, block_type in BLOCK_TYPES.items()} == expected


@pytest.mark.parametrize("type_name", BLOCK_TYPES)
@pytest.mark.parametrize("seed", range(3))
def test_blocks_have_the_bits_of_gguf_py(type_name, seed):
    rows = random_blocks(type_name, 40, 512, seed)
    expected = gguf.quants.dequantize(rows.numpy(), gguf.GGMLQuantizationType[type_name])
    assert torch.equal(bits(dequantise_blocks(rows, type_name)), bits(torch.from_numpy(expected)))


def test_every_exponent_of_mxfp4_and_every_level():
    """Exponents 0 and 1 give numbers that are not normal, the last three infinite ones."""
    levels = torch.arange(16, dtype=torch.uint8).repeat(256, 1)
    rows = torch.cat([torch.arange(256, dtype=torch.uint8)[:, None], levels | 15 - levels << 4], 1)
    with np.errstate(over="ignore"):
        expected = gguf.quants.dequantize(rows.numpy(), gguf.GGMLQuantizationType.MXFP4)
    assert torch.equal(bits(dequantise_blocks(rows, "MXFP4")), bits(torch.from_numpy(expected)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("group", [8, 32, 96, 192])
def test_int4_of_any_group_and_any_type_of_scales(group, dtype):
    matrix, weights = int4_matrix(100, 192, group, dtype), torch.empty(100, 192)
    for row in range(100):
        block, j = divmod(row, 64)
        byte = matrix.nibbles[block, :, j % 32]
        scale, zero = matrix.scale_zero[:, row].float().repeat_interleave(group, 0).T
        weights[row] = ((byte & 15 if j < 32 else byte >> 4).float() - 8) * scale + zero
    assert torch.equal(decoded(matrix), weights)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("group", [8, 32, 96, 192])
def test_int8_with_a_scale_for_each_group(group, dtype):
    matrix = int8_group_matrix(10, 192, group, dtype)
    assert torch.equal(decoded(matrix), matrix.values.float() * matrix.scale.float().repeat_interleave(group, 1))


@pytest.mark.parametrize("shape", [(128, 256), (130, 300), (1, 1), (129, 128)])
@pytest.mark.parametrize("block", [(128, 128), (1, 300), (130, 300), (3, 7)])
def test_fp8_blocks_at_the_edges_are_cut_short(shape, block):
    matrix, (rows, columns) = fp8_matrix(*shape, block), shape
    scale = matrix.scale.repeat_interleave(block[0], 0)[:rows].repeat_interleave(block[1], 1)[:, :columns]
    assert torch.equal(decoded(matrix), matrix.values.float() * scale)


def test_large_matrices_are_dequantised_some_rows_at_a_time(monkeypatch):
    whole = {name: decoded(matrix) for name, matrix in MATRICES.items()}
    monkeypatch.setitem(UNPACKED_NUMBERS, "cpu", 5 * COLUMNS)
    for name, matrix in MATRICES.items():
        assert torch.equal(decoded(matrix), whole[name]), name


@pytest.mark.parametrize("name", [name for name in MATRICES if name not in PLAIN])
def test_temporaries_take_what_plans_have_room_for(monkeypatch, name):
    """However large the matrix is; int4 goes block by block, of 64 rows."""
    numbers = 64 * COLUMNS
    monkeypatch.setitem(UNPACKED_NUMBERS, "cpu", numbers)
    matrix, out = file_matrices(640, COLUMNS)[name], torch.empty(640, COLUMNS)
    dequantise(matrix, out)
    assert peak_nbytes(lambda: dequantise(matrix, out)) <= (26 if "int4" in name else UNPACKING_NBYTES) * numbers


@pytest.mark.parametrize("name", MATRICES)
def test_rows_are_looked_up_and_multiplied_as_if_dequantised_before(name):
    """In exact numerics to the bit, in fast ones within the rounding of bf16."""
    matrix, weights = MATRICES[name], decoded(MATRICES[name])
    assert is_well_formed(matrix)
    chosen = torch.tensor([3, 3, 130, 64, 35])
    assert torch.equal(dequantised_rows(matrix, chosen), weights[chosen])
    exact, fast = (Numerics(mode, CPU) for mode in ("exact", "fast"))
    assert torch.equal(exact.embed(matrix, chosen), weights[chosen])
    assert torch.equal(fast.embed(matrix, chosen), weights[chosen].to(fast.dtype))
    for rows in (0, 1, 5, 70):
        x = torch.randn(rows, COLUMNS, generator=torch.Generator().manual_seed(rows))
        assert torch.equal(exact.linear(x, matrix), exact.linear(x, weights))
        for matmul in (FastMatmul(CPU), torch_alone(torch.bfloat16), torch_alone(torch.float32)):
            few = x.to(matmul.dtype)
            expected, product = few.double() @ weights.double().T, matmul.linear(few, matrix)
            assert (product.shape, product.dtype) == ((rows, ROWS), matmul.dtype)
            assert not rows or (product - expected).abs().max() <= 0.02 * expected.abs().max()


def test_matrices_come_out_of_a_slab_as_they_went_in():
    """One slab with a matrix in every format: its layout, its bytes, and the matrices that are made from views of it."""
    layout = slab_layout(dict.fromkeys(MATRICES, (ROWS, COLUMNS)), {name: name for name in MATRICES}, "BF16", {})
    slab = torch.zeros(layout.nbytes, dtype=torch.uint8)
    views = {}
    for name, part in layout.parts.items():
        own = slab[part.offset : part.offset + part.nbytes]
        views[name] = own.view(DTYPES[part.dtype]).view(part.shape)
    for name, matrix in MATRICES.items():
        for suffix, tensor in zip(
            ("", ".scale_zero" if "int4" in name else ".scale"), parts_of(matrix).values(), strict=False
        ):
            assert (views[name + suffix].shape, views[name + suffix].dtype) == (tensor.shape, tensor.dtype), name
            views[name + suffix].copy_(tensor)
    for name, matrix in MATRICES.items():
        parts = {suffix: views[name + suffix] for suffix in ("", ".scale", ".scale_zero") if name + suffix in views}
        again = matrix_from(parts, ROWS, name)
        assert torch.equal(decoded(again), decoded(matrix)), name
        assert isinstance(again, torch.Tensor if name in PLAIN else type(matrix))
