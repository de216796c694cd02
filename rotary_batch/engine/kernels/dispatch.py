"""Which kernel does what: levels of instructions, what is compiled for each, and one table of choices.

All of it is plain data and needs no torch.  M = rows of x, N = rows of the matrix, K = columns.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from enum import IntEnum
from typing import NamedTuple

from rotary_batch.config import isa_named, max_isa


class Level(IntEnum):
    """Instructions that a processor has and its system allows; each level has those below it too.

    AVX512_BF16 wants VBMI as well, which only Cooper Lake lacks.
    """

    PORTABLE = 0  # torch's operators alone
    AVX2 = 1
    AVX512_BF16 = 2
    AMX = 3

    @property
    def label(self) -> str:
        """What users write."""
        return self.name.lower()


def cap(environment: Mapping[str, str], argument: str | None = None) -> Level:
    """The highest level that may be used: `argument`, else ROTARY_BATCH_MAX_ISA.  Raises ConfigError."""
    label = isa_named(argument, source="max_isa") if argument is not None else max_isa(environment)
    return Level[label.upper()] if label else Level.AMX


class Unit(NamedTuple):
    """C files that are compiled for one level, by flags that name it: the cache folder may be shared by machines."""

    level: Level
    files: Sequence[str]
    flags: Sequence[str]


_AVX2 = ("-mavx2", "-mfma")
_AVX512_BF16 = (*_AVX2, *(f"-mavx512{part}" for part in ("f", "bw", "vl", "dq", "vbmi", "bf16")))
_AMX = (*_AVX512_BF16, "-mamx-tile", "-mamx-bf16", "-DUSE_AMX")
UNITS = (
    Unit(Level.PORTABLE, ("detect.c", "pool.c"), ()),
    Unit(Level.AVX2, ("gemm_avx2.c", "attention_avx2.c"), _AVX2),
    Unit(Level.AVX512_BF16, ("gemv_avx512bf16.c", "gemm_bf16.c"), _AVX512_BF16),
    Unit(Level.AMX, ("gemm_bf16.c",), _AMX),
)
DETECTORS = {Level.AVX2: "has_avx2", Level.AVX512_BF16: "has_avx512_bf16", Level.AMX: "has_amx"}
# The arguments of each function: pointers, sizes; the number of threads comes last.
FUNCTIONS = {
    "gemm_avx2_bf16": (3, 3),
    "gemm_avx2_int8": (3, 3),
    "gemm_avx2_int4": (4, 4),
    "gemv_avx512bf16_bf16": (3, 3),
    "gemv_avx512bf16_int8": (4, 3),
    "gemm_avx512bf16_bf16": (4, 3),
    "gemm_avx512bf16_int8": (5, 3),
    "gemm_avx512bf16_int4": (6, 4),
    "gemm_amx_bf16": (4, 3),
    "gemm_amx_int8": (5, 3),
    "gemm_amx_int4": (6, 4),
}


class Product(NamedTuple):
    """What is to be multiplied: M rows of type `x` times a matrix [N, K]."""

    x: str  # f32 or bf16
    stored_as: str  # f32, bf16, int8 or int4
    is_packed: bool  # whether the numbers of the matrix lie next to each other
    shape: tuple[int, int, int]  # M, N, K


class Choice(NamedTuple):
    """Where a way to multiply is the fastest."""

    way: str  # a method of CpuKernels, or torch_* one of FastMatmul
    level: Level
    x: str
    formats: tuple[str, ...]
    rows: range  # M
    multiples: tuple[int, int] = (1, 1)  # of N and K


ANY = range(2**62)
# f32 rows: up to 256 the products of bf16 and int8 win; torch's keep large x in the caches.  1e-10 s a weight of
# [1024, 3584] at 1, 8, 64, 256, 512 rows: bf16 0.8, 1.7, 11, 42, 96 and torch's 1.2, 5.3, 14, 44, 85; int8 0.5, 1.7,
# 11, 41, 82 and 0.7, 2.7, 14, 37, 72.  int4 wins at all of them: 0.7, 1.6, 10, 37, 82 and 1.3, 2.9, 18, 46, 90.
# bf16 rows without AMX, ms for [3584, 1024] at 4, 5, 16, 17, 64 rows: bf16 0.4 (gemv), 0.9, 1.9, 2.0, 6.5 and torch's
# 1.9, 1.9, 1.8, 3.5, 10.4; int8 0.6 (gemv), 1.0, 1.9, 2.2, 6.1 and 0.5, 0.8, 3.8, 6.3, 14.1; int4 0.4, 0.5, 1.5, 1.6,
# 13 and 0.4, 0.7, 1.7, 7.7, 21.
# torch's weight-only operators, against unpacking: int8 0.8 and 0.9 ms at 8 rows, with other numbers of columns it
# reads past the end of rows, and crashes; int4 11.3 and 13 ms at 32 rows of [14336, 2048], 22 and 14 at 64.
# f32 rows times a bf16 matrix as it lies: 1.9 ms at 2, 4.1 at 4, 5.6 at 6; unpacked 4.2 to 5.5.
CHOICES = (
    Choice("gemm_avx2", Level.AVX2, "f32", ("bf16", "int8"), range(257), (4, 8)),
    Choice("gemm_avx2", Level.AVX2, "f32", ("int4",), ANY),
    Choice("gemv_avx512bf16", Level.AVX512_BF16, "bf16", ("bf16", "int8"), range(1, 5), (4, 32)),
    Choice("gemm_amx", Level.AMX, "bf16", ("bf16", "int8"), ANY[1:], (64, 32)),
    Choice("gemm_amx", Level.AMX, "bf16", ("int4",), ANY[2:], (1, 32)),
    Choice("gemm_avx512bf16", Level.AVX512_BF16, "bf16", ("bf16", "int8"), ANY[1:], (64, 32)),
    Choice("gemm_avx512bf16", Level.AVX512_BF16, "bf16", ("int4",), ANY[1:], (1, 32)),
    Choice("torch_product", Level.PORTABLE, "bf16", ("bf16",), ANY),
    Choice("torch_product", Level.PORTABLE, "f32", ("f32",), ANY),
    Choice("torch_few_bf16", Level.PORTABLE, "f32", ("bf16",), range(5)),
    Choice("torch_int8_operator", Level.PORTABLE, "f32", ("int8",), range(9), (1, 16)),
    Choice("torch_int8_operator", Level.PORTABLE, "bf16", ("int8",), range(9), (1, 16)),
    Choice("torch_int4_operator", Level.PORTABLE, "f32", ("int4",), range(33)),
    Choice("torch_int4_operator", Level.PORTABLE, "bf16", ("int4",), range(33)),
)
UNPACKED = "torch_unpacked"


def choose(product: Product, levels: Collection[Level]) -> str:
    """The first way of CHOICES that can multiply this with the instructions of `levels`; else unpack the matrix."""
    return next((choice.way for choice in CHOICES if _fits(choice, product, levels)), UNPACKED)


def _fits(choice: Choice, product: Product, levels: Collection[Level]) -> bool:
    num_rows, *sizes = product.shape
    return (
        choice.level in levels
        and (choice.x == product.x and product.stored_as in choice.formats and num_rows in choice.rows)
        and (product.is_packed or choice.way == "torch_product")
        and not any(size % multiple for size, multiple in zip(sizes, choice.multiples, strict=True))
    )
