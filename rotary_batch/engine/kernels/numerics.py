"""The two ways to compute: exact (the same bits whatever shares the batch) and fast.

Knows dtypes, row tiles and scratch memory; knows nothing of what a matrix means.

Exact: float32, and every matmul sees a multiple of TILE_ROWS rows.  A float32 `linear` gives other bits
at 1, 2, 3 and 7 rows than at 64; at multiples of 16 rows each row's bits were the same at every count and
place that was tried (13 shapes, 16 to 1,024 rows, see NOTES.md).  Stored matrices are unpacked into float32 first.
On CUDA libraries choose kernels, and reductions their order, by the number of rows, so whatever adds up is shown
CUDA_ROWS rows every time.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F

from rotary_batch.engine.kernels.cpu import CpuKernels
from rotary_batch.engine.kernels.linear import FastMatmul, pad_rows
from rotary_batch.engine.kernels.quant import Int8Matrix, Matrix, decode, num_columns, num_rows
from rotary_batch.engine.kernels.threads import threads_for

CUDA_ROWS = 64


def in_tiles(function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """A function of rows [T, ...] -> [T, ...] that works on each by itself; on CUDA it gets CUDA_ROWS at a time."""
    if not x.is_cuda or not len(x):
        return function(x)
    missing = -len(x) % CUDA_ROWS
    padded = torch.cat([x, x.new_zeros(missing, *x.shape[1:])]) if missing else x
    return torch.cat([function(part) for part in torch.split(padded, CUDA_ROWS)])[: len(x)]


class Numerics:
    """How one engine computes.  Not shared by threads: the scratch is reused at every call."""

    def __init__(self, mode: str, device: torch.device, kernels: CpuKernels | None = None) -> None:
        self.mode = mode
        self.exact = mode == "exact"
        self._device = device
        self._fast = FastMatmul(device, kernels)
        self.kernels = self._fast.kernels
        self.dtype = torch.float32 if self.exact else self._fast.dtype  # of rows
        self.kept = torch.float32 if self.exact else torch.bfloat16  # of dense matrices and keys
        self._scratch = torch.empty(0, dtype=self.dtype, device=device)

    def threads_for(self, numel: int) -> AbstractContextManager[None]:
        """As in threads.py; exact numerics keep theirs, for a sum must not change with the number of rows."""
        return nullcontext() if self.exact else threads_for(numel)

    def linear(self, x: torch.Tensor, matrix: Matrix) -> torch.Tensor:
        """x [T, in] times a stored matrix [out, in] -> [T, out]."""
        if not self.exact:
            return self._fast.linear(x, matrix)
        if not isinstance(matrix, torch.Tensor) or matrix.dtype != self.dtype:
            matrix = self._decoded(matrix)
        plain = matrix
        return in_tiles(lambda rows: F.linear(rows, plain), x if x.is_cuda else pad_rows(x))[: x.shape[0]]

    def _decoded(self, matrix: Matrix) -> torch.Tensor:
        """A stored matrix in float32; valid until the next one."""
        shape = (num_rows(matrix), num_columns(matrix))
        numel = shape[0] * shape[1]
        if self._scratch.numel() < numel:
            self._scratch = torch.empty(numel, dtype=self.dtype, device=self._device)
        return decode(matrix, self._scratch[:numel].view(shape))

    def rows_of(self, matrix: Matrix, places: torch.Tensor) -> torch.Tensor:
        """Some rows of a stored matrix in the compute dtype: the embedding of token ids."""
        if isinstance(matrix, Int8Matrix):
            return (matrix.values[places].float() * matrix.scale[places][:, None]).to(self.dtype)
        assert isinstance(matrix, torch.Tensor), "embeddings are stored plain or in int8"
        return matrix[places].to(self.dtype)

    def silu(self, x: torch.Tensor) -> torch.Tensor:
        """x times sigmoid(x).  Torch's own takes other bits of exp in the last, odd elements of a tensor."""
        return x / (1 + torch.exp(-x)) if self.exact else F.silu(x)

    def rms_norm(self, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        """Root-mean-square norm of rows in float32 (arXiv 1910.07467)."""
        if not self.exact and x.is_cuda:  # one kernel instead of eight
            return F.rms_norm(x, weight.shape, weight, eps)
        if not self.exact:  # without float32 copies of x: 5 times faster on a CPU
            length: torch.Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
            normed = x * (length.square() / x.shape[-1] + eps).rsqrt().to(x.dtype)
            return normed.mul_(weight)
        wide = x.float()
        scaled = wide * torch.rsqrt(in_tiles(lambda rows: rows.mean(-1, keepdim=True), wide.pow(2)) + eps)
        return (scaled * weight.float()).to(self.dtype)
