"""Triton kernels, used on CUDA where Triton is installed; torch operators stand in for them elsewhere.

Knows bytes on a device; every kernel has its reference beside it, and the tests marked `gpu` compare the two.
"""

from __future__ import annotations

import importlib
import importlib.util
from functools import cache
from typing import Any

import torch

HAS_TRITON = importlib.util.find_spec("triton") is not None


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
    return importlib.import_module("rotary_batch.engine.triton_kernels")


def _launch_unpack(nibbles: torch.Tensor, scale_zero: torch.Tensor, out: torch.Tensor) -> None:
    blocks, columns, _ = nibbles.shape
    tile = 64  # columns of one program: 64 x 32 bytes in, 64 x 64 weights out
    triton_kernels().unpack_int4_kernel[(blocks, -(-columns // tile))](
        nibbles, scale_zero, out, columns, out.shape[1], columns // scale_zero.shape[0], scale_zero.stride(0), TILE=tile
    )
