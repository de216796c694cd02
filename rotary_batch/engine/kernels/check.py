"""Compare the kernels of one level with sums in float64: run by build.py as a child process, which may crash.

Without torch, which takes a second to import.
"""

from __future__ import annotations

import ctypes
import resource
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from rotary_batch.engine.kernels.build import SAID
from rotary_batch.engine.kernels.dispatch import DETECTORS, FUNCTIONS, Level

Array = np.ndarray[Any, Any]
THREADS = 2
TILE_ROWS = 16  # packed rows of x come in tiles of these


class Case(NamedTuple):
    """M rows of x times a matrix [N, K]; int4 has one scale for `group` columns."""

    rows: int
    outputs: int
    columns: int
    group: int


# Rows in registers, a tile and more; whole blocks of 64 outputs and four more; more columns than go at once.
F32_CASES = (Case(3, 132, 544, 32), Case(50, 132, 544, 32))
GEMV_CASES = (Case(1, 12, 96, 32), Case(3, 132, 544, 32), Case(4, 132, 544, 32))
GEMM_CASES = (Case(5, 128, 544, 32), Case(50, 128, 544, 32))
CASES = {
    "gemm_avx2": F32_CASES,
    "gemv_avx512bf16": GEMV_CASES,
    "gemm_avx512bf16": GEMM_CASES,
    "gemm_amx": GEMM_CASES,
}
LEVELS = {
    Level.AVX2: ("gemm_avx2",),
    Level.AVX512_BF16: ("gemv_avx512bf16", "gemm_avx512bf16"),
    Level.AMX: ("gemm_amx",),
}


class Matrix(NamedTuple):
    """A matrix as it is stored, and what it means."""

    parts: Sequence[Array]
    meaning: Array  # float64


