"""Rows times a stored matrix, by the fastest kernel for the number of rows and the device (fast numerics).

On CPUs kernels/dispatch.py selects the kernel; those that use torch's operators are here.  Every kernel gives the
product of `quant.dequantise` and `linear`, within bf16 rounding.  On CPUs without AMX rows are quantised to 8 bits for
int4, int8 and blocks of GGUF files, as llama.cpp does, which adds 0.6 % of noise.

A CPU that multiplies bf16 (AVX-512 BF16, AMX) computes in bf16, as CUDA does.  On others bf16 takes 6 times as long as
float32, so rows are float32 there.
M = rows of x, N = rows of the matrix (output channels), K = columns, G = groups of columns.
"""

from __future__ import annotations

from contextlib import nullcontext
from functools import cache

import torch
import torch.nn.functional as F

from rotary_batch.engine.kernels import cpu
from rotary_batch.engine.kernels.cpu import CpuKernels
from rotary_batch.engine.kernels.cuda import (
    dequant_ggml_on_cuda,
    dequant_int4_on_cuda,
    int4_gemm_on_cuda,
    supports_int4_gemm,
)
from rotary_batch.engine.kernels.dispatch import Level
from rotary_batch.engine.kernels.matrices import (
    GgmlMatrix,
    InOrderMatrix,
    Int4Matrix,
    Int8Matrix,
    Matrix,
    RowMatrix,
    in_order,
    num_columns,
    num_rows,
    rows_of,
)
from rotary_batch.engine.kernels.quant import HALF_ROWS, dequantise, matrix_from, quantise
from rotary_batch.engine.kernels.threads import threads_for
from rotary_batch.model.slabs import BLOCK_ROWS

# Rows of x on a CPU are padded to multiples of TILE_ROWS, above COARSE_ROWS to multiples of half of that: oneDNN caches
# code and buffers for every number of rows (690 MB besides the weights after a night of ragged batches, versus 450).
TILE_ROWS = 16
COARSE_ROWS = 128
SWAPPED_ROWS = 64  # up to N float32 rows come second in a product: 4.7 ms versus 5.8 at 16, 11.2 versus 11.7 at 64
# Scratch of one dequantised tile, which stays in the caches.  Many float32 rows lose more to narrow tiles than to
# memory: 63 ms at 32 MiB versus 78 at 4 MiB for 512 rows of [7168, 1024]; at 16 rows it is 8.8 versus 4.7.
TILE_NBYTES = 4 * 2**20
F32_TILE_NBYTES = 32 * 2**20
CUDA_TILE_NBYTES = 128 * 2**20  # launching the kernels of smaller tiles would take longer than reading the memory
BF16_TILE_NBYTES = 16 * 2**20  # int8 for 128 bf16 rows of [14336, 2048]: 9.8 ms, at 4 MiB 13.2
# Q5_0 of [1536, 2048] for 1 and 8 bf16 rows: at 256 KiB 2.4 and 3.0 ms, at 1 MiB 1.6 and 2.3, at 2 and 4 MiB the same.
DECODED_NBYTES = 2**20


