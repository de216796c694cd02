"""Which kernel computes what: instruction levels, what is compiled for each, and one table of candidates.

This module is plain data and does not import torch.  M = rows of x, N = rows of the matrix, K = columns.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Mapping, Sequence
from enum import IntEnum
from typing import NamedTuple

from rotary_batch.config import isa_named, max_isa


class Level(IntEnum):
    """Instructions that the processor has and the OS allows; each level includes those below it, but for AVX_VNNI.

    AMD's Zen 4 has AVX512_BF16 without AVX_VNNI.  AVX512_BF16 also needs VBMI, which only Cooper Lake
    lacks.
    """

    PORTABLE = 0  # only torch's operators
    AVX2 = 1
    AVX_VNNI = 2
    AVX512_BF16 = 3
    AMX = 4

    @property
    def label(self) -> str:
        """The name in settings."""
        return self.name.lower()


def cap(environment: Mapping[str, str], argument: str | None = None) -> Level:
    """The highest level that may be used: `argument`, otherwise ROTARY_BATCH_MAX_ISA.  Raises ConfigError."""
    label = isa_named(argument, source="max_isa") if argument is not None else max_isa(environment)
    return Level[label.upper()] if label else Level.AMX


class CompileUnit(NamedTuple):
    """C files that are compiled for one level.

    The flags name the instructions, not "native": machines may share the cache folder.
    """

    level: Level
    files: Sequence[str]
    flags: Sequence[str]


_AVX2 = ("-mavx2", "-mfma", "-mf16c")
_AVX512_BF16 = (*_AVX2, *(f"-mavx512{part}" for part in ("f", "bw", "vl", "dq", "vbmi", "bf16", "vnni")))
_AMX = (*_AVX512_BF16, "-mamx-tile", "-mamx-bf16", "-DUSE_AMX")
COMPILE_UNITS = (
    CompileUnit(Level.PORTABLE, ("detect.c", "pool.c"), ()),
    CompileUnit(Level.AVX2, ("gemm_avx2.c", "gemm_q8.c", "decode_avx2.c", "attention_avx2.c", "delta_avx2.c"), _AVX2),
    CompileUnit(Level.AVX_VNNI, ("gemm_q8.c",), (*_AVX2, "-mavxvnni", "-DUSE_AVX_VNNI")),
    CompileUnit(Level.AVX512_BF16, ("gemv_avx512bf16.c", "gemm_bf16.c", "gemm_q8.c"), (*_AVX512_BF16, "-DUSE_AVX512")),
    CompileUnit(Level.AMX, ("gemm_bf16.c",), _AMX),
)
DETECTORS = {
    Level.AVX2: "has_avx2",
    Level.AVX_VNNI: "has_avx_vnni",
    Level.AVX512_BF16: "has_avx512_bf16",
    Level.AMX: "has_amx",
}


ANY = range(2**62)
GEMM_GROUPS = range(32, 513, 32)  # gemm_bf16.c
PART_GROUPS = range(32, 2**62, 32)  # gemm_q8.c
TORCH_GROUPS = (32, 64, 128, 256)  # of torch's operator
GGML_TYPES = ("Q4_0", "Q4_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K", "MXFP4")  # that ggml.h decodes
PAIRS = {"int4": 0, "int4:f32": 2, "int4:f16": 3}  # how int4 stores scale and zero -> the number in common.h
INT4 = tuple(PAIRS)
OWN = (*INT4, "int8")  # that are multiplied in integers, besides blocks of GGUF files
GGML = tuple(f"ggml:{name}" for name in GGML_TYPES)
FORMATS = ("bf16", "int8", *INT4, *GGML)  # that the compiled products read
RARE_TYPES = ("Q5_0", "Q5_1", "Q2_K", "Q3_K", "IQ4_NL", "IQ4_XS")  # that ggml_rare.h decodes
# That are decoded some rows at a time, and then multiplied as plain numbers.
DECODED = (*(f"ggml:{name}" for name in RARE_TYPES), "fp8", *(f"int8:{dtype}" for dtype in ("bf16", "f16", "f32")))


class Gemm(NamedTuple):
    """A product to compute: M rows of type `x_dtype` times a matrix [N, K]."""

    x_dtype: str  # f32 or bf16
    stored_as: str  # the name of the matrix's format (matrices.py): f32, bf16, int8, int4, ggml:Q4_K and so on
    is_contiguous: bool  # of the matrix
    shape: tuple[int, int, int]  # M, N, K
    group: int = 0  # columns that share a scale, in int4


class Candidate(NamedTuple):
    """A kernel, and the products for which it is the fastest."""

    kernel: str  # a method of CpuKernels, or of FastMatmul when it begins with torch_
    level: Level
    x_dtype: str
    formats: tuple[str, ...]
    rows: range  # M
    multiples: tuple[int, int] = (1, 1)  # of N and K
    groups: Container[int] = ANY  # of columns in int4


# f32 rows: the kernel for bf16 wins up to 256 rows; torch's keeps a large x in the caches.  In 1e-10 s for each weight
# of [1024, 3584] at 1, 8, 64, 256, 512 rows: 0.8, 1.7, 11, 42, 96 versus torch's 1.2, 5.3, 14, 44, 85.
# bf16 rows without AMX, in ms for [3584, 1024] at 4, 5, 16, 17, 64 rows: bf16 0.4 (gemv), 0.9, 1.9, 2.0, 6.5 versus
# torch's 1.9, 1.9, 1.8, 3.5, 10.4.
# int4 and int8 as integers win at every number of rows: docs/lab-notes/cpu-kernels.md has the table.  Tiles of AMX stay
# from 2 rows of int4 and 5 of int8 on, for they were not measured against integers.
# torch's weight-only operators versus dequantising: int8 0.8 versus 0.9 ms at 8 rows (unless K is a multiple of 16 it
# reads past the end of rows, and crashes); int4 11.3 versus 13 ms at 32 rows of [14336, 2048], 22 versus 14 at 64.
# Blocks of GGUF files always win, for torch dequantises them in many passes.  In ms of one thread for [1536, 2048] with
# bf16 rows as 8-bit integers, at 1, 4, 8, 32, 128, 512 rows: Q4_K 0.20, 0.24, 0.26, 0.67, 1.9, 8.1, Q6_K 0.26, 0.33,
# 0.38, 0.81, 2.6, 11, Q8_0 0.34, 0.40, 0.40, 0.74, 2.1, 8.0, MXFP4 0.21, 0.25, 0.29, 0.68, 1.9, 7.9; decoded to bf16
# Q4_K took 0.24, 0.49, 0.85, 2.6, 9.5, 37, which tiles of AMX may beat (not measured: they stay from 5 rows on).  f32
# rows with AVX2, as integers at 1, 4, 8, 32, 128 rows: Q4_K 0.28, 0.42, 0.59, 1.9, 5.9, Q6_K 0.38, 0.53, 0.71, 2, 7.1,
# Q8_0 0.37, 0.55, 0.82, 2.5, 9.2; as float32 Q4_K took 0.60, 0.87, 1.2, 3.6, 12; dequantised by torch 11 to 37 at 8.
# f32 rows times a bf16 matrix in place: 1.9 ms at 2 rows, 4.1 at 4, 5.6 at 6; dequantised 4.2 to 5.5.
CANDIDATES = (
    Candidate("gemm_avxvnni_q8", Level.AVX_VNNI, "f32", (*GGML, *OWN), ANY, (1, 32), PART_GROUPS),
    Candidate("gemm_avx2_q8", Level.AVX2, "f32", (*GGML, *OWN), ANY, (1, 32), PART_GROUPS),
    Candidate("gemm_avx2", Level.AVX2, "f32", ("bf16", "int8"), range(257), (4, 8)),
    Candidate("gemm_avx2", Level.AVX2, "f32", INT4, ANY),
    Candidate("gemv_avx512bf16", Level.AVX512_BF16, "bf16", ("bf16",), range(1, 5), (4, 32)),
    Candidate("gemm_avx512_q8", Level.AVX512_BF16, "bf16", (*GGML, "int8"), range(1, 5), (1, 32)),
    Candidate("gemm_avx512_q8", Level.AVX512_BF16, "bf16", INT4, range(1, 2), (1, 32), PART_GROUPS),
    Candidate("gemm_amx", Level.AMX, "bf16", ("bf16", "int8"), ANY[1:], (64, 32)),
    Candidate("gemm_amx", Level.AMX, "bf16", INT4, ANY[2:], (1, 32), GEMM_GROUPS),
    Candidate("gemm_amx", Level.AMX, "bf16", GGML, ANY[1:]),
    Candidate("gemm_avx512_q8", Level.AVX512_BF16, "bf16", (*GGML, *OWN), ANY, (1, 32), PART_GROUPS),
    Candidate("gemm_avx512bf16", Level.AVX512_BF16, "bf16", ("bf16",), ANY[1:], (64, 32)),
    Candidate("torch_decoded", Level.AVX2, "f32", DECODED, ANY),
    Candidate("torch_decoded", Level.AVX2, "bf16", DECODED, ANY),
    Candidate("torch_linear", Level.PORTABLE, "bf16", ("bf16",), ANY),
    Candidate("torch_linear", Level.PORTABLE, "f32", ("f32",), ANY),
    Candidate("torch_linear_bf16", Level.PORTABLE, "f32", ("bf16",), range(5)),
    Candidate("torch_int8pack_mm", Level.PORTABLE, "f32", ("int8",), range(9), (1, 16)),
    Candidate("torch_int8pack_mm", Level.PORTABLE, "bf16", ("int8",), range(9), (1, 16)),
    Candidate("torch_int4pack_mm", Level.PORTABLE, "f32", ("int4",), range(33), groups=TORCH_GROUPS),
    Candidate("torch_int4pack_mm", Level.PORTABLE, "bf16", ("int4",), range(33), groups=TORCH_GROUPS),
)
FALLBACK = "torch_dequant"


def select_kernel(gemm: Gemm, levels: Collection[Level]) -> str:
    """The first kernel of CANDIDATES that supports a product at these levels, otherwise FALLBACK."""
    return next((candidate.kernel for candidate in CANDIDATES if _supports(candidate, gemm, levels)), FALLBACK)


def _supports(candidate: Candidate, gemm: Gemm, levels: Collection[Level]) -> bool:
    num_rows, *sizes = gemm.shape
    return (
        candidate.level in levels
        and (candidate.x_dtype == gemm.x_dtype and gemm.stored_as in candidate.formats and num_rows in candidate.rows)
        and (gemm.is_contiguous or candidate.kernel == "torch_linear")
        and (not gemm.group or gemm.group in candidate.groups)
        and not any(size % multiple for size, multiple in zip(sizes, candidate.multiples, strict=True))
    )
