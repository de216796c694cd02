"""The compiled kernels, native*.c, called with tensors, where a compiler is there and they help.

Knows pointers, and which kernel is right for what; compiling.py builds them.  Without a compiler, or when a result is
wrong, `load()` gives None and torch's operators do the work.
M = rows of x, N = rows of the matrix, K = columns, T = rows of a batch, D = head dimension.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from functools import cache

import torch

from rotary_batch.config import cache_dir
from rotary_batch.engine.compiling import function, library
from rotary_batch.engine.native_bf16 import Bf16Products
from rotary_batch.engine.quant import Int4Matrix, Int8Matrix, Matrix, decode, encode, matrix_from, num_columns, num_rows
from rotary_batch.log import event

OUTPUTS, LANES = 4, 8  # rows of a matrix and columns come in multiples of these
HEAD_PIECE, MAX_HEAD_DIM = 32, 256
# Up to so many rows the products of bf16 and int8 win: torch's keep large x in the caches.  1e-10 s a weight of
# [1024, 3584] at 1, 8, 64, 256, 512 rows: bf16 0.8, 1.7, 11, 42, 96 and torch's 1.2, 5.3, 14, 44, 85; int8 0.5, 1.7,
# 11, 41, 82 and 0.7, 2.7, 14, 37, 72.  int4 wins at all of them: 0.7, 1.6, 10, 37, 82 and 1.3, 2.9, 18, 46, 90.
PLAIN_ROWS = 256


class Native:
    """The kernels, called with tensors.  They take as many threads as torch does, with gcc from the same pool."""

    MAX_ATTENTION_ROWS = 64  # of one sequence, times the query heads of a key head

    def __init__(self, library: ctypes.CDLL) -> None:
        self._bf16 = function(library, "linear_bf16", pointers=3, longs=3)
        self._int8 = function(library, "linear_int8", pointers=3, longs=3)
        self._int4 = function(library, "linear_int4", pointers=4, longs=4)
        self._unpack = function(library, "unpack_int4_bf16", pointers=3, longs=4)
        self._attend = function(library, "attend", pointers=5, longs=5)
        self._attend.argtypes = [*self._attend.argtypes[:-1], ctypes.c_float, ctypes.c_int]
        self.bf16_products = Bf16Products(library)

    @staticmethod
    def takes(matrix: Matrix, rows: int) -> bool:
        """Whether this is the fastest way for so many rows, and the matrix lies in a way that the kernels know."""
        if isinstance(matrix, Int4Matrix):
            return matrix.nibbles.is_contiguous() and matrix.scale_zero.is_contiguous()
        values = matrix.values if isinstance(matrix, Int8Matrix) else matrix
        is_whole = num_rows(matrix) % OUTPUTS == 0 and num_columns(matrix) % LANES == 0 and values.is_contiguous()
        return values.dtype in (torch.int8, torch.bfloat16) and rows <= PLAIN_ROWS and is_whole

    def linear(self, x: torch.Tensor, matrix: Matrix) -> torch.Tensor:
        """x [M, K] float32 -> [M, N] float32."""
        assert (x.dtype, x.shape[1]) == (torch.float32, num_columns(matrix)), "C would read past the end"
        x, threads = x.contiguous(), torch.get_num_threads()
        if isinstance(matrix, Int4Matrix):
            blocks, columns, half = matrix.nibbles.shape
            out = torch.empty(len(x), blocks * half * 2)
            parts = (matrix.nibbles.data_ptr(), matrix.scale_zero.data_ptr(), x.data_ptr(), out.data_ptr())
            self._int4(*parts, len(x), out.shape[1], columns, matrix.group, threads)
            return out[:, : matrix.num_rows]
        out = torch.empty(len(x), num_rows(matrix))
        if isinstance(matrix, Int8Matrix):
            self._int8(matrix.values.data_ptr(), x.data_ptr(), out.data_ptr(), *out.shape, x.shape[1], threads)
            return out.mul_(matrix.scale)
        self._bf16(matrix.data_ptr(), x.data_ptr(), out.data_ptr(), *out.shape, x.shape[1], threads)
        return out

    def unpack_int4(self, matrix: Int4Matrix, first_block: int, out: torch.Tensor) -> torch.Tensor:
        """Blocks of a matrix from `first_block` on -> out [rows, K] bf16, as `quant.decode` rounds them."""
        blocks, columns, half = matrix.nibbles.shape
        assert (out.dtype, out.shape[1]) == (torch.bfloat16, columns), "C knows no types"
        assert first_block + len(out) // (2 * half) <= blocks, "C would read past the end"
        assert all(tensor.is_contiguous() for tensor in (matrix.nibbles, matrix.scale_zero, out)), "C knows no strides"
        nibbles = matrix.nibbles.data_ptr() + first_block * half * columns
        scale_zero = matrix.scale_zero.data_ptr() + first_block * 2 * half * 2 * matrix.scale_zero.itemsize
        stored_rows = matrix.scale_zero.shape[1]
        self._unpack(
            nibbles, scale_zero, out.data_ptr(), len(out), stored_rows, columns, matrix.group, torch.get_num_threads()
        )
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
        kinds = (torch.float32, torch.float32, torch.bfloat16, torch.bfloat16, torch.int64)
        assert tuple(tensor.dtype for tensor in (queries, out, keys, values, spans)) == kinds, "C knows no types"
        assert all(tensor.is_contiguous() for tensor in (keys, values, out, spans)), "C knows no strides"
        pointers = [tensor.data_ptr() for tensor in (queries, keys, values, out, spans)]
        groups = queries.shape[1] // kv_heads
        self._attend(*pointers, len(spans), kv_heads, groups, head_dim, window, head_dim**-0.5, torch.get_num_threads())


def is_wanted() -> bool:
    """Whether this processor has AVX2."""
    return torch.backends.cpu.get_cpu_capability().startswith("AVX")


@cache
def load() -> Native | None:
    """The kernels, built at first use; None where they are not wanted or cannot be had."""
    if not is_wanted():
        return None
    try:
        native = Native(library(cache_dir(os.environ)))
    except subprocess.CalledProcessError as error:
        event("kernels not built", reason=error.stderr.decode(errors="replace")[-500:])
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        event("kernels not built", reason=str(error))
    else:
        if (wrong := _first_wrong(native)) is None:
            return native
        event("kernels compute wrongly", what=wrong)
    return None


def _first_wrong(native: Native) -> str | None:
    """The first kernel that does not give the reference's result: a library that was built wrongly is not used."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(132, 192, generator=generator).bfloat16()  # two whole blocks and four rows, three steps
    for stored_as in ("bf16", "int8", "int4"):
        matrix = matrix_from(encode(weight, stored_as), len(weight))
        for rows in (3, 50):  # few, many
            x = torch.randn(rows, 192, generator=generator)
            expected = x @ decode(matrix, torch.empty(weight.shape)).T
            if not torch.allclose(native.linear(x, matrix), expected, rtol=1e-4, atol=1e-3):
                return stored_as
    assert isinstance(matrix, Int4Matrix)
    unpacked = native.unpack_int4(matrix, 1, torch.zeros(128, 192, dtype=torch.bfloat16))[:68]
    if not torch.equal(unpacked, decode(matrix, torch.empty(weight.shape)).bfloat16()[64:]):
        return "unpacking"
    if not _bf16_products_are_right(native.bf16_products, generator):
        return "bf16 rows"
    return None if _attention_is_right(native, generator) else "attention"


