"""Compare the kernels of one level with sums in float64: build.py runs this as a child process, which may crash.

It does not import torch, which takes a second.
"""

from __future__ import annotations

import ctypes
import resource
import sys
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from rotary_batch.engine.kernels.bindings import SIGNATURES, bind, function_name
from rotary_batch.engine.kernels.build import VERDICT_PREFIX
from rotary_batch.engine.kernels.check_blocks import random_blocks
from rotary_batch.engine.kernels.dispatch import DECODED, DETECTORS, FORMATS, GGML, PAIRS, Level
from rotary_batch.model.ggml_types import BLOCK_TYPES, BlockType

Array = np.ndarray[Any, Any]
THREADS = 2
TILE_ROWS = 16  # packed rows of x are padded to whole tiles
BLOCK_ROWS = 64  # for blocks of GGUF files the rows of a product are padded to whole ones
BLOCKS = {stored_as for stored_as in (*GGML, *DECODED) if stored_as.startswith("ggml:")}
BF16, F32 = 0, 2  # in common.h
SCALE_FORMATS = {"int8:bf16": BF16, "int8:f32": F32, "int8:f16": 3}
FP8_ROWS = 128  # that share a scale
E4M3_NAN = 127  # of either sign
# Values of float8 (e4m3) by their bits, but for those of NaN.
_CODES = np.arange(256)
_EXPONENT, _MANTISSA = _CODES >> 3 & 15, _CODES & 7
E4M3 = np.where(_EXPONENT, (8 + _MANTISSA) * 2.0**_EXPONENT, 2.0 * _MANTISSA) * 2.0**-10 * np.where(_CODES < 128, 1, -1)
UNIT_COLUMNS, UNIT_NBYTES = 256, 384  # of rows of x as 8-bit integers (q8.h)


class Case(NamedTuple):
    """M rows of x times a matrix [N, K]; in int4 `group` columns share a scale."""

    rows: int
    outputs: int
    columns: int
    group: int


# Rows in registers, a tile and more; whole blocks of 64 outputs plus four; more columns than are computed at once.
F32_CASES = (Case(3, 132, 544, 32), Case(50, 132, 544, 32))
GEMV_CASES = (Case(1, 12, 96, 32), Case(3, 132, 544, 32), Case(4, 132, 544, 32))
GEMM_CASES = (Case(5, 128, 544, 32), Case(50, 128, 544, 32))
F32_KERNELS = {"gemm_avx2", "gemm_avx2_q8", "gemm_avxvnni_q8"}
CASES = {
    "gemm_avx2": F32_CASES,
    "gemm_avx2_q8": F32_CASES,
    "gemm_avxvnni_q8": F32_CASES,
    "gemv_avx512bf16": GEMV_CASES,
    "gemm_avx512bf16": GEMM_CASES,
    "gemm_avx512_q8": F32_CASES,
    "gemm_amx": GEMM_CASES,
}
LEVELS = {
    Level.AVX2: ("gemm_avx2", "gemm_avx2_q8"),
    Level.AVX_VNNI: ("gemm_avxvnni_q8",),
    Level.AVX512_BF16: ("gemv_avx512bf16", "gemm_avx512bf16", "gemm_avx512_q8"),
    Level.AMX: ("gemm_amx",),
}


# For whole experts: kernels, formats of gate and up and of down, columns that share a scale in int4, types in q8.h.
Q8_KERNELS = {Level.AVX2: "avx2_q8", Level.AVX_VNNI: "avxvnni_q8", Level.AVX512_BF16: "avx512_q8"}
EXPERT_FORMATS = (("ggml:Q8_0", "ggml:MXFP4"), ("int4", "int8"), ("int8", "int4"))
EXPERT_GROUP = 64
OWN_TYPES = {"int4": 256, "int8": 257}


class Matrix(NamedTuple):
    """A matrix in its stored format, and its values."""

    parts: Mapping[str, Array]  # by the names of the kernels' parameters
    values: Array  # [N, K] float64


class Comparison(NamedTuple):
    """How far a kernel is from the reference, and how far it may be: one rounding of the result."""

    kernel: str
    error: float
    tolerance: float


