"""The compiled kernels of c/, called with tensors.  Which of them is right for what, dispatch.py says.

What C cannot check is checked here: types, shapes, and whether numbers lie next to each other.
M = rows of x, N = rows of the matrix, K = columns, T = rows of a batch, D = head dimension.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch

from rotary_batch.engine.quant import Int4Matrix, Int8Matrix, Matrix, num_columns, num_rows
from rotary_batch.engine.threads import num_threads

MAX_ATTENTION_ROWS = 64  # of one sequence, times the query heads of a key head
HEAD_PIECE, MAX_HEAD_DIM = 32, 256
TILE_ROWS = 16  # of x, in gemm_amx.c
BLOCK_ROWS = 64  # of an int4 matrix

# The arguments of each function: pointers, sizes; the number of threads comes last.
SIGNATURES = {
    "gemm_avx2_bf16": (3, 3), "gemm_avx2_int8": (3, 3), "gemm_avx2_int4": (4, 4), "dequant_int4_avx2": (3, 4),
    "gemv_avx512bf16_bf16": (3, 3), "gemv_avx512bf16_int8": (4, 3),
    "gemm_avx512bf16_bf16": (4, 3), "gemm_avx512bf16_int8": (5, 3), "gemm_avx512bf16_int4": (6, 4),
    "gemm_amx_bf16": (4, 3), "gemm_amx_int8": (5, 3), "gemm_amx_int4": (6, 4),
}  # fmt: skip


class CpuKernels:
    """The kernels of one library.  They take as many threads as torch does."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._functions = {name: _function(library, name) for name in SIGNATURES if hasattr(library, name)}
        self._attention = _attention(library)

    def _call(self, name: str, tensors: list[torch.Tensor], *sizes: int) -> None:
        """Run a kernel.  The list keeps every tensor alive until it is done."""
        self._functions[name](*(tensor.data_ptr() for tensor in tensors), *sizes, num_threads())

    def gemm_avx2(self, x: torch.Tensor, matrix: Matrix) -> torch.Tensor:
        """x [M, K] float32 -> [M, N] float32."""
        x = _checked(x, matrix, torch.float32)
        if isinstance(matrix, Int4Matrix):
            out = torch.empty(len(x), len(matrix.nibbles) * BLOCK_ROWS)
            self._call("gemm_avx2_int4", [*matrix[:2], x, out], *out.shape, x.shape[1], matrix.group)
            return out[:, : matrix.num_rows]
        out = torch.empty(len(x), num_rows(matrix))
        if isinstance(matrix, Int8Matrix):
            self._call("gemm_avx2_int8", [matrix.values, x, out], *out.shape, x.shape[1])
            return out.mul_(matrix.scale)
        self._call("gemm_avx2_bf16", [matrix, x, out], *out.shape, x.shape[1])
        return out

    def gemv_avx512bf16(self, x: torch.Tensor, matrix: Matrix) -> torch.Tensor:
        """x [M, K] bf16 -> [M, N] bf16, for few rows."""
        x = _checked(x, matrix, torch.bfloat16)
        out = x.new_empty(len(x), num_rows(matrix))
        if isinstance(matrix, Int8Matrix):
            self._call("gemv_avx512bf16_int8", [*matrix, x, out], *out.shape, x.shape[1])
        else:
            assert isinstance(matrix, torch.Tensor)
            self._call("gemv_avx512bf16_bf16", [matrix, x, out], *out.shape, x.shape[1])
        return out

    def gemm_avx512bf16(self, x: torch.Tensor, matrix: Matrix) -> torch.Tensor:
        """x [M, K] bf16 -> [M, N] bf16."""
        return self._gemm_bf16("gemm_avx512bf16", x, matrix)

    def gemm_amx(self, x: torch.Tensor, matrix: Matrix) -> torch.Tensor:
        """x [M, K] bf16 -> [M, N] bf16."""
        return self._gemm_bf16("gemm_amx", x, matrix)

    def _gemm_bf16(self, name: str, x: torch.Tensor, matrix: Matrix) -> torch.Tensor:
        x = _checked(x, matrix, torch.bfloat16)
        packed_x = x.new_empty(-(-len(x) // TILE_ROWS) * TILE_ROWS, x.shape[1])
        if isinstance(matrix, Int4Matrix):
            out = x.new_empty(len(x), len(matrix.nibbles) * BLOCK_ROWS)
            sums = x.view(len(x), -1, matrix.group).sum(-1, dtype=torch.float32)
            tensors = [*matrix[:2], x, packed_x, out, sums]
            self._call(f"{name}_int4", tensors, *out.shape, x.shape[1], matrix.group)
            return out[:, : matrix.num_rows]
        out = x.new_empty(len(x), num_rows(matrix))
        stored = list(matrix) if isinstance(matrix, Int8Matrix) else [matrix]
        kind = "int8" if isinstance(matrix, Int8Matrix) else "bf16"
        self._call(f"{name}_{kind}", [*stored, x, packed_x, out], *out.shape, x.shape[1])
        return out

    def dequant_int4(self, matrix: Int4Matrix, first_block: int, out: torch.Tensor) -> torch.Tensor:
        """Blocks of a matrix from `first_block` on -> out [rows, K] bf16, as `quant.decode` rounds them."""
        blocks, columns, _ = matrix.nibbles.shape
        _check(out.dtype == torch.bfloat16 and out.shape[1] == columns, matrix, out)
        _check(first_block + len(out) // BLOCK_ROWS <= blocks and len(out) % BLOCK_ROWS == 0, matrix, out)
        _check(all(tensor.is_contiguous() for tensor in (*matrix[:2], out)), matrix, out)
        parts = [matrix.nibbles[first_block:], matrix.scale_zero[:, first_block * BLOCK_ROWS :], out]
        self._call("dequant_int4_avx2", parts, len(out), matrix.scale_zero.shape[1], columns, matrix.group)
        return out

    @staticmethod
    def takes_heads(head_dim: int) -> bool:
        """Whether `attend` knows this head dimension."""
        return head_dim % HEAD_PIECE == 0 and head_dim <= MAX_HEAD_DIM

    def attend(
        self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, out: torch.Tensor, spans: torch.Tensor,
        window: int,
    ) -> None:  # fmt: skip
        """queries [T, heads, D] float32, keys and values [tokens, kv heads, D] bf16; writes the rows of spans to out.

        spans [n, 6] int64 = attention.Rows; a row sees `window` keys back, itself included.
        """
        queries, (_, kv_heads, head_dim) = queries.contiguous(), keys.shape
        tensors = [queries, keys, values, out, spans]
        types = [torch.float32, torch.bfloat16, torch.bfloat16, torch.float32, torch.int64]
        if [tensor.dtype for tensor in tensors] != types or not all(tensor.is_contiguous() for tensor in tensors):
            raise ValueError(f"attention cannot read {[(tensor.dtype, tensor.stride()) for tensor in tensors]}")
        groups = queries.shape[1] // kv_heads
        pointers, threads = [tensor.data_ptr() for tensor in tensors], num_threads()
        self._attention(*pointers, len(spans), kv_heads, groups, head_dim, window, head_dim**-0.5, threads)


def _function(library: ctypes.CDLL, name: str) -> Any:  # noqa: ANN401 - ctypes has no type
    pointers, longs = SIGNATURES[name]
    function = library[name]
    function.argtypes = [ctypes.c_void_p] * pointers + [ctypes.c_long] * longs + [ctypes.c_int]
    function.restype = None
    return function


def _attention(library: ctypes.CDLL) -> Any:  # noqa: ANN401
    function = library["attention_avx2"]
    function.argtypes = [ctypes.c_void_p] * 5 + [ctypes.c_long] * 5 + [ctypes.c_float, ctypes.c_int]
    function.restype = None
    return function


def _checked(x: torch.Tensor, matrix: Matrix, dtype: torch.dtype) -> torch.Tensor:
    _check(x.dtype == dtype and x.dim() == 2 and x.shape[1] == num_columns(matrix), matrix, x)
    return x.contiguous()


def _check(is_right: bool, matrix: Matrix, rows: torch.Tensor) -> None:  # noqa: FBT001
    """C would read or write past the end."""
    if not is_right:
        shape = (num_rows(matrix), num_columns(matrix))
        raise ValueError(f"a matrix {shape} does not go with rows {tuple(rows.shape)} of {rows.dtype}")
