"""Triton kernels, used on CUDA where Triton is installed; otherwise torch's operators do the same.

Tests compare every kernel with torch's operators, on a device and in Triton's interpreter.
"""

from __future__ import annotations

import importlib
import importlib.util
from functools import cache
from typing import Any

import torch

from rotary_batch.engine.kernels.matrices import GgmlMatrix
from rotary_batch.engine.kernels.quant import dequantise
from rotary_batch.model.ggml_types import BLOCK_TYPES

HAS_TRITON = importlib.util.find_spec("triton") is not None
GEMM_ROWS = 128  # up to N rows the kernel that reads packed weights wins, above them dequantising first
GEMM_TILE = 64  # columns at a time; the columns that share a scale are a multiple of it
DEQUANT_TILE = 64  # columns of one program: 64 x 32 bytes in, 64 x 64 weights out
TRITON_TYPES = ("Q4_0", "Q4_1", "Q8_0", "Q4_K", "Q6_K", "MXFP4")  # of triton_ggml.py
PROGRAM_WEIGHTS = 1024  # that one program dequantises: 4 blocks of 256, or 32 of 32
MIN_PROGRAMS = 256  # keep all processors of a large GPU busy; narrow matrices are split along their columns


def dequant_int4_on_cuda(nibbles: torch.Tensor, scale_zero: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """nibbles [blocks, K, 32] uint8, scale_zero [G, rows, 2] bf16 -> out [K, rows] bf16, in one pass with Triton."""
    if HAS_TRITON and nibbles.is_cuda:
        _launch_dequant(nibbles, scale_zero, out)
        return out
    return dequant_int4(nibbles, scale_zero, out)


def dequant_int4(nibbles: torch.Tensor, scale_zero: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """The same in torch: the reference, and what is used without Triton."""
    blocks, columns, half = nibbles.shape
    values = torch.stack([nibbles & 15, nibbles >> 4], 2).float() - 8  # [blocks, K, 2, 32]
    grouped = values.transpose(0, 1).reshape(scale_zero.shape[0], -1, blocks * 2 * half)
    pair = scale_zero.float()[:, None]
    return out.copy_((grouped * pair[..., 0] + pair[..., 1]).view(columns, -1))


@cache
def triton_kernels() -> Any:  # noqa: ANN401 - the module is typed in Triton's own way
    """The kernels; imported at first use, because importing Triton takes seconds."""
    return importlib.import_module("rotary_batch.engine.kernels.triton_kernels")


@cache
def triton_ggml() -> Any:  # noqa: ANN401 - as above
    """The kernels for the blocks of GGUF files."""
    return importlib.import_module("rotary_batch.engine.kernels.triton_ggml")


def _launch_dequant(nibbles: torch.Tensor, scale_zero: torch.Tensor, out: torch.Tensor) -> None:
    blocks, columns, _ = nibbles.shape
    triton_kernels().dequant_int4_kernel[(blocks, -(-columns // DEQUANT_TILE))](
        nibbles,
        scale_zero,
        out,
        columns=columns,
        rows=out.shape[1],
        group=columns // scale_zero.shape[0],
        group_stride=scale_zero.stride(0),
        TILE=DEQUANT_TILE,
    )


def supports_int4_gemm(num_rows: int, group: int) -> bool:
    """Whether the kernel multiplies `num_rows` rows by weights of which `group` columns share a scale."""
    return HAS_TRITON and num_rows <= GEMM_ROWS and group % GEMM_TILE == 0


def int4_gemm_on_cuda(x: torch.Tensor, nibbles: torch.Tensor, scale_zero: torch.Tensor) -> torch.Tensor:
    """x [M, K] times nibbles [blocks, K, 32] with scale_zero [G, rows, 2] -> [M, rows], dequantised in registers."""
    x, (blocks, columns, _) = x.contiguous(), nibbles.shape
    group, padded_rows = columns // scale_zero.shape[0], max(16, 1 << (len(x) - 1).bit_length())
    splits = min(columns // group, -(-MIN_PROGRAMS // blocks))
    split_columns = -(-columns // (splits * group)) * group
    splits = -(-columns // split_columns)
    dtype = x.dtype if splits == 1 else torch.float32
    out = torch.empty(splits, len(x), blocks * 64, dtype=dtype, device=x.device)
    triton_kernels().int4_gemm_kernel[(blocks, splits)](
        x,
        nibbles,
        scale_zero,
        out,
        num_rows=len(x),
        columns=columns,
        group=group,
        group_stride=scale_zero.stride(0),
        width=blocks * 64,
        split_columns=split_columns,
        ROWS=padded_rows,
        TILE=GEMM_TILE,
    )
    return out[0] if splits == 1 else out.sum(0).to(x.dtype)


def dequant_ggml_on_cuda(matrix: GgmlMatrix, out: torch.Tensor) -> torch.Tensor:
    """Blocks of a GGUF file -> out [N, K], contiguous: with Triton where it has the type, otherwise with torch."""
    if HAS_TRITON and matrix.blocks.is_cuda and matrix.type_name in TRITON_TYPES:
        launch_dequant_ggml(matrix, out)
        return out
    return dequantise(matrix, out)


def launch_dequant_ggml(matrix: GgmlMatrix, out: torch.Tensor) -> None:
    """Run the Triton kernel, on a device or in the interpreter."""
    block_type = BLOCK_TYPES[matrix.type_name]
    tile = PROGRAM_WEIGHTS // block_type.columns
    num_blocks = out.numel() // block_type.columns
    triton_ggml().dequant_ggml_kernel[(-(-num_blocks // tile),)](
        matrix.blocks.contiguous(),
        out,
        num_blocks,
        TYPE=matrix.type_name,
        COLUMNS=block_type.columns,
        NBYTES=block_type.nbytes,
        TILE=tile,
    )
