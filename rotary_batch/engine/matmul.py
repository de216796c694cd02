"""Rows times a stored matrix, by whatever is fastest for the number of rows and the device (fast numerics).

Knows operators and their crossovers, measured on two AMX cores (NOTES.md): every choice gives the same product within
bf16 rounding of `quant.decode` and `linear`.  Knows nothing of what a matrix means.
M = rows of x, N = rows of the matrix (output channels), K = columns, G = groups of columns.
"""

from __future__ import annotations

from functools import cache

import torch
import torch.nn.functional as F

from rotary_batch.engine.kernels import unpack_int4_on_cuda
from rotary_batch.engine.quant import HALF_ROWS, Int4Matrix, Int8Matrix, Matrix, decode, encode, matrix_from
from rotary_batch.model.slabs import BLOCK_ROWS

# Rows of x on a CPU come in multiples of TILE_ROWS, above COARSE_ROWS in multiples of that half: oneDNN keeps code and
# buffers for every count that it meets (690 MB beside the weights after a ragged night, against 450).
TILE_ROWS = 16
COARSE_ROWS = 128
INT8_OPERATOR_ROWS = 8  # up to so many rows torch's weight-only operators beat unpacking: 0.8 against 0.9 ms at 8
INT4_OPERATOR_ROWS = 32  # 11.3 against 13 ms at 32 rows of [14336, 2048], 22 against 14 ms at 64
TILE_BLOCKS = 32  # blocks of 64 rows unpacked at once; wider tiles lose time to strided writes
TILE_NBYTES = 4 * 2**20  # scratch of one int8 tile; stays in the second-level caches


