"""Which kernel does what on this processor: levels of instructions, and one table of choices.

Without a compiler, or when a kernel computes wrongly, `load()` gives None and torch's operators do the work.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from enum import IntEnum
from functools import cache
from typing import NamedTuple

import torch

from rotary_batch.config import cache_dir
from rotary_batch.engine.kernels.build import Built, Unit, built
from rotary_batch.engine.kernels.cpu import CpuKernels
from rotary_batch.engine.quant import Int4Matrix, Int8Matrix, Matrix, decode, encode, matrix_from, num_columns, num_rows
from rotary_batch.log import event


class Level(IntEnum):
    """Instructions that a processor has; each level has those below it too."""

    PORTABLE = 0  # torch's operators alone
    AVX2 = 1
    AVX512_BF16 = 2
    AMX = 3


_AVX2 = ("-mavx2", "-mfma")
_AVX512_BF16 = (*_AVX2, "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512vbmi", "-mavx512bf16")
_AMX = (*_AVX512_BF16, "-mamx-tile", "-mamx-bf16", "-DUSE_AMX")
UNITS = (
    Unit(Level.PORTABLE.name, ("detect.c", "pool.c"), ()),
    Unit(Level.AVX2.name, ("gemm_avx2.c", "dequant_avx2.c", "attention_avx2.c"), _AVX2),
    Unit(Level.AVX512_BF16.name, ("gemv_avx512bf16.c", "gemm_bf16.c"), _AVX512_BF16),
    Unit(Level.AMX.name, ("gemm_bf16.c",), _AMX),
)


class Choice(NamedTuple):
    """Where a kernel is the fastest: for rows of `x` times matrices stored in one of `formats`."""

    kernel: str  # a method of CpuKernels
    level: Level
    x: torch.dtype
    formats: tuple[str, ...]
    rows: range  # of x
    multiple: tuple[int, int]  # of rows and of columns of the matrix


ANY = 2**31
# Of float32 rows: up to 256 the products of bf16 and int8 win; torch's keep large x in the caches.  1e-10 s a weight
# of [1024, 3584] at 1, 8, 64, 256, 512 rows: bf16 0.8, 1.7, 11, 42, 96 and torch's 1.2, 5.3, 14, 44, 85; int8 0.5, 1.7,
# 11, 41, 82 and 0.7, 2.7, 14, 37, 72.  int4 wins at all of them: 0.7, 1.6, 10, 37, 82 and 1.3, 2.9, 18, 46, 90.
# One bf16 row times int4 goes faster by torch's operator: 0.31 ms, by tiles 0.38 for [7168, 1024]; two rows 0.40, 0.32.
CHOICES = (
    Choice("gemm_avx2", Level.AVX2, torch.float32, ("bf16", "int8"), range(257), (4, 8)),
    Choice("gemm_avx2", Level.AVX2, torch.float32, ("int4",), range(ANY), (1, 1)),
    Choice("gemv_avx512bf16", Level.AVX512_BF16, torch.bfloat16, ("bf16", "int8"), range(1, 5), (4, 32)),
    Choice("gemm_amx", Level.AMX, torch.bfloat16, ("bf16", "int8"), range(1, ANY), (64, 32)),
    Choice("gemm_amx", Level.AMX, torch.bfloat16, ("int4",), range(2, ANY), (1, 32)),
    Choice("gemm_avx512bf16", Level.AVX512_BF16, torch.bfloat16, ("bf16", "int8"), range(1, ANY), (64, 32)),
    Choice("gemm_avx512bf16", Level.AVX512_BF16, torch.bfloat16, ("int4",), range(1, ANY), (1, 32)),
)


class Dispatch:
    """The kernels that work here, and the choice among them."""

    def __init__(self, kernels: CpuKernels, level: Level) -> None:
        self.kernels, self.level = kernels, level

    def product(self, x: torch.Tensor, matrix: Matrix) -> Callable[[torch.Tensor, Matrix], torch.Tensor] | None:
        """What multiplies them faster than torch, if anything does."""
        chosen = choose(self.level, x.dtype, matrix, len(x))
        return getattr(self.kernels, chosen) if chosen else None


def choose(level: Level, x: torch.dtype, matrix: Matrix, rows: int) -> str | None:
    """The first kernel of CHOICES that takes so many rows times this matrix."""
    stored_as, shape = _stored_as(matrix), (num_rows(matrix), num_columns(matrix))
    for choice in CHOICES:
        whole = not any(size % multiple for size, multiple in zip(shape, choice.multiple, strict=True))
        if level >= choice.level and x == choice.x and stored_as in choice.formats and rows in choice.rows and whole:
            return choice.kernel
    return None


def _stored_as(matrix: Matrix) -> str:
    """The format, '' for what no kernel can read."""
    if isinstance(matrix, Int4Matrix):
        return "int4" if matrix.nibbles.is_contiguous() and matrix.scale_zero.is_contiguous() else ""
    if isinstance(matrix, Int8Matrix):
        return "int8" if matrix.values.is_contiguous() and matrix.values.dtype == torch.int8 else ""
    return "bf16" if matrix.is_contiguous() and matrix.dtype == torch.bfloat16 else ""


def is_wanted() -> bool:
    """Whether this processor has AVX2."""
    return torch.backends.cpu.get_cpu_capability().startswith("AVX")


@cache
def load() -> Dispatch | None:
    """The kernels, built at first use; None where they are not wanted or cannot be had."""
    if not is_wanted():
        return None
    try:
        found = built(cache_dir(os.environ), UNITS)
    except OSError as error:
        event("kernels not built", reason=str(error))
        return None
    for name, reason in found.left_out.items():
        event("kernels not built", level=name, reason=reason)
    dispatch = Dispatch(CpuKernels(found.library), _level(found))
    if (wrong := _first_wrong(dispatch)) is not None:
        event("kernels compute wrongly", what=wrong)
        return None
    return dispatch


def _level(found: Built) -> Level:
    level = Level.PORTABLE
    for above, has in ((Level.AVX2, "has_avx2"), (Level.AVX512_BF16, "has_avx512_bf16"), (Level.AMX, "has_amx")):
        if above.name in found.left_out or not found.library[has]():
            break
        level = above
    return level


def _first_wrong(dispatch: Dispatch) -> str | None:
    """The first kernel that does not give the reference's result: a library that was built wrongly is not used."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(128, 544, generator=generator).bfloat16()  # two blocks, more columns than go at once
    for stored_as in ("bf16", "int8", "int4"):
        matrix = matrix_from(encode(weight, stored_as), len(weight))
        for dtype, off in ((torch.float32, 1e-3), (torch.bfloat16, 1e-2)):
            for rows in (3, 5, 50):  # in registers; one tile; several
                x = torch.randn(rows, weight.shape[1], generator=generator).to(dtype)
                expected = x.float() @ decode(matrix, torch.empty(weight.shape)).T
                product = dispatch.product(x, matrix)
                if product and not torch.allclose(product(x, matrix).float(), expected, rtol=off, atol=off):
                    return f"{stored_as}, {dtype}"
    assert isinstance(matrix, Int4Matrix)
    unpacked = dispatch.kernels.dequant_int4(matrix, 1, torch.zeros(64, 544, dtype=torch.bfloat16))
    if not torch.equal(unpacked, decode(matrix, torch.empty(weight.shape)).bfloat16()[64:]):
        return "dequantisation"
    return None if _attention_is_right(dispatch.kernels, generator) else "attention"


def _attention_is_right(kernels: CpuKernels, generator: torch.Generator) -> bool:
    """One row of two query heads that sees 70 keys back: 20 of a prefix, which lies behind its 50 own ones."""
    queries, keys, values = (torch.randn(n, h, 64, generator=generator) for n, h in ((1, 2), (90, 1), (90, 1)))
    keys, values, out = keys.bfloat16(), values.bfloat16(), torch.empty_like(queries)
    kernels.attend(queries, keys, values, out, torch.tensor([[0, 1, 79, 0, 60, 30]]), 70)
    seen = [*range(70, 90), *range(50)]
    expected = (queries[0] @ keys[seen, 0].float().T * 64**-0.5).softmax(-1) @ values[seen, 0].float()
    return torch.allclose(out[0], expected, rtol=1e-4, atol=1e-4)