def to_bf16(wide: Array) -> Array:
    """float32 -> bits, rounded to nearest, ties to even."""
    bits = np.ascontiguousarray(wide, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def from_bf16(bits: Array) -> Array:
    """Bits -> float64."""
    return (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


def stored(stored_as: str, case: Case, random: np.random.Generator) -> Matrix:
    """A matrix of noise."""
    rows, columns = case.outputs, case.columns
    if stored_as == "bf16":
        bits = to_bf16(random.standard_normal((rows, columns)))
        return Matrix([bits], from_bf16(bits))
    if stored_as == "int8":
        values = random.integers(-127, 128, (rows, columns), np.int8)
        scale = random.uniform(0.01, 0.02, rows).astype(np.float32)
        return Matrix([values, scale], values * scale.astype(np.float64)[:, None])
    blocks, groups = -(-rows // 64), columns // case.group
    nibbles = random.integers(0, 256, (blocks, columns, 32), np.uint8)
    scale_zero = to_bf16(random.uniform(-1, 1, (groups, blocks * 64, 2)))
    pair = from_bf16(scale_zero).repeat(case.group, 0)  # [K, N, 2]
    values = np.concatenate([nibbles & 15, nibbles >> 4], 2).transpose(1, 0, 2).reshape(columns, -1).astype(np.float64)
    return Matrix([nibbles, scale_zero], ((values - 8) * pair[..., 0] + pair[..., 1]).T)


def call(library: ctypes.CDLL, name: str, arrays: Sequence[Array], sizes: Sequence[int]) -> None:
    """Run a kernel."""
    pointers, longs = FUNCTIONS[name]
    function = library[name]
    function.argtypes = [ctypes.c_void_p] * pointers + [ctypes.c_long] * longs + [ctypes.c_int]
    function.restype = None
    function(*(array.ctypes.data for array in arrays), *sizes, THREADS)


def deviation(library: ctypes.CDLL, kernel: str, stored_as: str, case: Case) -> float:
    """The largest difference from the product in float64, in parts of the largest number in it."""
    random = np.random.default_rng(0)
    matrix = stored(stored_as, case, random)
    x = random.standard_normal((case.rows, case.columns)).astype(np.float32)
    is_f32, outputs = kernel == "gemm_avx2", len(matrix.meaning)
    group = [case.group] if stored_as == "int4" else []
    if is_f32:
        out = np.empty((case.rows, outputs), np.float32)
        parts = matrix.parts[:1] if stored_as == "int8" else matrix.parts  # its caller multiplies by the scale
        call(library, f"{kernel}_{stored_as}", [*parts, x, out], [*out.shape, case.columns, *group])
        found = out * matrix.parts[1].astype(np.float64) if stored_as == "int8" else out.astype(np.float64)
        rows = x.astype(np.float64)
    else:
        bits = to_bf16(x)
        rows, out = from_bf16(bits), np.empty((case.rows, outputs), np.uint16)
        packed = np.empty((-(-case.rows // TILE_ROWS) * TILE_ROWS, case.columns), np.uint16)
        sums = rows.reshape(case.rows, -1, case.group).sum(-1).astype(np.float32)
        room = [] if kernel.startswith("gemv") else [packed]
        arrays = [*matrix.parts, bits, *room, out, *([sums] if group else [])]
        call(library, f"{kernel}_{stored_as}", arrays, [*out.shape, case.columns, *group])
        found = from_bf16(out)
    wanted = rows @ matrix.meaning.T
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


def attention_deviation(library: ctypes.CDLL, dim: int = 64) -> float:
    """Rows of two sequences and two key heads of two query heads each, which the threads of the pool share.

    Row 0 sees 70 keys back: 20 of a prefix, which lies behind its 50 own ones.  Row 1 sees the 20 keys between these.
    """
    random = np.random.default_rng(0)
    queries = random.standard_normal((2, 4, dim)).astype(np.float32)
    keys, values = (to_bf16(random.standard_normal((90, 2, dim))) for _ in range(2))
    out, spans = np.empty_like(queries), np.array([[0, 1, 79, 0, 60, 30], [1, 1, 19, 50, 0, 0]], np.int64)
    attention = library["attention_avx2"]
    attention.argtypes = [ctypes.c_void_p] * 5 + [ctypes.c_long] * 5 + [ctypes.c_float, ctypes.c_int]
    pointers = [array.ctypes.data for array in (queries, keys, values, out, spans)]
    attention(*pointers, len(spans), 2, 2, dim, 70, dim**-0.5, THREADS)
    seen = ([*range(70, 90), *range(50)], [*range(50, 70)])
    wanted = [
        attended(queries[row, 2 * head : 2 * head + 2], keys[seen[row], head], values[seen[row], head])
        for row in range(2)
        for head in range(2)
    ]
    return float(np.abs(out.reshape(4, 2, dim) - wanted).max())


def attended(queries: Array, keys: Array, values: Array) -> Array:
    """Of queries [heads, D] over keys and values [n, D] in bf16."""
    scores = queries.astype(np.float64) @ from_bf16(keys).T * queries.shape[1] ** -0.5
    weights = np.exp(scores - scores.max(1, keepdims=True))
    mixed: Array = weights @ from_bf16(values) / weights.sum(1, keepdims=True)
    return mixed


def checks(library: ctypes.CDLL, level: Level) -> Iterator[tuple[str, float, float]]:
    """What was compared, by how much it deviates, and the most that it may: one rounding of the result."""
    for kernel in LEVELS[level]:
        most = 1e-5 if kernel == "gemm_avx2" else 2**-8
        for stored_as in ("bf16", "int8", "int4"):
            for case in CASES[kernel] if f"{kernel}_{stored_as}" in FUNCTIONS else ():
                yield f"{kernel}_{stored_as}", deviation(library, kernel, stored_as, case), most
    if level == Level.AVX2:
        yield "attention_avx2", attention_deviation(library), 1e-4


def first_wrong(library: ctypes.CDLL, level: Level) -> str:
    """The first kernel of a level that does not give the reference's result, '' when all do."""
    for name, found, most in checks(library, level):
        if not found <= most:  # so that NaN is wrong
            return f"{name} computes wrongly: it is off by {found:.2g}, and {most:.2g} is a rounding"
    return ""


def main(path: str, level: Level) -> None:
    """Print the first kernel that is wrong, and nothing more where the processor does not have the level."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    library = ctypes.CDLL(path)
    print(SAID, first_wrong(library, level) if library[DETECTORS[level]]() else "")  # noqa: T201 - the parent reads it


if __name__ == "__main__":
    main(sys.argv[1], Level[sys.argv[2]])