def to_bf16(values: Array) -> Array:
    """float32 -> bits, rounded to nearest, ties to even."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def from_bf16(bits: Array) -> Array:
    """Bits -> float64."""
    return (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


def random_matrix(stored_as: str, case: Case, random: np.random.Generator) -> Matrix:
    """A matrix of noise."""
    rows, columns = case.outputs, case.columns
    if stored_as == "bf16":
        bits = to_bf16(random.standard_normal((rows, columns)))
        return Matrix({"weights": bits}, from_bf16(bits))
    if stored_as in BLOCKS:
        block_rows, weights_f64 = random_blocks(stored_as.removeprefix("ggml:"), rows, columns, random)
        return Matrix({"blocks": block_rows}, weights_f64)
    if stored_as == "int8":
        weights = random.integers(-127, 128, (rows, columns), np.int8)
        scale = random.uniform(0.01, 0.02, rows).astype(np.float32)
        return Matrix({"weights": weights, "scale": scale}, weights * scale.astype(np.float64)[:, None])
    if stored_as in DECODED:
        return random_scaled(stored_as, case, random)
    blocks, groups = -(-rows // 64), columns // case.group
    nibbles = random.integers(0, 256, (blocks, columns, 32), np.uint8)
    scale_zero, exact = random_pairs(stored_as, (groups, blocks * 64, 2), random)
    scale, zero = exact.repeat(case.group, 0).transpose(2, 0, 1)  # [K, N] each
    unpacked = np.concatenate([nibbles & 15, nibbles >> 4], 2).transpose(1, 0, 2).reshape(columns, -1)
    values = ((unpacked.astype(np.float64) - 8) * scale + zero).T
    return Matrix({"nibbles": nibbles, "scale_zero": scale_zero}, values)


def random_scaled(stored_as: str, case: Case, random: np.random.Generator) -> Matrix:
    """Bytes with a scale for each block or group."""
    block_rows = FP8_ROWS if stored_as == "fp8" else 1
    scale, exact = random_pairs(stored_as, (-(-case.outputs // block_rows), -(-case.columns // case.group), 1), random)
    weights = random.integers(0, 256, (case.outputs, case.columns), np.uint8)
    weights[weights % 128 == E4M3_NAN] = 0
    values = (E4M3[weights] if stored_as == "fp8" else weights.view(np.int8)).astype(np.float64)
    own = exact[..., 0].repeat(block_rows, 0)[: case.outputs].repeat(case.group, 1)[:, : case.columns]
    return Matrix({"weights": weights, "scale": scale}, values * own)


def random_pairs(stored_as: str, shape: tuple[int, int, int], random: np.random.Generator) -> tuple[Array, Array]:
    """Scales, and zeros of int4, as they are stored and in float64."""
    pairs = random.uniform(-1, 1, shape)
    if stored_as in {"int4", "int8:bf16"}:
        bits = to_bf16(pairs)
        return bits, from_bf16(bits)
    stored = pairs.astype(np.float16 if stored_as.endswith("f16") else np.float32)
    return stored, stored.astype(np.float64)


def call(library: ctypes.CDLL, name: str, arrays: Mapping[str, Array], **numbers: float) -> None:
    """Run a kernel."""
    addresses = {parameter: array.ctypes.data for parameter, array in arrays.items()}
    bind(library, name)(**addresses, **numbers, threads=THREADS)


def gemm_error(library: ctypes.CDLL, kernel: str, stored_as: str, case: Case) -> float:
    """The largest difference from the product in float64, relative to the largest number in it."""
    random = np.random.default_rng(0)
    case = with_whole_blocks(case, stored_as)
    matrix = random_matrix(stored_as, case, random)
    x = random.standard_normal((case.rows, case.columns)).astype(np.float32)
    if kernel in F32_KERNELS:
        product, expected = _gemm_f32(library, kernel, stored_as, case, matrix, x), x.astype(np.float64)
    else:
        bits = to_bf16(x)
        product, expected = _gemm_bf16(library, kernel, stored_as, case, matrix, bits), from_bf16(bits)
    if kernel.endswith("_q8"):
        expected = in_8_bits(expected)
    rounds_weights = stored_as in GGML and kernel == "gemm_amx"
    values = from_bf16(to_bf16(matrix.values)) if rounds_weights else matrix.values
    expected = expected @ values.T
    return float(np.abs(product - expected).max() / np.abs(expected).max())


def in_8_bits(x: Array) -> Array:
    """Rows as products of integers read them: 32 columns are multiples of their largest absolute value / 127 (q8.h)."""
    parts = x.astype(np.float32).reshape(len(x), -1, 32)
    most = np.abs(parts).max(-1, keepdims=True)
    codes = np.rint(parts * (np.float32(127) / most))
    values: Array = (codes.astype(np.float64) * (most / np.float32(127))).reshape(x.shape)
    return values


def block_type(stored_as: str) -> BlockType:
    """Of a format of BLOCKS."""
    return BLOCK_TYPES[stored_as.removeprefix("ggml:")]


def with_whole_blocks(case: Case, stored_as: str) -> Case:
    """The case, with columns added up to a whole block of a GGUF file."""
    block = block_type(stored_as).columns if stored_as in BLOCKS else 1
    return case._replace(columns=case.columns + -case.columns % block)


def _sizes(stored_as: str, case: Case, matrix: Matrix) -> dict[str, int]:
    sizes = {"M": case.rows, "N": len(matrix.values), "K": case.columns}
    if stored_as in PAIRS:
        return {**sizes, "group": case.group, "pair": PAIRS[stored_as]}
    return {**sizes, "type": block_type(stored_as).number} if stored_as in GGML else sizes


def _output_columns(kernel: str, stored_as: str, matrix: Matrix) -> int:
    """Of the array that a kernel writes: there may be more than rows of the matrix."""
    rows = len(matrix.values)
    return rows + -rows % BLOCK_ROWS if stored_as in GGML or kernel.endswith("_q8") else rows


def _units(case: Case) -> Array:
    """Scratch for rows of x as 8-bit integers."""
    return np.empty((-(-case.columns // UNIT_COLUMNS), case.rows, UNIT_NBYTES), np.uint8)


def _gemm_f32(library: ctypes.CDLL, kernel: str, stored_as: str, case: Case, matrix: Matrix, x: Array) -> Array:
    """The kernel's product in float64; the caller of `gemm_avx2_int8` multiplies by the scale."""
    out = np.empty((case.rows, _output_columns(kernel, stored_as, matrix)), np.float32)
    arrays = {**matrix.parts, "x": x, "out": out} | ({"units": _units(case)} if kernel.endswith("_q8") else {})
    scale = arrays.pop("scale").astype(np.float64) if (kernel, stored_as) == ("gemm_avx2", "int8") else 1.0
    call(library, function_name(kernel, stored_as), arrays, **_sizes(stored_as, case, matrix))
    product: Array = out[:, : len(matrix.values)].astype(np.float64) * scale
    return product


