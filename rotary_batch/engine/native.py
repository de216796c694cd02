"""The compiled kernels, native*.c: built once with the machine's C compiler, where there is one and they help.

Knows compilers, a cache folder and pointers.  Without a compiler, or when a result is wrong, `load()` gives None and
torch's operators do the work.
M = rows of x, N = rows of the matrix, K = columns, T = rows of a batch, D = head dimension.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import torch

from rotary_batch.config import c_compiler, cache_dir
from rotary_batch.engine.quant import Int4Matrix, Int8Matrix, Matrix, decode, encode, matrix_from, num_columns, num_rows

LOG = logging.getLogger(__name__)
SOURCES = tuple(Path(__file__).with_name(name) for name in ("native.h", "native.c", "native_attention.c"))
# AVX2 and FMA by name, not -march=native: the cache folder may be shared by machines.
FLAGS = ("-O3", "-mavx2", "-mfma", "-fopenmp", "-fPIC", "-shared")
COMPILE_S = 120
OUTPUTS, LANES = 4, 8  # rows of a matrix and columns come in multiples of these
# Up to so many rows the products of bf16 and int8 win: torch's keep large x in the caches.  1e-10 s a weight of
# [1024, 3584] at 1, 8, 64, 256, 512 rows: bf16 0.8, 1.7, 11, 42, 96 and torch's 1.2, 5.3, 14, 44, 85; int8 0.5, 1.7,
# 11, 41, 82 and 0.7, 2.7, 14, 37, 72.  int4 wins at all of them: 0.7, 1.6, 10, 37, 82 and 1.3, 2.9, 18, 46, 90.
PLAIN_ROWS = 256


class Native:
    """The kernels, called with tensors.  Threads are those of torch: both use the OpenMP that is loaded first."""

    MAX_ATTENTION_ROWS = 64  # of one sequence, times the query heads of a key head

    def __init__(self, library: ctypes.CDLL) -> None:
        pointer, long = ctypes.c_void_p, ctypes.c_long
        self._bf16, self._int8, self._int4 = library.linear_bf16, library.linear_int8, library.linear_int4
        for function in (self._bf16, self._int8):
            function.argtypes = [pointer, pointer, pointer, long, long, long, ctypes.c_int]
        self._int4.argtypes = [pointer, pointer, pointer, pointer, long, long, long, long, ctypes.c_int]
        self._attend = library.attend
        floating, whole = ctypes.c_float, ctypes.c_int
        self._attend.argtypes = [pointer] * 5 + [long] * 5 + [floating, whole]
        for function in (self._bf16, self._int8, self._int4, self._attend):
            function.restype = None

    @staticmethod
    def takes(matrix: Matrix, rows: int) -> bool:
        """Whether this is the fastest way for so many rows, and the shape is one that the kernels know."""
        if isinstance(matrix, Int4Matrix):
            return True
        known = isinstance(matrix, Int8Matrix) or matrix.dtype == torch.bfloat16
        return known and rows <= PLAIN_ROWS and num_rows(matrix) % OUTPUTS == 0 and num_columns(matrix) % LANES == 0

    def linear(self, x: torch.Tensor, matrix: Matrix) -> torch.Tensor:
        """x [M, K] float32 -> [M, N] float32."""
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

    @staticmethod
    def takes_heads(head_dim: int) -> bool:
        """Whether `attend` knows this head dimension."""
        return head_dim % 32 == 0 and head_dim <= 256

    def attend(
        self, queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, out: torch.Tensor, spans: torch.Tensor,
        window: int,
    ) -> None:  # fmt: skip
        """queries [T, heads, D] float32, keys and values [tokens, kv heads, D] bf16; writes the rows of spans to out.

        spans [n, 6] int64 = attention.Rows; a row sees `window` keys back, itself included.
        """
        queries, (_, kv_heads, head_dim) = queries.contiguous(), keys.shape
        pointers = [tensor.data_ptr() for tensor in (queries, keys, values, out, spans)]
        groups = queries.shape[1] // kv_heads
        self._attend(*pointers, len(spans), kv_heads, groups, head_dim, window, head_dim**-0.5, torch.get_num_threads())


@cache
def load() -> Native | None:
    """The kernels, built at first use; None where they cannot be had."""
    if torch.backends.cpu.get_cpu_capability() != "AVX2":
        return None
    try:
        library = _library(cache_dir(os.environ))
        native = Native(ctypes.CDLL(str(library)))
    except (OSError, subprocess.SubprocessError, AttributeError) as error:
        LOG.info("compiled kernels are not used: %s", error)
        return None
    return native if _is_right(native) else None


def _library(folder: Path) -> Path:
    """The shared library in the cache folder; compiled when it is not there.  Raises OSError, SubprocessError."""
    key = hashlib.sha256(b"".join([" ".join(FLAGS).encode(), *(path.read_bytes() for path in SOURCES)])).hexdigest()[
        :16
    ]
    library = folder / f"native-{key}.so"
    if library.is_file():
        return library
    compiler = c_compiler(os.environ)
    if compiler is None:
        raise OSError("there is no C compiler (cc, gcc or clang)")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        built = Path(temporary) / library.name
        command = [compiler, *FLAGS, *(str(path) for path in SOURCES if path.suffix == ".c"), "-o", str(built)]
        subprocess.run(command, check=True, capture_output=True, timeout=COMPILE_S)
        built.replace(library)
    return library


def _is_right(native: Native) -> bool:
    """Whether every kernel gives the reference's product: a library that was damaged or built wrongly is not used."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(128, 64, generator=generator).bfloat16()
    x = torch.randn(7, 64, generator=generator)
    for stored_as in ("bf16", "int8", "int4"):
        matrix = matrix_from(encode(weight, stored_as), len(weight))
        expected = x @ decode(matrix, torch.empty(weight.shape)).T
        if not torch.allclose(native.linear(x, matrix), expected, rtol=1e-4, atol=1e-4):
            LOG.warning("compiled kernels are wrong for %s and not used; remove native-*.so", stored_as)
            return False
    return _attention_is_right(native, generator)


def _attention_is_right(native: Native, generator: torch.Generator) -> bool:
    """One row of two query heads over 70 keys of one head."""
    queries, keys, values = (torch.randn(n, h, 32, generator=generator) for n, h in ((1, 2), (70, 1), (70, 1)))
    keys, values, out = keys.bfloat16(), values.bfloat16(), torch.empty_like(queries)
    native.attend(queries, keys, values, out, torch.tensor([[0, 1, 69, 0, 0, 0]]), 70)
    expected = (queries[0] @ keys[:, 0].float().T * 32**-0.5).softmax(-1) @ values[:, 0].float()
    if right := torch.allclose(out[0], expected, rtol=1e-4, atol=1e-4):
        return right
    LOG.warning("compiled kernels are wrong for attention and not used; remove native-*.so")
    return False
