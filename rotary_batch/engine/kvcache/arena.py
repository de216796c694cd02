"""Keys and values of live sequences: one contiguous range of tokens per sequence in one arena.

Knows ranges, bytes and the int8 format; knows nothing of attention.  A sequence's prompt and output limits are known
at admission, so it needs one range and no paging.  Places below `device_tokens` lie in device memory; those above lie
in host memory and pass through the device layer by layer (kv_host.py).  No range is part here and part there.

int8: one float32 scale per token and head, value = round(x / scale), scale = max |x| / 127 of that head; so no
number is off by more than half a step, max |x| / 254.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from rotary_batch.engine.kvcache.host import HostKvCache
from rotary_batch.engine.runtime.buffers import page_buffer
from rotary_batch.model.geometry import Geometry

KV_FORMATS = ("bf16", "int8")  # bf16 stands for float32 in exact numerics
_TINY = 1e-8


class KvArena:
    """Keys and values of so many tokens in every layer, each [kv heads, head dim], and the free ranges of tokens."""

    def __init__(
        self,
        geometry: Geometry,
        device_tokens: int,
        stored_as: str,
        dtype: torch.dtype,
        device: torch.device,
        host_tokens: int = 0,
    ) -> None:
        self.stored_as = stored_as
        self.device_tokens = device_tokens
        self.host_tokens = host_tokens
        self.device = device
        # layers of the device's tokens, one after the other, then two windows for the host's
        self._window_start = geometry.num_layers * device_tokens
        rows, heads = self._window_start + 2 * host_tokens, geometry.num_kv_heads
        kept = torch.int8 if stored_as == "int8" else dtype
        self._stores = [_zeros((rows, heads, geometry.head_dim), kept, device) for _ in range(2)]
        self._scales = [_zeros((rows, heads), torch.float32, device) for _ in range(2) if stored_as == "int8"]
        tensors = [*self._stores, *self._scales]
        self._host = HostKvCache(tensors, self._window_start, geometry.num_layers, host_tokens) if host_tokens else None
        # (start, length), ascending; neighbours are one range, except where device and host meet
        self._free = [(0, device_tokens), (device_tokens, host_tokens)][: 1 + bool(host_tokens)]

    @property
    def nbytes(self) -> int:
        """Device memory that it takes."""
        return sum(tensor.nbytes for tensor in (*self._stores, *self._scales))

    @property
    def longest_tokens(self) -> int:
        """The longest range that can ever be free."""
        return max(self.device_tokens, self.host_tokens)

    def num_ranges(self, num_tokens: int) -> int:
        """How many ranges of so many tokens an empty arena holds."""
        return self.device_tokens // num_tokens + self.host_tokens // num_tokens

    def start(self, places: Sequence[int]) -> None:
        """Begin a revolution that writes these places."""
        if self._host is not None:
            fresh = [place - self.device_tokens for place in places if place >= self.device_tokens]
            start, length = self._free[-1] if self._free else (0, 0)
            capacity = self.device_tokens + self.host_tokens
            used = (start if start + length == capacity else capacity) - self.device_tokens
            self._host.start(fresh, max(0, used))

    def bases(self, layer: int) -> tuple[int, int]:
        """What to add to a place below `device_tokens`, and to one above, to find it in `stores`."""
        window = self._window_start + layer % 2 * self.host_tokens - self.device_tokens
        return layer * self.device_tokens, window

    @property
    def stores(self) -> list[torch.Tensor]:
        """Keys and values of all layers, each [rows, kv heads, D], and in int8 the scales of both."""
        return [*self._stores, *self._scales]

    def _rows(self, layer: int, places: torch.Tensor) -> torch.Tensor:
        """Where the keys of a layer lie in the stores."""
        staying, visiting = self.bases(layer)
        if self._host is None:
            return places + staying
        return places + torch.where(places < self.device_tokens, staying, visiting)

    def write(self, layer: int, places: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Keep keys and values [T, kv heads, D] at places [T]; layers come in order."""
        if self._host is not None:
            self._host.arrive(layer)
        rows = self._rows(layer, places)
        for n, new in enumerate((keys, values)):
            if self.stored_as == "int8":
                scale = (new.abs().amax(-1).float() / 127).clamp_min(_TINY)
                self._scales[n][rows] = scale
                self._stores[n][rows] = (new.float() / scale[..., None]).round().to(torch.int8)
            else:
                self._stores[n][rows] = new.to(self._stores[n].dtype)
        if self._host is not None:
            self._host.send_back(layer)

    def gather(self, layer: int, places: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values at places [n], each [n, kv heads, D] in `dtype`."""
        rows, found = self._rows(layer, places), []
        for n, store in enumerate(self._stores):
            taken = store.index_select(0, rows).to(dtype)
            if self.stored_as == "int8":
                taken = taken * self._scales[n].index_select(0, rows)[..., None].to(dtype)
            found.append(taken)
        return found[0], found[1]

    def layer(self, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """What the device keeps of a layer as it lies, [device tokens, kv heads, D]; only when it is not int8."""
        assert self.stored_as != "int8", "int8 keys are read through gather, or from the stores"
        rows = slice(layer * self.device_tokens, (layer + 1) * self.device_tokens)
        return self._stores[0][rows], self._stores[1][rows]

    def has_room(self, num_tokens: int, *, on_device: bool = False, freed: Sequence[tuple[int, int]] = ()) -> bool:
        """Whether `take` would succeed if the ranges `freed` (start, length) were given back before."""
        return self._find(self._merged(freed), num_tokens, on_device=on_device) is not None

    def take(self, num_tokens: int, *, on_device: bool = False) -> int:
        """Reserve a range; answer its start.  First fit: the device first, and used places stay low."""
        place = self._find(self._free, num_tokens, on_device=on_device)
        if place is None:
            raise ValueError(f"no free range of {num_tokens} tokens")
        start, length = self._free[place]
        self._free[place : place + 1] = [(start + num_tokens, length - num_tokens)] * (length > num_tokens)
        return start

    def _find(self, free: Sequence[tuple[int, int]], num_tokens: int, *, on_device: bool) -> int | None:
        limit = self.device_tokens if on_device else self.device_tokens + self.host_tokens
        fitting = (n for n, (start, length) in enumerate(free) if length >= num_tokens and start < limit)
        return next(fitting, None)

    def give_back(self, start: int, num_tokens: int) -> None:
        """Return a range; ranges that touch become one."""
        self._free = self._merged([(start, num_tokens)])

    def _merged(self, freed: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """The free ranges with those of `freed` among them."""
        merged: list[tuple[int, int]] = []
        for begin, length in sorted([*self._free, *freed]):
            if merged and sum(merged[-1]) == begin and begin != self.device_tokens:
                merged[-1] = (merged[-1][0], merged[-1][1] + length)
            else:
                merged.append((begin, length))
        return merged

    def close(self) -> None:
        """Give up what only the end of the process would; idempotent."""
        if self._host is not None:
            self._host.close()

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
