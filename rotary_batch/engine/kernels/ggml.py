"""Dequantise the blocks of GGUF files (ggml/src/ggml-quants.c, gguf-py's quants.py), in torch and on any device.

Every function takes blocks [blocks, bytes of a block] uint8 and gives weights [blocks, columns of a block] float32, bit
by bit as gguf-py gives them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from rotary_batch.model.ggml_types import BLOCK_TYPES


def dequantise_blocks(rows: torch.Tensor, type_name: str) -> torch.Tensor:
    """Rows of blocks [N, bytes of a row] uint8 -> weights [N, K] float32."""
    block_type = BLOCK_TYPES[type_name]
    weights = _TYPES[type_name](rows.reshape(-1, block_type.nbytes))
    return weights.view(len(rows), rows.shape[1] // block_type.nbytes * block_type.columns)


def _float(data: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return data.contiguous().view(dtype).float()


def _half(blocks: torch.Tensor, begin: int) -> torch.Tensor:
    """The float16 at a byte of every block, [blocks, 1]."""
    return _float(blocks[:, begin : begin + 2], torch.float16)


def _q8_0(blocks: torch.Tensor) -> torch.Tensor:
    return _half(blocks, 0) * _float(blocks[:, 2:], torch.int8)


_TYPES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "F32": lambda blocks: _float(blocks, torch.float32),
    "F16": lambda blocks: _float(blocks, torch.float16),
    "BF16": lambda blocks: _float(blocks, torch.bfloat16),
    "Q8_0": _q8_0,
}
