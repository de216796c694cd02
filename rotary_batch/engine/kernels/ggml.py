"""Dequantise the blocks of GGUF files in torch, on any device: the reference for every other kernel.

The layouts are those of ggml/src/ggml-common.h; the weights have the bits that gguf-py's quants.py gives.
A type's function takes blocks [B, bytes of a block] uint8 and gives weights [B, columns of a block] float32.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import torch

from rotary_batch.model.ggml_types import BLOCK_TYPES

PLAIN_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}  # one number is a block
IQ4_LEVELS = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
MXFP4_LEVELS = (0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12)  # of e2m1, doubled


def dequantise_blocks(rows: torch.Tensor, type_name: str) -> torch.Tensor:
    """Rows of blocks [N, bytes of a row] uint8 -> weights [N, K] float32."""
    block_type = BLOCK_TYPES[type_name]
    blocks_of_row = rows.shape[1] // block_type.nbytes
    weights = _TYPES[type_name](rows.reshape(-1, block_type.nbytes))
    return weights.reshape(len(rows), blocks_of_row * block_type.columns)


def _plain(blocks: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Bytes as numbers of a type, in float32."""
    return blocks.contiguous().view(dtype).float()


def _half(blocks: torch.Tensor, begin: int) -> torch.Tensor:
    """The float16 that begins at a byte of every block, [B, 1]."""
    return _plain(blocks[:, begin : begin + 2], torch.float16)


def _unpack(data: torch.Tensor, run: int, bits: int) -> torch.Tensor:
    """Bytes [B, n] in runs: the lowest bits of all bytes of a run, then their next bits; then those of the next run."""
    shifts = torch.arange(0, 8, bits, dtype=torch.uint8, device=data.device)
    fields = torch.bitwise_right_shift(data.reshape(len(data), -1, 1, run), shifts[:, None])
    return fields.bitwise_and_(2**bits - 1).view(len(data), -1)


def _scaled(scale: torch.Tensor, values: torch.Tensor, least: torch.Tensor | float = 0.0) -> torch.Tensor:
    """Values [B, K] times scales [B, groups], minus what each group subtracts."""
    grouped = values.float().view(*scale.shape, -1) * scale[..., None]
    return (grouped - least[..., None] if isinstance(least, torch.Tensor) else grouped).flatten(1)


@cache
def _levels(levels: tuple[int, ...], device: torch.device) -> torch.Tensor:
    return torch.tensor(levels, dtype=torch.float32, device=device)


def _looked_up(levels: tuple[int, ...], codes: torch.Tensor) -> torch.Tensor:
    return _levels(levels, codes.device)[codes.int()]


def _q4_0(blocks: torch.Tensor) -> torch.Tensor:
    return _half(blocks, 0) * (_unpack(blocks[:, 2:], 16, 4).float() - 8)


def _q4_1(blocks: torch.Tensor) -> torch.Tensor:
    return _half(blocks, 0) * _unpack(blocks[:, 4:], 16, 4).float() + _half(blocks, 2)


def _q5_0(blocks: torch.Tensor) -> torch.Tensor:
    values = _unpack(blocks[:, 6:], 16, 4) | _unpack(blocks[:, 2:6], 1, 1) << 4
    return _half(blocks, 0) * (values.float() - 16)


def _q5_1(blocks: torch.Tensor) -> torch.Tensor:
    values = _unpack(blocks[:, 8:], 16, 4) | _unpack(blocks[:, 4:8], 1, 1) << 4
    return _half(blocks, 0) * values.float() + _half(blocks, 2)


def _q8_0(blocks: torch.Tensor) -> torch.Tensor:
    return _half(blocks, 0) * _plain(blocks[:, 2:], torch.int8)


def _q2_k(blocks: torch.Tensor) -> torch.Tensor:
    scales, least = (blocks[:, :16] & 15).float(), (blocks[:, :16] >> 4).float()
    return _scaled(_half(blocks, 80) * scales, _unpack(blocks[:, 16:80], 32, 2), _half(blocks, 82) * least)


def _q3_k(blocks: torch.Tensor) -> torch.Tensor:
    """Where the high bit is 0, 4 is subtracted."""
    values = _unpack(blocks[:, 32:96], 32, 2).float() - 4 * (1 - _unpack(blocks[:, :32], 32, 1).float())
    scales = _unpack(blocks[:, 96:104], 8, 4) | _unpack(blocks[:, 104:108], 4, 2) << 4
    return _scaled(_half(blocks, 108) * (scales.float() - 32), values)


def _scales_and_mins(packed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of Q4_K and Q5_K, 12 bytes -> 8 scales and 8 mins of 6 bits; the last four of each are in two pieces."""
    first, second, low = torch.split(packed, 4, 1)
    scales = torch.cat([first & 63, (low & 15) | (first >> 6) << 4], 1)
    mins = torch.cat([second & 63, (low >> 4) | (second >> 6) << 4], 1)
    return scales.float(), mins.float()


def _q4_k(blocks: torch.Tensor) -> torch.Tensor:
    scales, mins = _scales_and_mins(blocks[:, 4:16])
    return _scaled(_half(blocks, 0) * scales, _unpack(blocks[:, 16:], 32, 4), _half(blocks, 2) * mins)


def _q5_k(blocks: torch.Tensor) -> torch.Tensor:
    scales, mins = _scales_and_mins(blocks[:, 4:16])
    values = _unpack(blocks[:, 48:], 32, 4) | _unpack(blocks[:, 16:48], 32, 1) << 4
    return _scaled(_half(blocks, 0) * scales, values, _half(blocks, 2) * mins)


def _q6_k(blocks: torch.Tensor) -> torch.Tensor:
    values = _unpack(blocks[:, :128], 64, 4) | _unpack(blocks[:, 128:192], 32, 2) << 4
    return _scaled(_half(blocks, 208) * _plain(blocks[:, 192:208], torch.int8), values.float() - 32)


def _iq4_nl(blocks: torch.Tensor) -> torch.Tensor:
    return _half(blocks, 0) * _looked_up(IQ4_LEVELS, _unpack(blocks[:, 2:], 16, 4))


def _iq4_xs(blocks: torch.Tensor) -> torch.Tensor:
    scales = _unpack(blocks[:, 4:8], 1, 4) | _unpack(blocks[:, 2:4], 1, 2) << 4
    values = _looked_up(IQ4_LEVELS, _unpack(blocks[:, 8:], 16, 4))
    return _scaled(_half(blocks, 0) * (scales.float() - 32), values)


def _mxfp4(blocks: torch.Tensor) -> torch.Tensor:
    """The first byte is an exponent e; the levels are doubled, so the scale is 2^(e - 128)."""
    exponent = blocks[:, :1].int()
    bits = torch.where(exponent < 2, 0x200000 << exponent, (exponent - 1) << 23)  # below 2 it is no normal number
    return bits.view(torch.float32) * _looked_up(MXFP4_LEVELS, _unpack(blocks[:, 1:], 16, 4))


_TYPES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "F32": partial(_plain, dtype=PLAIN_DTYPES["F32"]),
    "F16": partial(_plain, dtype=PLAIN_DTYPES["F16"]),
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
    "BF16": partial(_plain, dtype=PLAIN_DTYPES["BF16"]),
    "MXFP4": _mxfp4,
}
assert _TYPES.keys() == BLOCK_TYPES.keys()