def _bf16_products_are_right(products: Bf16Products, generator: torch.Generator) -> bool:
    weight = torch.randn(128, 544, generator=generator).bfloat16()  # two panels, more columns than go at once
    for stored_as in ("bf16", "int8", "int4"):
        matrix = matrix_from(encode(weight, stored_as), len(weight))
        for rows in (3, 5, 50):  # in registers; one tile; several
            x = torch.randn(rows, weight.shape[1], generator=generator).bfloat16()
            expected = x.float() @ decode(matrix, torch.empty(weight.shape)).T
            if products.takes(matrix, rows) and not torch.allclose(
                products.linear(x, matrix).float(), expected, rtol=1e-2, atol=1e-2
            ):
                return False
    return True


def _attention_is_right(native: Native, generator: torch.Generator) -> bool:
    """One row of two query heads that sees 70 keys back: 20 of a prefix, which lies behind its 50 own ones."""
    queries, keys, values = (torch.randn(n, h, 64, generator=generator) for n, h in ((1, 2), (90, 1), (90, 1)))
    keys, values, out = keys.bfloat16(), values.bfloat16(), torch.empty_like(queries)
    native.attend(queries, keys, values, out, torch.tensor([[0, 1, 79, 0, 60, 30]]), 70)
    seen = [*range(70, 90), *range(50)]
    expected = (queries[0] @ keys[seen, 0].float().T * 64**-0.5).softmax(-1) @ values[seen, 0].float()
    return torch.allclose(out[0], expected, rtol=1e-4, atol=1e-4)
