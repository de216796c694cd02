"""The compiled kernels of c/, called with tensors.  dispatch.py chooses among them.

What C cannot check is checked here, by raising: types, shapes, and whether numbers lie next to each other.
M = rows of x, N = rows of the matrix, K = columns, T = rows of a batch, D = head dimension.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from functools import cache
from typing import Any

import torch

from rotary_batch.config import kernel_dir
from rotary_batch.engine.kernels.build import IS_X86, Library, open_library
from rotary_batch.engine.kernels.dispatch import FUNCTIONS, Level, Product, cap, choose
from rotary_batch.engine.kernels.quant import Int4Matrix, Int8Matrix, Matrix, num_columns, num_rows
from rotary_batch.engine.kernels.threads import num_threads
from rotary_batch.log import event

SPAN_FIELDS = 6  # attention.Rows
MAX_ATTENTION_ROWS = 64  # of one sequence, times the query heads of a key head
HEAD_PIECE, MAX_HEAD_DIM = 32, 256
TILE_ROWS, TILE_COLUMNS, MAX_GROUP = 16, 32, 512  # gemm_bf16.c: of x, of a matrix, columns of int4 that go at once
BLOCK_ROWS = 64  # of an int4 matrix
GEMV_ROWS = 4  # gemv_avx512bf16.c: of x in registers
DTYPES = {torch.float32: "f32", torch.bfloat16: "bf16"}


class CpuKernels:
    """The kernels of one library.  They take as many threads as torch does."""

    def __init__(self, library: Library, *, has_bf16: bool) -> None:
        self.has_bf16 = has_bf16  # whether products of bf16 rows are faster than those of float32
        self.levels, self.level = library.levels, library.level
        functions = library.functions
        self._functions = {name: _function(functions, name) for name in FUNCTIONS if hasattr(functions, name)}
        self._attention = _attention(functions) if functions and Level.AVX2 in library.levels else None

    def way(self, x: torch.Tensor, matrix: Matrix) -> str:
        """The way to multiply them that is the fastest: a method of this class, or one of torch's ways (torch_*)."""
        return choose(Product(DTYPES[x.dtype], *_described(matrix), (len(x), *_shape(matrix))), self.levels)

    def _call(self, name: str, tensors: list[torch.Tensor], *sizes: int) -> None:
        """Run a kernel.  The list keeps every tensor alive until it is done."""
        self._functions[name](*(tensor.data_ptr() for tensor in tensors), *sizes, num_threads())

    def gemm_avx2(self, x: torch.Tensor, matrix: Matrix) -> torch.Tensor:
        """x [M, K] float32 -> [M, N] float32."""
        x = _checked(x, matrix, torch.float32, multiples=(4, 8))
        if isinstance(matrix, Int4Matrix):
            out = x.new_empty(len(x), len(matrix.nibbles) * BLOCK_ROWS)
            self._call("gemm_avx2_int4", [*matrix[:2], x, out], *out.shape, x.shape[1], matrix.group)
            return out[:, : matrix.num_rows]
        out = x.new_empty(len(x), num_rows(matrix))
        if isinstance(matrix, Int8Matrix):
            self._call("gemm_avx2_int8", [matrix.values, x, out], *out.shape, x.shape[1])
            return out.mul_(matrix.scale)
        self._call("gemm_avx2_bf16", [matrix, x, out], *out.shape, x.shape[1])
        return out

    def gemv_avx512bf16(self, x: torch.Tensor, matrix: Matrix) -> torch.Tensor:
        """x [M, K] bf16 -> [M, N] bf16, for 1 to 4 rows and no int4."""
        x = _checked(x, matrix, torch.bfloat16, multiples=(4, 32))
        if not 1 <= len(x) <= GEMV_ROWS or isinstance(matrix, Int4Matrix):
            raise ValueError(f"{len(x)} rows times {type(matrix).__name__} are not for gemv_avx512bf16")
        out = x.new_empty(len(x), num_rows(matrix))
        self._call(f"gemv_avx512bf16_{_described(matrix)[0]}", [*_parts(matrix), x, out], *out.shape, x.shape[1])
        return out

    def gemm_avx512bf16(self, x: torch.Tensor, matrix: Matrix) -> torch.Tensor:
        """x [M, K] bf16 -> [M, N] bf16."""
        return self._gemm_bf16("gemm_avx512bf16", x, matrix)

    def gemm_amx(self, x: torch.Tensor, matrix: Matrix) -> torch.Tensor:
        """x [M, K] bf16 -> [M, N] bf16."""
        return self._gemm_bf16("gemm_amx", x, matrix)

    def _gemm_bf16(self, name: str, x: torch.Tensor, matrix: Matrix) -> torch.Tensor:
        x = _checked(x, matrix, torch.bfloat16, multiples=(BLOCK_ROWS, TILE_COLUMNS))
        packed_x = x.new_empty(-(-len(x) // TILE_ROWS) * TILE_ROWS, x.shape[1])
        if isinstance(matrix, Int4Matrix):
            if matrix.group % TILE_COLUMNS or matrix.group > MAX_GROUP:
                raise ValueError(f"{name} cannot read groups of {matrix.group} columns")
            out = x.new_empty(len(x), len(matrix.nibbles) * BLOCK_ROWS)
            sums = x.view(len(x), -1, matrix.group).sum(-1, dtype=torch.float32)
            tensors = [*_parts(matrix), x, packed_x, out, sums]
            self._call(f"{name}_int4", tensors, *out.shape, x.shape[1], matrix.group)
            return out[:, : matrix.num_rows]
        out = x.new_empty(len(x), num_rows(matrix))
        tensors = [*_parts(matrix), x, packed_x, out]
        self._call(f"{name}_{_described(matrix)[0]}", tensors, *out.shape, x.shape[1])
        return out

    def takes_heads(self, head_dim: int) -> bool:
        """Whether `attend` is there, and knows this head dimension."""
        return self._attention is not None and head_dim % HEAD_PIECE == 0 and head_dim <= MAX_HEAD_DIM

    def attend(
        self,
        queries: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        out: torch.Tensor,
        spans: torch.Tensor,
        window: int,
    ) -> None:
        """queries [T, heads, D] float32, keys and values [tokens, kv heads, D] bf16; writes the rows of spans to out.

        spans [n, 6] int64 = attention.Rows; a row sees `window` keys back, itself included.
        """
        if self._attention is None:
            raise ValueError(f"there is no attention at level {self.level.label}")
        queries, (_, kv_heads, head_dim) = queries.contiguous(), keys.shape
        tensors = [queries, keys, values, out, spans]
        types = [torch.float32, torch.bfloat16, torch.bfloat16, torch.float32, torch.int64]
        if [tensor.dtype for tensor in tensors] != types or not all(tensor.is_contiguous() for tensor in tensors):
            raise ValueError(f"attention cannot read {[(tensor.dtype, tensor.stride()) for tensor in tensors]}")
        groups = queries.shape[1] // kv_heads
        shapes = [tuple(tensor.shape) for tensor in tensors]
        heads = (kv_heads * groups, head_dim)
        if shapes[0][1:] != heads or shapes[3] != shapes[0] or shapes[2] != shapes[1] or not self.takes_heads(head_dim):
            raise ValueError(f"queries, keys, values and out do not go together: {shapes}")
        if window < 1 or not _are_inside(spans, len(queries), len(keys), groups):
            raise ValueError(f"spans {spans.tolist()} or window {window} leave {len(queries)} rows, {len(keys)} keys")
        pointers, threads = [tensor.data_ptr() for tensor in tensors], num_threads()
        self._attention(*pointers, len(spans), kv_heads, groups, head_dim, window, head_dim**-0.5, threads)


@cache
def load(most: Level) -> CpuKernels:
    """The kernels up to a level, built at first use; those that cannot be had are left out."""
    library = open_library(kernel_dir(os.environ), most)
    for level, reason in library.left_out.items():
        event("kernels left out", level=level.label, reason=reason)
    cannot_build = library.functions is None and most >= Level.AVX512_BF16
    has_bf16 = library.level >= Level.AVX512_BF16 or (cannot_build and _torch_has_bf16())
    return CpuKernels(library, has_bf16=has_bf16)


def _torch_has_bf16() -> bool:
    """Whether torch's own products of bf16 are more than an emulation."""
    if IS_X86:
        return torch.cpu._is_avx512_bf16_supported()
    found: bool = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return found


def default(max_isa: str | None = None) -> CpuKernels:
    """Those that `max_isa` allows, else the environment.  Raises ConfigError."""
    return load(cap(os.environ, max_isa))


def _function(library: Any, name: str) -> Any:  # noqa: ANN401 - ctypes has no type
    pointers, longs = FUNCTIONS[name]
    function = library[name]
    function.argtypes = [ctypes.c_void_p] * pointers + [ctypes.c_long] * longs + [ctypes.c_int]
    function.restype = None
    return function


def _attention(library: ctypes.CDLL) -> Callable[..., None]:
    function = library["attention_avx2"]
    function.argtypes = [ctypes.c_void_p] * 5 + [ctypes.c_long] * 5 + [ctypes.c_float, ctypes.c_int]
    function.restype = None
    return function


def _shape(matrix: Matrix) -> tuple[int, int]:
    return num_rows(matrix), num_columns(matrix)


def _described(matrix: Matrix) -> tuple[str, bool]:
    """How it is stored, and whether its numbers lie next to each other."""
    if isinstance(matrix, Int4Matrix):
        return "int4", matrix.nibbles.is_contiguous() and matrix.scale_zero.is_contiguous()
    if isinstance(matrix, Int8Matrix):
        return "int8", matrix.values.is_contiguous() and matrix.scale.is_contiguous()
    return DTYPES.get(matrix.dtype, str(matrix.dtype)), matrix.is_contiguous()


def _parts(matrix: Matrix) -> list[torch.Tensor]:
    """The tensors of a matrix, as kernels take them."""
    if isinstance(matrix, torch.Tensor):
        return [matrix]
    return [matrix.values, matrix.scale] if isinstance(matrix, Int8Matrix) else [matrix.nibbles, matrix.scale_zero]


def _checked(x: torch.Tensor, matrix: Matrix, dtype: torch.dtype, multiples: tuple[int, int]) -> torch.Tensor:
    """x, contiguous.  Raises ValueError for what a kernel would read past the end of."""
    stored_as, is_packed = _described(matrix)
    parts = [(tuple(part.shape), part.dtype) for part in _parts(matrix)]
    is_whole = stored_as == "int4" or not any(map(int.__mod__, _shape(matrix), multiples))
    if not (is_packed and is_whole and _fits(matrix) and (x.dtype, x.shape[1:]) == (dtype, (num_columns(matrix),))):
        raise ValueError(f"rows {tuple(x.shape)} of {x.dtype} do not go with a matrix {parts}, or not by this kernel")
    return x.contiguous()


def _fits(matrix: Matrix) -> bool:
    """Whether types and shapes of its parts are those of the format."""
    if isinstance(matrix, Int4Matrix):
        blocks, columns, half = matrix.nibbles.shape
        groups, rows, pair = matrix.scale_zero.shape
        sizes = (half, rows, pair, columns % groups) == (BLOCK_ROWS // 2, blocks * BLOCK_ROWS, 2, 0)
        return sizes and (matrix.nibbles.dtype, matrix.scale_zero.dtype) == (torch.uint8, torch.bfloat16)
    if isinstance(matrix, Int8Matrix):
        types = (matrix.values.dtype, matrix.scale.dtype) == (torch.int8, torch.float32)
        return types and matrix.values.dim() == 2 and matrix.scale.shape == (matrix.num_rows,)
    return matrix.dtype == torch.bfloat16 and matrix.dim() == 2


def _are_inside(spans: torch.Tensor, num_rows: int, num_kv_tokens: int, groups: int) -> bool:
    """Whether no span reaches outside the rows, the keys, or what a kernel keeps on its stack."""
    if spans.dim() != 2 or spans.shape[1] != SPAN_FIELDS:
        return False
    first_row, rows, position, kv_start, prefix_start, prefix = spans.unbind(1)
    own = (position + rows - prefix).clamp_min(0)
    inside = (spans >= 0).all(1) & (rows >= 1) & (rows * groups <= MAX_ATTENTION_ROWS) & (first_row + rows <= num_rows)
    return bool((inside & (kv_start + own <= num_kv_tokens) & (prefix_start + prefix <= num_kv_tokens)).all())
