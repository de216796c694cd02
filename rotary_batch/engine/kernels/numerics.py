"""The two numerics: exact (the same bits whatever shares the batch) and fast.

Exact: float32, and every matmul gets a multiple of TILE_ROWS rows.  A float32 `linear` gives other bits at 1, 2, 3 and
7 rows than at 64.  At multiples of 16 rows each row's bits were the same at every count and place that was tried (13
shapes, 16 to 1,024 rows, see docs/lab-notes).  Stored matrices are dequantised to float32 first.  On CUDA, libraries
choose kernels, and reductions choose their order, by the number of rows: every reduction gets CUDA_ROWS rows.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F

from rotary_batch.engine.kernels.cpu import CpuKernels
from rotary_batch.engine.kernels.experts import WHOLE, Activation, LayerProducts
from rotary_batch.engine.kernels.linear import TILE_ROWS, FastMatmul, pad_rows
from rotary_batch.engine.kernels.matrices import GgmlMatrix, Matrix, in_order, num_columns, num_rows
from rotary_batch.engine.kernels.quant import dequantise, dequantised_rows
from rotary_batch.engine.kernels.threads import threads_for
from rotary_batch.model.geometry import Geometry

CUDA_ROWS = 64


def map_row_tiles(function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """A function [T, ...] -> [T, ...] that treats rows independently; on CUDA it gets CUDA_ROWS rows at a time."""
    if not x.is_cuda or not len(x):
        return function(x)
    padding = -len(x) % CUDA_ROWS
    padded = torch.cat([x, x.new_zeros(padding, *x.shape[1:])]) if padding else x
    return torch.cat([function(part) for part in torch.split(padded, CUDA_ROWS)])[: len(x)]


def _in_whole_tiles(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """x [T, in] times a float32 weight [out, in], in a multiple of TILE_ROWS rows; only the last ones are copied."""
    whole = len(x) - len(x) % TILE_ROWS
    out = x.new_empty(len(x), len(weight))
    torch.mm(x[:whole], weight.T, out=out[:whole])
    if whole < len(x):
        out[whole:] = F.linear(pad_rows(x[whole:]), weight)[: len(x) - whole]
    return out


class Numerics:
    """How one engine computes.  Not thread-safe: every call reuses the scratch."""

    def __init__(self, mode: str, device: torch.device, kernels: CpuKernels | None = None) -> None:
        self.mode = mode
        self.exact = mode == "exact"
        self._device = device
        self._fast = FastMatmul(device, kernels)
        self.kernels = self._fast.kernels
        self.dtype = torch.float32 if self.exact else self._fast.dtype  # of rows
        self.storage_dtype = torch.float32 if self.exact else torch.bfloat16  # of dense matrices and the KV cache
        self._scratch = torch.empty(0, dtype=self.dtype, device=device)

    def threads_for(self, numel: int) -> AbstractContextManager[None]:
        """As in threads.py.  Exact numerics do not change the threads: a sum must not depend on the number of rows."""
        return nullcontext() if self.exact else threads_for(numel)

    def linear(self, x: torch.Tensor, matrix: Matrix) -> torch.Tensor:
        """x [T, in] times a stored matrix [out, in] -> [T, out]."""
        if not self.exact:
            return self._fast.linear(x, matrix)
        x, matrix = in_order(x, matrix)
        if not isinstance(matrix, torch.Tensor) or matrix.dtype != self.dtype:
            matrix = self._dequantised(matrix)
        weight = matrix
        return map_row_tiles(lambda rows: F.linear(rows, weight), x) if x.is_cuda else _in_whole_tiles(x, weight)

    def layer_products(self, x: torch.Tensor, rows: torch.Tensor, geometry: Geometry) -> LayerProducts | None:
        """For experts of one layer on rows of x [T, H] in one compiled call; None where there are no such kernels."""
        if self.exact or self.kernels.experts_level is None or x.shape[1] % WHOLE or x.is_cuda:
            return None
        return LayerProducts(self.kernels, x, rows, Activation(geometry.swiglu_limit, geometry.swiglu_alpha))

    def linear_of_heads(self, x: torch.Tensor, matrices: torch.Tensor) -> torch.Tensor:
        """Each head of x [T, heads, in] times its matrix, of [heads, out, in] -> [T, heads, out]."""
        if self.exact or matrices.dtype != x.dtype:
            by_head = x.transpose(0, 1).contiguous()
            products = [self.linear(rows, matrix) for rows, matrix in zip(by_head, matrices, strict=True)]
            return torch.stack(products, 1)
        padded = x if x.is_cuda else pad_rows(x.flatten(1)).view(-1, *x.shape[1:])
        with self.threads_for(x.numel() + matrices.numel()):
            product = torch.bmm(padded.transpose(0, 1), matrices.transpose(1, 2))
        return product.transpose(0, 1)[: len(x)]

    def _dequantised(self, matrix: Matrix) -> torch.Tensor:
        """A stored matrix in float32; valid until the next call."""
        shape = (num_rows(matrix), num_columns(matrix))
        numel = shape[0] * shape[1]
        if self._scratch.numel() < numel:
            self._scratch = torch.empty(numel, dtype=self.dtype, device=self._device)
        out = self._scratch[:numel].view(shape)
        if self.kernels.decodes(matrix):  # the same values: 0.6 ms, not 5 to 27
            return self.kernels.decode(matrix, out)
        return dequantise(matrix, out)

    def embed(self, matrix: Matrix, token_ids: torch.Tensor) -> torch.Tensor:
        """Rows `token_ids` of a stored matrix, in the compute dtype."""
        if isinstance(matrix, GgmlMatrix):  # 128 rows of 2,048 columns: 0.2 ms, by torch's operators 0.7 to 1.4
            chosen = matrix.rows(token_ids)
            if self.kernels.decodes(chosen):
                return self.kernels.decode(chosen, torch.empty(len(token_ids), chosen.num_columns, dtype=self.dtype))
        return dequantised_rows(matrix, token_ids).to(self.dtype)

    def silu(self, x: torch.Tensor) -> torch.Tensor:
        """x * sigmoid(x).  Torch's own computes exp with other bits in the last elements of an odd-sized tensor."""
        return x / (1 + torch.exp(-x)) if self.exact else F.silu(x)

    def sigmoid(self, x: torch.Tensor) -> torch.Tensor:
        """1 / (1 + exp(-x)); torch's own has the fault of its silu."""
        return 1 / (1 + torch.exp(-x)) if self.exact else torch.sigmoid(x)

    def layer_norm(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float) -> torch.Tensor:
        """LayerNorm of rows in float32 (arXiv 1607.06450)."""
        x_f32 = x.float()
        centred = x_f32 - map_row_tiles(lambda rows: rows.mean(-1, keepdim=True), x_f32)
        variance = map_row_tiles(lambda rows: rows.mean(-1, keepdim=True), centred.pow(2))
        return (centred * torch.rsqrt(variance + eps) * weight.float() + bias.float()).to(self.dtype)

    def rms_norm(self, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        """Root-mean-square norm of rows in float32 (arXiv 1910.07467)."""
        if not self.exact and x.is_cuda:  # one kernel instead of eight; a float32 weight multiplies before the rounding
            return F.rms_norm(x.to(weight.dtype), weight.shape, weight, eps).to(x.dtype)
        if not self.exact:  # without float32 copies of x: 5 times faster on a CPU
            norm: torch.Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
            normed = x * (norm.square() / x.shape[-1] + eps).rsqrt().to(x.dtype)
            return normed.mul_(weight)
        x_f32 = x.float()
        mean_square = map_row_tiles(lambda rows: rows.mean(-1, keepdim=True), x_f32.pow(2))
        return (x_f32 * torch.rsqrt(mean_square + eps) * weight.float()).to(self.dtype)
