"""Load a tensor of a file into memory."""

from __future__ import annotations

import torch

from rotary_batch.engine.packs.tensors import TensorPlace, read_bytes

# By the name that safetensors gives it.
DTYPES = {
    "F32": torch.float32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I8": torch.int8,
    "U8": torch.uint8,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E8M0": torch.float8_e8m0fnu,
}


def load(place: TensorPlace) -> torch.Tensor:
    """A tensor of a file: plain numbers in their shape, blocks of GGUF as rows of bytes."""
    numbers = torch.frombuffer(read_bytes(place), dtype=torch.uint8)
    if place.dtype in DTYPES:
        return numbers.view(DTYPES[place.dtype]).view(place.shape)
    return numbers.view(*place.shape[:-1], -1)