def _gemm_bf16(library: ctypes.CDLL, kernel: str, stored_as: str, case: Case, matrix: Matrix, x: Array) -> Array:
    """The kernel's product in float64."""
    out = np.empty((case.rows, _output_columns(kernel, stored_as, matrix)), np.uint16)
    arrays = {**matrix.parts, "x": x, "out": out}
    if kernel.endswith("_q8"):
        arrays["units"] = _units(case)
    elif not kernel.startswith("gemv"):
        arrays["packed_x"] = np.empty((-(-case.rows // TILE_ROWS) * TILE_ROWS, case.columns), np.uint16)
    if stored_as in PAIRS and not kernel.endswith("_q8"):
        arrays["x_sums"] = from_bf16(x).reshape(case.rows, -1, case.group).sum(-1).astype(np.float32)
    call(library, function_name(kernel, stored_as), arrays, **_sizes(stored_as, case, matrix))
    return from_bf16(out[:, : len(matrix.values)])


def decode_error(library: ctypes.CDLL, stored_as: str, case: Case) -> float:
    """The largest difference of a weight in float32, relative to the largest weight."""
    case = with_whole_blocks(case, stored_as)
    matrix = random_matrix(stored_as, case, np.random.default_rng(0))
    out = np.empty((case.outputs, case.columns), np.float32)
    sizes = {"N": case.outputs, "K": case.columns, **_decode_sizes(stored_as, case)}
    call(library, function_name("decode_avx2", stored_as), {**matrix.parts, "out": out}, **sizes, out_format=F32)
    return float(np.abs(out - matrix.values).max() / np.abs(matrix.values).max())


def _decode_sizes(stored_as: str, case: Case) -> dict[str, int]:
    if stored_as in BLOCKS:
        return {"type": block_type(stored_as).number}
    if stored_as == "fp8":
        return {"rows": FP8_ROWS, "columns": case.group}
    return {"group": case.group, "scale_format": SCALE_FORMATS[stored_as]}


def experts_error(library: ctypes.CDLL, kernel: str, formats: tuple[str, str]) -> float:
    """The largest difference of the weighted sums of two experts on three rows, relative to the largest number.

    `formats` are those of gate and up, and of down.  Both experts have two of the rows, and biases; gate and up are
    clamped as in gpt-oss.
    """
    random, (hidden, middle), rows = np.random.default_rng(0), (320, 192), np.array([0, 2, 1, 2])
    x, is_f32 = random.standard_normal((3, hidden)).astype(np.float32), kernel != "avx512_q8"
    number = x if is_f32 else to_bf16(x)
    rounded = in_8_bits(x if is_f32 else from_bf16(number))
    types = {"type": _type_number(formats[0]), "down_type": _type_number(formats[1])}
    scales = {"group": EXPERT_GROUP, "pair": 0, "scale_rows": 2 * middle, "down_group": EXPERT_GROUP, "down_pair": 0}
    units, out, total = _units(Case(3, 0, hidden, 0)), np.empty((4, hidden), number.dtype), np.empty_like(number)
    table, alive, expected = [], list[Array](), np.empty((4, hidden))
    for first in (0, 2):
        own = slice(first, first + 2)
        addresses, arrays, expected[own] = _random_expert(rounded[rows[own]], middle, formats, random)
        table += [*addresses, first, 2, first]
        alive += arrays
    call(library, f"quantise_{kernel}", {"x": number, "units": units}, M=3, K=hidden, type=types["type"])
    arrays_of_call = {"experts": np.array(table, np.int64), "x": units, "rows": rows, "out": out}
    sizes = {"E": 2, "T": 3, "scratch_rows": 4, "H": hidden, "I": middle, **types, **scales, "limit": 2.0, "alpha": 1.5}
    call(library, f"experts_{kernel}", {**arrays_of_call, "middle": _units(Case(4, 0, middle, 0))}, **sizes)
    places, weights = np.array([[0, 0], [2, 2], [1, 3]]), np.full((3, 2), 0.5, np.float32)
    combined = {"experts_out": out, "places": places, "weights": weights, "out": total}
    call(library, f"combine_{kernel}", combined, T=3, H=hidden, K=2)
    found, wanted = total.astype(np.float64) if is_f32 else from_bf16(total), expected[places].mean(1)
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


def _type_number(stored_as: str) -> int:
    """In q8.h."""
    return OWN_TYPES[stored_as] if stored_as in OWN_TYPES else block_type(stored_as).number


def _random_expert(
    x: Array, middle: int, formats: tuple[str, str], random: np.random.Generator
) -> tuple[list[int], list[Array], Array]:
    """What the kernel reads, the arrays that it is in, and the results in float64 for rows in 8 bits."""
    hidden = x.shape[1]
    both = random_matrix(formats[0], Case(0, 2 * middle, hidden, EXPERT_GROUP), random)
    down = random_matrix(formats[1], Case(0, hidden, middle, EXPERT_GROUP), random)
    biases = [random.standard_normal(size).astype(np.float32) for size in (2 * middle, hidden)]
    arrays = [*both.parts.values(), *down.parts.values(), *biases]
    matrices = ((formats[0], both, 0), (formats[0], both, middle), (formats[1], down, 0))
    codes, scales = zip(*(_from_row(*one) for one in matrices), strict=True)
    parts = [*codes, *scales, biases[0], biases[0][middle:], biases[1]]
    gate, up = np.split(x @ both.values.T + biases[0], 2, 1)
    gate, up = np.minimum(gate, 2), np.clip(up, -2, 2) + 1
    out: Array = in_8_bits(gate * up / (1 + np.exp(-1.5 * gate))) @ down.values.T + biases[1]
    return [0 if part is None else part.ctypes.data for part in parts], arrays, out


def _from_row(stored_as: str, matrix: Matrix, row: int) -> tuple[Array, Array | None]:
    """The codes of a matrix from a row on, and the scales, if they are apart."""
    if stored_as == "int4":
        return matrix.parts["nibbles"][row // BLOCK_ROWS :], matrix.parts["scale_zero"][0, row:]
    codes, *scales = matrix.parts.values()
    return codes[row:], scales[0][row:] if scales else None


def attention_error(library: ctypes.CDLL, dim: int = 64) -> float:
    """The largest difference for three sequences, with two KV heads of two query heads each, on two threads.

    Row 0 sees 90 tokens back: its 50 own ones, and 40 of a prefix that is stored behind them.  Row 1 sees all of that
    prefix, a tile and a part of one, and 5 of the 20 tokens between these.  Row 2 sees those 20.
    """
    random = np.random.default_rng(0)
    queries = random.standard_normal((3, 4, dim)).astype(np.float32)
    keys, values = (to_bf16(random.standard_normal((140, 2, dim))) for _ in range(2))
    segments = np.array([[0, 1, 119, 0, 70, 70], [1, 1, 74, 50, 70, 70], [2, 1, 19, 50, 0, 0]], np.int64)
    visible = ([*range(100, 140), *range(50)], [*range(70, 140), *range(50, 55)], [*range(50, 70)])
    expected = [
        reference_attention(queries[row, 2 * head : 2 * head + 2], keys[visible[row], head], values[visible[row], head])
        for row in range(3)
        for head in range(2)
    ]
    sizes = {"num_segments": 3, "heads": 2, "groups": 2, "D": dim, "window": 90}
    errors = []
    for number, kv in ((BF16, (keys, values)), (F32, [from_bf16(part).astype(np.float32) for part in (keys, values)])):
        out = np.empty_like(queries)
        arrays = {"queries": queries, "keys": kv[0], "values": kv[1], "out": out, "segments": segments}
        call(library, "attention_avx2", arrays, **sizes, format=number, scale=dim**-0.5)
        errors.append(np.abs(out.reshape(6, 2, dim) - expected).max())
    return float(max(errors))


def delta_error(library: ctypes.CDLL, dim: int = 40) -> float:
    """The largest difference of outputs and states for two tokens of three rows; two value heads share a key head."""
    random = np.random.default_rng(0)
    q, k, v = (
        random.standard_normal((3, heads, size)).astype(np.float32) for heads, size in ((1, 24), (1, 24), (2, dim))
    )
    k /= np.linalg.norm(k, axis=-1, keepdims=True)
    decay, beta = (random.uniform(0, 1, (3, 2)).astype(np.float32) for _ in range(2))
    states = random.standard_normal((2, 2, 24, dim)).astype(np.float32)
    tokens, out, expected = [(2, 0), (0, 1)], np.zeros_like(v), states.astype(np.float64)
    rows, own = np.array(tokens).T.copy()
    arrays = {"q": q, "k": k, "v": v, "decay": decay, "beta": beta, "states": states, "out": out}
    sizes = {"count": len(tokens), "K": 1, "V": 2, "Dk": 24, "Dv": dim}
    call(library, "delta_avx2", {**arrays, "rows": rows, "own": own}, **sizes)
    errors = []
    for row, state in tokens:
        for head in range(2):
            after = expected[state, head] * decay[row, head]
            after += np.outer(k[row, 0], beta[row, head] * (v[row, head] - after.T @ k[row, 0]))
            errors += [np.abs(states[state, head] - after).max(), np.abs(out[row, head] - after.T @ q[row, 0]).max()]
    return float(max(errors))


def reference_attention(queries: Array, keys: Array, values: Array) -> Array:
    """Attention of queries [heads, D] over keys and values [n, D] in bf16."""
    scores = queries.astype(np.float64) @ from_bf16(keys).T * queries.shape[1] ** -0.5
    weights = np.exp(scores - scores.max(1, keepdims=True))
    out: Array = weights @ from_bf16(values) / weights.sum(1, keepdims=True)
    return out


def comparisons(library: ctypes.CDLL, level: Level) -> Iterator[Comparison]:
    """Run every kernel of a level on its cases."""
    for kernel in LEVELS[level]:
        tolerance = 1e-5 if kernel in F32_KERNELS else 2**-8
        for stored_as in FORMATS:
            for case in CASES[kernel] if function_name(kernel, stored_as) in SIGNATURES else ():
                yield Comparison(f"{kernel}_{stored_as}", gemm_error(library, kernel, stored_as, case), tolerance)
    if level in Q8_KERNELS:
        name = Q8_KERNELS[level]
        for formats in EXPERT_FORMATS:
            yield Comparison(f"experts_{name}", experts_error(library, name, formats), 2**-6)  # codes may differ by one
    if level == Level.AVX2:
        for stored_as in (*GGML, *DECODED):
            yield Comparison(f"decode_avx2_{stored_as}", decode_error(library, stored_as, F32_CASES[0]), 2**-23)
        yield Comparison("attention_avx2", attention_error(library), 1e-4)
        yield Comparison("delta_avx2", delta_error(library), 1e-4)


def first_failure(library: ctypes.CDLL, level: Level) -> str:
    """The first kernel of a level that differs from the reference, '' when none does."""
    for kernel, error, tolerance in comparisons(library, level):
        if not error <= tolerance:  # in this form NaN fails too
            return f"{kernel} computes wrongly: it is off by {error:.2g}, and {tolerance:.2g} is a rounding"
    return ""


def main(path: str, level: Level) -> None:
    """Print the first kernel that fails; print no more than the prefix when the processor lacks the level."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    library = ctypes.CDLL(path)
    verdict = first_failure(library, level) if library[DETECTORS[level]]() else ""
    print(VERDICT_PREFIX, verdict)  # noqa: T201 - the parent reads it


if __name__ == "__main__":
    main(sys.argv[1], Level[sys.argv[2]])
