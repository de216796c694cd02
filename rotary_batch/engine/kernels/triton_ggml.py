"""Triton kernels that dequantise the blocks of GGUF files.  Imported only where Triton is installed and CUDA is used.

Each type has a function from the address of a block and the number of a column in it to a weight, in float32.
ggml.py says what the bytes are.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def dequant_ggml_kernel(
    blocks,
    out,
    num_blocks,
    TYPE: tl.constexpr,
    COLUMNS: tl.constexpr,
    NBYTES: tl.constexpr,
    TILE: tl.constexpr,
):
    """TILE blocks from number `program_id(0) * TILE`: blocks of NBYTES bytes -> out, COLUMNS weights for each."""
    block = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)[:, None]
    column = tl.arange(0, COLUMNS)[None, :]
    address = blocks + tl.minimum(block, num_blocks - 1) * NBYTES  # past the end the last block is read again
    weight = ggml_weight(address, column, TYPE)
    tl.store(out + block * COLUMNS + column, weight.to(out.dtype.element_ty), mask=block < num_blocks)


@triton.jit
def ggml_weight(address, column, TYPE: tl.constexpr):
    """The weight in a column of the block at an address, in float32."""
    if TYPE == "Q4_0":
        weight = _q4_0(address, column)
    elif TYPE == "Q4_1":
        weight = _q4_1(address, column)
    elif TYPE == "Q8_0":
        weight = _q8_0(address, column)
    elif TYPE == "Q4_K":
        weight = _q4_k(address, column)
    elif TYPE == "Q6_K":
        weight = _q6_k(address, column)
    else:
        tl.static_assert(TYPE == "MXFP4")
        weight = _mxfp4(address, column)
    return weight


@triton.jit
def _half(address):
    """A float16, which may begin at any byte."""
    low, high = tl.load(address).to(tl.uint16), tl.load(address + 1).to(tl.uint16)
    return (low | (high << 8)).to(tl.float16, bitcast=True).to(tl.float32)


@triton.jit
def _nibble(address, column):
    """Of 16 bytes: 16 low nibbles, then 16 high ones."""
    return (tl.load(address + column % 16).to(tl.int32) >> (column // 16 * 4)) & 15


@triton.jit
def _q4_0(address, column):
    return _half(address) * (_nibble(address + 2, column) - 8).to(tl.float32)


@triton.jit
def _q4_1(address, column):
    return _half(address) * _nibble(address + 4, column).to(tl.float32) + _half(address + 2)


@triton.jit
def _q8_0(address, column):
    return _half(address) * tl.load(address + 2 + column).to(tl.int8, bitcast=True).to(tl.float32)


@triton.jit
def _q4_k(address, column):
    group = column // 32
    packed = address + 4 + group % 4
    first, second = tl.load(packed).to(tl.int32), tl.load(packed + 4).to(tl.int32)
    last = tl.load(packed + 8).to(tl.int32)
    scale = tl.where(group < 4, first & 63, (last & 15) | (first >> 6 << 4)).to(tl.float32)
    least = tl.where(group < 4, second & 63, (last >> 4) | (second >> 6 << 4)).to(tl.float32)
    byte = tl.load(address + 16 + column // 64 * 32 + column % 32).to(tl.int32)
    value = ((byte >> (group % 2 * 4)) & 15).to(tl.float32)
    return _half(address) * scale * value - _half(address + 2) * least


@triton.jit
def _q6_k(address, column):
    half, within = column // 128, column % 128
    low = tl.load(address + half * 64 + within % 64).to(tl.int32) >> (within // 64 * 4)
    high = tl.load(address + 128 + half * 32 + within % 32).to(tl.int32) >> (within // 32 * 2)
    value = ((low & 15) | ((high & 3) << 4)) - 32
    scale = tl.load(address + 192 + column // 16).to(tl.int8, bitcast=True).to(tl.float32)
    return _half(address + 208) * scale * value.to(tl.float32)


@triton.jit
def _mxfp4(address, column):
    """Code = sign, two bits of exponent, one of mantissa; the levels are doubled."""
    exponent, code = tl.load(address).to(tl.int32), _nibble(address + 1, column)
    bits = tl.where(exponent < 2, 0x200000 << tl.minimum(exponent, 1), (exponent - 1) << 23)
    power, mantissa = (code >> 1) & 3, code & 1
    level = tl.where(power == 0, mantissa, (2 + mantissa) << tl.maximum(power - 1, 0))
    return bits.to(tl.float32, bitcast=True) * tl.where(code < 8, level, -level).to(tl.float32)