def pad_rows(x: torch.Tensor) -> torch.Tensor:
    """Rows of zeros up to a whole number of tiles."""
    missing = -x.shape[0] % (TILE_ROWS if x.shape[0] <= COARSE_ROWS else COARSE_ROWS // 2)
    return F.pad(x, (0, 0, 0, missing)) if missing else x


class FastMatmul:
    """bf16 rows times stored matrices.  Not shared by threads: the scratch is reused at every call."""

    def __init__(self, device: torch.device) -> None:
        self._on_cpu = device.type == "cpu"
        self._device = device
        self._scratch: dict[torch.dtype, torch.Tensor] = {}

    def linear(self, x: torch.Tensor, matrix: Matrix) -> torch.Tensor:
        """x [M, K] -> [M, N], bf16."""
        if isinstance(matrix, Int4Matrix):
            return self._int4(x, matrix)
        if isinstance(matrix, Int8Matrix):
            return self._int8(x, matrix)
        if matrix.dtype != x.dtype:
            matrix = decode(matrix, self._take(matrix.numel(), x.dtype).view(matrix.shape))
        return self._plain(x, matrix)

    def _plain(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        if not self._on_cpu:
            return F.linear(x, weight)
        if len(x) == 1:  # reads at the speed of memory: 0.33 against 0.47 ms of a padded linear for 7.3 MB
            return torch.mv(weight, x[0])[None]
        return F.linear(pad_rows(x), weight)[: len(x)]

    def _int8(self, x: torch.Tensor, matrix: Int8Matrix) -> torch.Tensor:
        rows, columns = matrix.values.shape
        if self._on_cpu and len(x) <= INT8_OPERATOR_ROWS:
            out = torch._weight_int8pack_mm(x.contiguous(), matrix.values, _ones(rows))
            return out.mul_(matrix.scale)
        out = torch.empty(len(x), rows, dtype=x.dtype, device=x.device)
        padded = pad_rows(x) if self._on_cpu else x
        step = max(1, TILE_NBYTES // (2 * columns)) if self._on_cpu else rows
        for begin in range(0, rows, step):
            values = matrix.values[begin : begin + step]
            weight = self._take(values.numel(), x.dtype).view(values.shape).copy_(values)
            out[:, begin : begin + step] = F.linear(padded, weight)[: len(x)]
        return out.mul_(matrix.scale)

    def _int4(self, x: torch.Tensor, matrix: Int4Matrix) -> torch.Tensor:
        if self._on_cpu and len(x) <= INT4_OPERATOR_ROWS and has_int4_operator():
            return _int4_operator(x, matrix)
        out = torch.empty(len(x), matrix.scale_zero.shape[1], dtype=x.dtype, device=x.device)
        padded = pad_rows(x) if self._on_cpu else x
        for begin in range(0, len(matrix.nibbles), TILE_BLOCKS):
            columns = slice(begin * BLOCK_ROWS, (begin + TILE_BLOCKS) * BLOCK_ROWS)
            weight = self._unpack(matrix.nibbles[begin : begin + TILE_BLOCKS], matrix.scale_zero[:, columns])
            out[:, columns] = (padded @ weight)[: len(x)]
        if self._on_cpu:
            out += _zeros_part(x, matrix)
        return out[:, : matrix.num_rows]

    def _unpack(self, nibbles: torch.Tensor, scale_zero: torch.Tensor) -> torch.Tensor:
        """Some blocks as weights [K, rows]; on a CPU without the zeros, which `_zeros_part` adds afterwards."""
        blocks, columns, _ = nibbles.shape
        weight = self._take(nibbles.numel() * 2, torch.bfloat16).view(columns, -1)
        if not self._on_cpu:
            return unpack_int4_on_cuda(nibbles, scale_zero, weight)
        halves = weight.view(columns, blocks, 2, HALF_ROWS)
        part = self._take(nibbles.numel(), torch.int8).view(nibbles.shape)
        for half in (0, 1):
            if half:
                torch.bitwise_right_shift(nibbles, 4, out=part.view(torch.uint8))
            else:
                torch.bitwise_and(nibbles, 15, out=part.view(torch.uint8))
            halves[:, :, half].copy_(part.sub_(8).transpose(0, 1))
        groups = scale_zero.shape[0]
        weight.view(groups, -1, weight.shape[1]).mul_(scale_zero[..., 0].contiguous()[:, None])
        return weight

    def _take(self, numel: int, dtype: torch.dtype) -> torch.Tensor:
        """Scratch memory, valid until the next call with this dtype."""
        scratch = self._scratch.get(dtype)
        if scratch is None or scratch.numel() < numel:
            scratch = self._scratch[dtype] = torch.empty(numel, dtype=dtype, device=self._device)
        return scratch[:numel]


def _zeros_part(x: torch.Tensor, matrix: Int4Matrix) -> torch.Tensor:
    """x times the zeros alone: they are equal within a group, so the sums of x over groups are enough."""
    sums = x.view(len(x), -1, matrix.group).sum(-1, dtype=torch.float32)
    return sums @ matrix.scale_zero[..., 1].float()


def _int4_operator(x: torch.Tensor, matrix: Int4Matrix) -> torch.Tensor:
    blocks, columns, _ = matrix.nibbles.shape
    packed = matrix.nibbles.view(blocks * BLOCK_ROWS, columns // 2)
    found = torch._weight_int4pack_mm_for_cpu(x.contiguous(), packed, matrix.group, matrix.scale_zero)
    return found[:, : matrix.num_rows]


@cache
def _ones(count: int) -> torch.Tensor:
    return torch.ones(count, dtype=torch.bfloat16)


@cache
def has_int4_operator() -> bool:
    """Whether torch's operator reads our bytes on this processor: tried on a small matrix, not looked up."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(BLOCK_ROWS, 64, generator=generator)
    x = torch.randn(3, 64, generator=generator).bfloat16()
    matrix = matrix_from(encode(weight, "int4"), BLOCK_ROWS)
    assert isinstance(matrix, Int4Matrix)
    expected = x.float() @ decode(matrix, torch.empty(BLOCK_ROWS, 64)).T
    try:
        found = _int4_operator(x, matrix).float()
    except (RuntimeError, AttributeError):
        return False
    return bool((found - expected).abs().max() < 0.02 * expected.abs().max())
