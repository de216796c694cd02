"""Triton kernels, used on CUDA where Triton is installed; torch operators stand in for them elsewhere.

Knows bytes on a device; every kernel has its reference beside it, and the tests marked `gpu` compare the two.
"""

from __future__ import annotations

import importlib.util
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
    groups = scale_zero.shape[0]
    halves = out.view(columns, blocks, 2, half)
    halves[:, :, 0] = ((nibbles & 15).to(torch.int8) - 8).transpose(0, 1)
    halves[:, :, 1] = ((nibbles >> 4).to(torch.int8) - 8).transpose(0, 1)
    grouped = out.view(groups, columns // groups, -1)
    torch.addcmul(scale_zero[:, None, :, 1], grouped, scale_zero[:, None, :, 0], out=grouped)
    return out


_kernel: Any = None


def _launch_unpack(nibbles: torch.Tensor, scale_zero: torch.Tensor, out: torch.Tensor) -> None:
    global _kernel  # noqa: PLW0603 - compiled at first use: importing triton takes seconds
    if _kernel is None:
        from rotary_batch.engine.triton_kernels import unpack_int4_kernel

        _kernel = unpack_int4_kernel
    blocks, columns, _ = nibbles.shape
    tile = 64  # columns of one program: 64 x 32 bytes in, 64 x 64 weights out
    _kernel[(blocks, -(-columns // tile))](
        nibbles, scale_zero, out, columns, out.shape[1], columns // scale_zero.shape[0], scale_zero.stride(0), TILE=tile
    )
