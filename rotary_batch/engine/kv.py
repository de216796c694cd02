"""Keys and values of live sequences: one contiguous range of tokens per sequence in one arena.

Knows ranges, bytes and the int8 format; knows nothing of attention.  A sequence's prompt and output limits are known
at admission, so it needs one range and no paging.

int8: one float32 scale per token and head, value = round(x / scale), scale = max |x| / 127 of that head; so no
number is off by more than half a step, max |x| / 254.
"""

from __future__ import annotations

import math

import torch

from rotary_batch.engine.tiers import page_buffer
from rotary_batch.model.geometry import Geometry

KV_FORMATS = ("bf16", "int8")  # bf16 stands for float32 in exact numerics
_TINY = 1e-8


class KvArena:
    """Keys and values [layers, tokens, kv heads, head dim] and the free ranges of tokens."""

    def __init__(
        self, geometry: Geometry, capacity_tokens: int, stored_as: str, dtype: torch.dtype, device: torch.device
    ) -> None:
        shape = (geometry.num_layers, capacity_tokens, geometry.num_kv_heads, geometry.head_dim)
        self.stored_as = stored_as
        self.capacity_tokens = capacity_tokens
        self.device = device
        kept = torch.int8 if stored_as == "int8" else dtype
        self._stores = [_zeros(shape, kept, device) for _ in range(2)]
        sizes = shape[:3] if stored_as == "int8" else (geometry.num_layers, 0, 0)
        self._scales = [_zeros(sizes, torch.float32, device) for _ in range(2)]
        self._free: list[tuple[int, int]] = [(0, capacity_tokens)]  # (start, length), ascending, never adjacent

    @property
    def nbytes(self) -> int:
        """Device memory that it takes."""
        return sum(tensor.nbytes for tensor in (*self._stores, *self._scales))

    def write(self, layer: int, places: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Keep keys and values [T, kv heads, D] at places [T] of the arena."""
        for store, scales, new in zip(self._stores, self._scales, (keys, values), strict=True):
            if self.stored_as == "int8":
                scale = (new.abs().amax(-1).float() / 127).clamp_min(_TINY)
                scales[layer][places] = scale
                store[layer][places] = (new.float() / scale[..., None]).round().to(torch.int8)
            else:
                store[layer][places] = new.to(store.dtype)

    def gather(self, layer: int, places: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values at places [n], each [n, kv heads, D] in `dtype`."""
        found = []
        for store, scales in zip(self._stores, self._scales, strict=True):
            taken = store[layer].index_select(0, places).to(dtype)
            if self.stored_as == "int8":
                taken = taken * scales[layer].index_select(0, places)[..., None].to(dtype)
            found.append(taken)
        return found[0], found[1]

    def layer(self, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The whole arena of a layer as it lies, [tokens, kv heads, D]; only when it is not int8."""
        assert self.stored_as != "int8", "int8 keys are read through gather"
        return self._stores[0][layer], self._stores[1][layer]

    def stored_int8(self, layer: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Keys, their scales, values, their scales of a layer as they lie; only when it is int8."""
        assert self.stored_as == "int8", "only int8 keys have scales"
        return self._stores[0][layer], self._scales[0][layer], self._stores[1][layer], self._scales[1][layer]

    def has_room(self, num_tokens: int) -> bool:
        """Answer whether `take` would succeed."""
        return any(length >= num_tokens for _, length in self._free)

    def take(self, num_tokens: int) -> int:
        """Reserve a range; answer its start.  First fit keeps the used part of the arena low."""
        for place, (start, length) in enumerate(self._free):
            if length >= num_tokens:
                self._free[place : place + 1] = [(start + num_tokens, length - num_tokens)] * (length > num_tokens)
                return start
        raise ValueError(f"no free range of {num_tokens} tokens")

    def give_back(self, start: int, num_tokens: int) -> None:
        """Return a range; ranges that touch become one."""
        merged: list[tuple[int, int]] = []
        for begin, length in sorted([*self._free, (start, num_tokens)]):
            if merged and sum(merged[-1]) == begin:
                merged[-1] = (merged[-1][0], merged[-1][1] + length)
            else:
                merged.append((begin, length))
        self._free = merged

    @property
    def free_tokens(self) -> int:
        """How many tokens are free in all."""
        return sum(length for _, length in self._free)


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """On a CPU fresh pages, which are zero and take memory only once they are written."""
    nbytes = math.prod(shape) * dtype.itemsize
    if device.type != "cpu" or nbytes == 0:
        return torch.zeros(shape, dtype=dtype, device=device)
    return page_buffer(nbytes).view(dtype).view(shape)
