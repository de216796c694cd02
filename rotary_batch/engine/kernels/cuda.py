"""Triton kernels, used on CUDA where Triton is installed; torch operators stand in for them elsewhere.

Knows bytes on a device; tests compare every kernel with torch's operators, on a device and interpreted.
"""

from __future__ import annotations

import importlib
import importlib.util
from functools import cache
from typing import Any

import torch

HAS_TRITON = importlib.util.find_spec("triton") is not None
PRODUCT_ROWS = 128  # rows that a product reads packed weights for; more wait less for a plain product of unpacked ones
PRODUCT_TILE = 64  # columns at a time; columns that share a scale come in multiples of it
MIN_PROGRAMS = 256  # so many keep all processors of a large GPU at work; narrow matrices are cut along their columns


def unpack_int4_on_cuda(nibbles: torch.Tensor, scale_zero: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """nibbles [blocks, K, 32] uint8, scale_zero [G, rows, 2] bf16 -> out [K, rows] bf16, in one pass with Triton."""
    if HAS_TRITON and nibbles.is_cuda:
        _launch_unpack(nibbles, scale_zero, out)
        return out
    return unpack_int4(nibbles, scale_zero, out)


def unpack_int4(nibbles: torch.Tensor, scale_zero: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """The same in torch: the reference, and the way without Triton."""
    blocks, columns, half = nibbles.shape
    wide = torch.stack([nibbles & 15, nibbles >> 4], 2).float() - 8  # [blocks, K, 2, 32]
    grouped = wide.transpose(0, 1).reshape(scale_zero.shape[0], -1, blocks * 2 * half)
    pair = scale_zero.float()[:, None]
    return out.copy_((grouped * pair[..., 0] + pair[..., 1]).view(columns, -1))


@cache
def triton_kernels() -> Any:  # noqa: ANN401 - the module is typed in Triton's own way
    """The kernels; imported at first use, because importing Triton takes seconds."""
    return importlib.import_module("rotary_batch.engine.kernels.triton_kernels")


def _launch_unpack(nibbles: torch.Tensor, scale_zero: torch.Tensor, out: torch.Tensor) -> None:
    blocks, columns, _ = nibbles.shape
    tile = 64  # columns of one program: 64 x 32 bytes in, 64 x 64 weights out
    triton_kernels().unpack_int4_kernel[(blocks, -(-columns // tile))](
        nibbles, scale_zero, out, columns, out.shape[1], columns // scale_zero.shape[0], scale_zero.stride(0), TILE=tile
    )


def takes_int4_product(num_rows: int, group: int) -> bool:
    """Whether the kernel can multiply so many rows with weights whose scales are for `group` columns."""
    return HAS_TRITON and num_rows <= PRODUCT_ROWS and group % PRODUCT_TILE == 0


def int4_product_on_cuda(x: torch.Tensor, nibbles: torch.Tensor, scale_zero: torch.Tensor) -> torch.Tensor:
    """x [M, K] times nibbles [blocks, K, 32] with scale_zero [G, rows, 2] -> [M, rows], without unpacking in memory."""
    x, (blocks, columns, _) = x.contiguous(), nibbles.shape
    group, rows = columns // scale_zero.shape[0], max(16, 1 << (len(x) - 1).bit_length())
    parts = min(columns // group, -(-MIN_PROGRAMS // blocks))
    part_columns = -(-columns // (parts * group)) * group
    parts = -(-columns // part_columns)
    dtype = x.dtype if parts == 1 else torch.float32
    out = torch.empty(parts, len(x), blocks * 64, dtype=dtype, device=x.device)
    triton_kernels().int4_product_kernel[(blocks, parts)](
        x,
        nibbles,
        scale_zero,
        out,
        len(x),
        columns,
        group,
        scale_zero.stride(0),
        blocks * 64,
        part_columns,
        ROWS=rows,
        TILE=PRODUCT_TILE,
    )
    return out[0] if parts == 1 else out.sum(0).to(x.dtype)