def pad_rows(x: torch.Tensor) -> torch.Tensor:
    """Append rows of zeros up to a whole number of tiles."""
    padding = -x.shape[0] % (TILE_ROWS if x.shape[0] <= COARSE_ROWS else COARSE_ROWS // 2)
    return F.pad(x, (0, 0, 0, padding)) if padding else x


def fast_dtype(device: torch.device, kernels: CpuKernels | None = None) -> torch.dtype:
    """The dtype of rows in fast numerics."""
    if device.type != "cpu":
        return torch.bfloat16
    has_bf16 = (kernels or cpu.default()).has_bf16
    return torch.bfloat16 if has_bf16 else torch.float32


class FastMatmul:
    """Rows in `dtype` times stored matrices.  Not thread-safe: every call reuses the scratch."""

    def __init__(self, device: torch.device, kernels: CpuKernels | None = None) -> None:
        self._on_cpu = device.type == "cpu"
        self.kernels = kernels or (cpu.default() if self._on_cpu else cpu.load(Level.PORTABLE))
        self.dtype = fast_dtype(device, self.kernels)
        self._device = device
        self._scratch: dict[torch.dtype, torch.Tensor] = {}

    def linear(self, x: torch.Tensor, stored: Matrix) -> torch.Tensor:
        """x [M, K] -> [M, N], both in `dtype`."""
        x, matrix = in_order(x, stored)
        if not self._on_cpu:
            return self._on_cuda(x, matrix)
        kernel = self.kernels.kernel_for(x, matrix)
        by_torch = kernel.startswith("torch_")
        product: torch.Tensor
        with threads_for(x.numel() + num_rows(matrix) * num_columns(matrix)) if by_torch else nullcontext():
            product = getattr(self if by_torch else self.kernels, kernel)(x, matrix)
        return product

    def _on_cuda(self, x: torch.Tensor, matrix: InOrderMatrix) -> torch.Tensor:
        if isinstance(matrix, Int4Matrix):
            return self._int4_on_cuda(x, matrix)[:, : matrix.num_rows]
        if isinstance(matrix, torch.Tensor) and matrix.dtype == x.dtype:
            return F.linear(x, matrix)
        return self.torch_dequant(x, matrix)

    def torch_linear(self, x: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
        """Times a matrix of the same dtype."""
        if not self._on_cpu:
            return F.linear(x, matrix)
        if x.dtype == torch.float32:
            return _linear_f32(pad_rows(x), matrix)[: len(x)]
        if len(x) == 1:
            return _unpadded_linear(x, matrix)
        return F.linear(pad_rows(x), matrix)[: len(x)]

    def torch_linear_bf16(self, x: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
        """A few float32 rows times a bf16 matrix in place."""
        return _unpadded_linear(x.to(matrix.dtype), matrix).to(x.dtype)

    def torch_int8pack_mm(self, x: torch.Tensor, matrix: Int8Matrix) -> torch.Tensor:
        """By torch's weight-only operator, in bf16: its float32 variant is 6 to 25 times slower."""
        x_bf16 = x.to(torch.bfloat16).contiguous()
        product = torch._weight_int8pack_mm(x_bf16, matrix.values, _ones(len(matrix.values)))
        return product.to(x.dtype).mul_(matrix.scale)

    def torch_int4pack_mm(self, x: torch.Tensor, matrix: Int4Matrix) -> torch.Tensor:
        """By torch's weight-only operator, in bf16, where it reads our bytes."""
        if block_rows := int4pack_block_rows():
            return int4pack_mm(x.to(torch.bfloat16), matrix, block_rows).to(x.dtype)
        return self.torch_dequant(x, matrix)

    def torch_dequant(self, x: torch.Tensor, matrix: InOrderMatrix) -> torch.Tensor:
        """Dequantise the matrix first, some rows at a time."""
        if isinstance(matrix, Int4Matrix):
            return self._int4_by_tiles(x, matrix)
        if isinstance(matrix, Int8Matrix):
            return self._by_tiles(x, matrix.values).mul_(matrix.scale)  # once, not for every weight
        return self._by_tiles(x, matrix)

    def torch_decoded(self, x: torch.Tensor, matrix: RowMatrix) -> torch.Tensor:
        """Decode the matrix by compiled code, some rows at a time that stay in the caches, and multiply by these."""
        rows, columns = num_rows(matrix), num_columns(matrix)
        step = max(BLOCK_ROWS, DECODED_NBYTES // (x.itemsize * columns) // BLOCK_ROWS * BLOCK_ROWS)
        out = torch.empty(len(x), rows, dtype=x.dtype)
        for begin in range(0, rows, step):
            tile = rows_of(matrix, slice(begin, begin + step))
            weight = self._scratch_view(num_rows(tile) * columns, x.dtype).view(-1, columns)
            out[:, begin : begin + step] = self.linear(x, self.kernels.decode(tile, weight))
        return out

    def _tile_rows(self, x: torch.Tensor, columns: int) -> int:
        """Rows of a matrix that are dequantised at once."""
        if not self._on_cpu:
            nbytes = CUDA_TILE_NBYTES
        elif x.dtype == torch.bfloat16:
            nbytes = BF16_TILE_NBYTES
        else:
            nbytes = F32_TILE_NBYTES if len(x) > SWAPPED_ROWS else TILE_NBYTES
        return max(BLOCK_ROWS, nbytes // (x.itemsize * columns) // BLOCK_ROWS * BLOCK_ROWS)

    def _by_tiles(self, x: torch.Tensor, matrix: RowMatrix) -> torch.Tensor:
        """x times a matrix of another dtype or format, converted some rows at a time."""
        rows, columns = num_rows(matrix), num_columns(matrix)
        step = self._tile_rows(x, columns)
        padded = pad_rows(x) if self._on_cpu else x  # once, not for every tile: 4 % of a step at 128 rows
        out = torch.empty(len(padded), rows, dtype=x.dtype, device=x.device)
        for begin in range(0, rows, step):
            tile = rows_of(matrix, slice(begin, begin + step))
            weight = self._scratch_view(num_rows(tile) * columns, x.dtype).view(-1, columns)
            out[:, begin : begin + step] = self.torch_linear(padded, _dequantised(tile, weight))
        return out[: len(x)]

    def _int4_by_tiles(self, x: torch.Tensor, matrix: Int4Matrix) -> torch.Tensor:
        blocks, columns, _ = matrix.nibbles.shape
        step = self._tile_rows(x, columns) // BLOCK_ROWS
        out = torch.empty(len(x), matrix.scale_zero.shape[1], dtype=x.dtype, device=x.device)
        for begin in range(0, blocks, step):
            rows = slice(begin * BLOCK_ROWS, (begin + step) * BLOCK_ROWS)
            nibbles, scale_zero = matrix.nibbles[begin : begin + step], matrix.scale_zero[:, rows]
            out[:, rows] = self.torch_linear(x, self._scaled_blocks(nibbles, scale_zero[..., 0]))
        out += _zero_point_product(x, matrix)
        return out[:, : matrix.num_rows]

    def _int4_on_cuda(self, x: torch.Tensor, matrix: Int4Matrix) -> torch.Tensor:
        if supports_int4_gemm(len(x), matrix.group):
            return int4_gemm_on_cuda(x, matrix.nibbles, matrix.scale_zero)
        weight = self._scratch_view(matrix.nibbles.numel() * 2, x.dtype).view(matrix.nibbles.shape[1], -1)
        return x @ dequant_int4_on_cuda(matrix.nibbles, matrix.scale_zero, weight)

    def _scaled_blocks(self, nibbles: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """Some blocks, with scales [G, rows], as weights [rows, K] without the zero points.

        Bytes are transposed before they are unpacked: oneDNN is a quarter faster at [rows, K] than at [K, rows].
        """
        blocks, columns, half = nibbles.shape
        transposed = self._scratch_view(nibbles.numel(), torch.uint8).view(blocks, half, columns)
        transposed.copy_(nibbles.transpose(1, 2))
        part = self._scratch_view(nibbles.numel(), torch.int8).view(transposed.shape)
        weight = self._scratch_view(nibbles.numel() * 2, self.dtype).view(blocks, 2, half, columns)
        torch.bitwise_and(transposed, 15, out=part.view(torch.uint8))
        weight[:, 0].copy_(part.sub_(8))
        torch.bitwise_right_shift(transposed, 4, out=part.view(torch.uint8))
        weight[:, 1].copy_(part.sub_(8))
        weight.view(blocks * BLOCK_ROWS, len(scale), -1).mul_(scale.T.contiguous()[..., None])
        return weight.view(-1, columns)

    def _scratch_view(self, numel: int, dtype: torch.dtype) -> torch.Tensor:
        """Scratch memory, valid until the next call with this dtype."""
        if dtype not in self._scratch or self._scratch[dtype].numel() < numel:
            self._scratch.pop(dtype, None)  # first: the memory plan has room for one of them
            self._scratch[dtype] = torch.empty(numel, dtype=dtype, device=self._device)
        return self._scratch[dtype][:numel]


def _dequantised(tile: RowMatrix, out: torch.Tensor) -> torch.Tensor:
    return dequant_ggml_on_cuda(tile, out) if isinstance(tile, GgmlMatrix) else dequantise(tile, out)


def _zero_point_product(x: torch.Tensor, matrix: Int4Matrix) -> torch.Tensor:
    """x times the zero points alone.  They are equal within a group, so the sums of x over groups are enough."""
    sums = x.view(len(x), len(matrix.scale_zero), matrix.group).sum(-1, dtype=torch.float32)
    return sums @ matrix.scale_zero[..., 1].float()


def _linear_f32(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """By oneDNN: 9.5 ms versus 22 for MKL, which F.linear calls (64 rows of [7168, 1024]).

    oneDNN packs its second factor at every call, so the smaller one comes second.
    """
    is_swapped = len(x) <= SWAPPED_ROWS
    first, second = (weight, x) if is_swapped else (x, weight)
    product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(first, second, None, "none", [], "")
    return product.T if is_swapped else product


def _unpadded_linear(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """At the speed of memory: 0.33 ms for one row and 7.3 MB, versus 0.47 for a padded linear."""
    return torch.mv(weight, x[0])[None] if len(x) == 1 else F.linear(x, weight)


def int4pack_mm(x: torch.Tensor, matrix: Int4Matrix, block_rows: int) -> torch.Tensor:
    """By torch's operator, which reads blocks of `block_rows` rows: ours in place (64), or each as two of 32 (AVX2)."""
    blocks, columns, _ = matrix.nibbles.shape
    packed, scale_zero = matrix.nibbles, matrix.scale_zero
    if block_rows == HALF_ROWS:
        # Byte j of a column holds rows (j, j + 32).  Bytes 0 to 15 of all columns make one block of 32 rows, bytes 16
        # to 31 the next.  16 bytes are moved as one complex number (0.3 ms for [7168, 1024], in int64 pairs 1.0).
        packed = packed.view(torch.complex128).transpose(1, 2).contiguous().view(torch.uint8)
        scale_zero = scale_zero.view(-1, blocks, 2, 2, 16, 2).transpose(2, 3).reshape(scale_zero.shape)
    packed = packed.reshape(blocks * BLOCK_ROWS, columns // 2)
    product = torch._weight_int4pack_mm_for_cpu(x.contiguous(), packed, matrix.group, scale_zero)
    if block_rows == HALF_ROWS:
        product = product.view(-1, blocks, 2, 2, 16).transpose(2, 3).reshape(product.shape)
    return product[:, : matrix.num_rows]


@cache
def _ones(count: int) -> torch.Tensor:
    return torch.ones(count, dtype=torch.bfloat16)


@cache
def int4pack_block_rows() -> int:
    """Rows of a block that torch's operator reads on this CPU, 0 = it reads neither layout.  Found out by trying."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(BLOCK_ROWS, 64, generator=generator)
    x = torch.randn(3, 64, generator=generator).bfloat16()
    matrix = matrix_from(quantise(weight, "int4"), BLOCK_ROWS, "int4")
    assert isinstance(matrix, Int4Matrix)
    expected = x.float() @ dequantise(matrix, torch.empty(BLOCK_ROWS, 64)).T
    for block_rows in (BLOCK_ROWS, HALF_ROWS):
        try:
            product = int4pack_mm(x, matrix, block_rows).float()
        except (RuntimeError, AttributeError):
            continue
        if (product - expected).abs().max() < 0.02 * expected.abs().max():
            return block_rows
    return 0
