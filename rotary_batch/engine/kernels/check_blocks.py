"""Blocks of GGUF files for check.py: random ones, and their values in numpy.

The layouts are written down a second time here, whole block by whole block, as ggml-quants.c has them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from rotary_batch.model.ggml_types import BLOCK_TYPES

Array = np.ndarray[Any, Any]
# Bytes of a block where float16 numbers begin: noise there could be infinite.
_HALVES = {
    "Q4_0": [0],
    "Q4_1": [0, 2],
    "Q5_0": [0],
    "Q5_1": [0, 2],
    "Q8_0": [0],
    "Q2_K": [80, 82],
    "Q3_K": [108],
    "Q4_K": [0, 2],
    "Q5_K": [0, 2],
    "Q6_K": [208],
    "IQ4_NL": [0],
    "IQ4_XS": [0],
    "MXFP4": [],
}
_MXFP4_VALUES = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12]) / 2
_IQ4_VALUES = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113])


def random_blocks(type_name: str, rows: int, columns: int, random: np.random.Generator) -> tuple[Array, Array]:
    """Rows of blocks [rows, bytes] uint8, and their values [rows, columns] float64."""
    block_type = BLOCK_TYPES[type_name]
    count = rows * columns // block_type.columns
    blocks = random.integers(0, 256, (count, block_type.nbytes), np.uint8)
    for begin in _HALVES[type_name]:
        blocks[:, begin : begin + 2] = random.uniform(-0.02, 0.02, (count, 1)).astype(np.float16).view(np.uint8)
    if type_name == "MXFP4":
        blocks[:, 0] = random.integers(118, 126, count)
    return blocks.reshape(rows, -1), _VALUES[type_name](blocks).reshape(rows, columns)


def _half(blocks: Array, begin: int) -> Array:
    """The float16 at a byte of every block, [blocks, 1]."""
    halves: Array = np.ascontiguousarray(blocks[:, begin : begin + 2]).view(np.float16).astype(np.float64)
    return halves


def _bits(packed: Array, width: int, bits: int) -> Array:
    """Numbers of some bits: the lowest of `width` bytes come first, then the next ones of the same bytes."""
    runs = packed.reshape(len(packed), -1, 1, width) >> np.arange(0, 8, bits).reshape(-1, 1).astype(np.uint8)
    numbers: Array = (runs & (1 << bits) - 1).reshape(len(packed), -1).astype(np.int64)
    return numbers


def _scaled(codes: Array, scale: Array, offset: Array | float = 0.0) -> Array:
    """Each scale, and each offset, belongs to as many columns."""
    columns = codes.shape[1]
    own = np.repeat(np.broadcast_to(offset, scale.shape), columns // scale.shape[1], 1)
    values: Array = codes * np.repeat(scale, columns // scale.shape[1], 1) + own
    return values


def _six_bits(blocks: Array) -> tuple[Array, Array]:
    """The scales and minima of Q4_K and Q5_K, 8 of each."""
    low, middle, high = (blocks[:, begin : begin + 4].astype(np.int64) for begin in (4, 8, 12))
    scales = np.concatenate([low & 63, high & 15 | low >> 6 << 4], 1)
    minima = np.concatenate([middle & 63, high >> 4 | middle >> 6 << 4], 1)
    return scales * _half(blocks, 0), -minima * _half(blocks, 2)


def _q4_0(blocks: Array) -> Array:
    return _scaled(_bits(blocks[:, 2:], 16, 4) - 8, _half(blocks, 0))


def _q4_1(blocks: Array) -> Array:
    return _scaled(_bits(blocks[:, 4:], 16, 4), _half(blocks, 0), _half(blocks, 2))


def _q5_0(blocks: Array) -> Array:
    return _scaled((_bits(blocks[:, 6:], 16, 4) | _bits(blocks[:, 2:6], 1, 1) << 4) - 16, _half(blocks, 0))


def _q5_1(blocks: Array) -> Array:
    codes = _bits(blocks[:, 8:], 16, 4) | _bits(blocks[:, 4:8], 1, 1) << 4
    return _scaled(codes, _half(blocks, 0), _half(blocks, 2))


def _q8_0(blocks: Array) -> Array:
    return _scaled(np.ascontiguousarray(blocks[:, 2:]).view(np.int8).astype(np.int64), _half(blocks, 0))


def _q4_k(blocks: Array) -> Array:
    return _scaled(_bits(blocks[:, 16:], 32, 4), *_six_bits(blocks))


def _q5_k(blocks: Array) -> Array:
    codes = _bits(blocks[:, 48:], 32, 4) | _bits(blocks[:, 16:48], 32, 1) << 4
    return _scaled(codes, *_six_bits(blocks))


def _q6_k(blocks: Array) -> Array:
    codes = _bits(blocks[:, :128], 64, 4) | _bits(blocks[:, 128:192], 32, 2) << 4
    scales = np.ascontiguousarray(blocks[:, 192:208]).view(np.int8) * _half(blocks, 208)
    return _scaled(codes - 32, scales)


def _q2_k(blocks: Array) -> Array:
    scale, least = _half(blocks, 80) * (blocks[:, :16] & 15), _half(blocks, 82) * (blocks[:, :16] >> 4)
    return _scaled(_bits(blocks[:, 16:80], 32, 2), scale, -least)


def _q3_k(blocks: Array) -> Array:
    codes = _bits(blocks[:, 32:96], 32, 2) | _bits(blocks[:, :32], 32, 1) << 2
    scales = _bits(blocks[:, 96:104], 8, 4) | _bits(blocks[:, 104:108], 4, 2) << 4
    return _scaled(codes - 4, (scales - 32) * _half(blocks, 108))


def _iq4_nl(blocks: Array) -> Array:
    return _scaled(_IQ4_VALUES[_bits(blocks[:, 2:], 16, 4)], _half(blocks, 0))


def _iq4_xs(blocks: Array) -> Array:
    scales = _bits(blocks[:, 4:8], 1, 4) | _bits(blocks[:, 2:4], 1, 2) << 4
    return _scaled(_IQ4_VALUES[_bits(blocks[:, 8:], 16, 4)], (scales - 32) * _half(blocks, 0))


def _mxfp4(blocks: Array) -> Array:
    return _scaled(_MXFP4_VALUES[_bits(blocks[:, 1:], 16, 4)], 2.0 ** (blocks[:, :1].astype(np.float64) - 127))


_VALUES: dict[str, Callable[[Array], Array]] = {
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q5_0": _q5_0,
    "Q5_1": _q5_1,
    "Q8_0": _q8_0,
    "Q2_K": _q2_k,
    "Q3_K": _q3_k,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
    "IQ4_NL": _iq4_nl,
    "IQ4_XS": _iq4_xs,
    "MXFP4": _mxfp4,
}
