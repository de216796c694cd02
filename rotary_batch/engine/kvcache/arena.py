"""The KV cache of live sequences: one contiguous range of tokens for each sequence, in one arena.

A sequence's prompt and output limits are known at admission, so it needs one range and no paging.  Indices below
`device_tokens` are in device memory.  Those above are in host memory and pass through windows on the device, layer by
layer (host.py).  No range crosses that border.

In latent attention a token has one vector, whose first numbers are the value.  It is stored once, and values are views
of it.

int8: one float32 scale for each token and head, value = round(x / scale), scale = max |x| / 127 of that head.  The
error is at most half a step, max |x| / 254.  A latent and the part of its key that rotates have a scale each: they are
of different sizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from rotary_batch.engine.kvcache.host import HostKvCache
from rotary_batch.engine.runtime.buffers import zeros
from rotary_batch.model.geometry import Geometry

KV_FORMATS = ("bf16", "int8")  # bf16 stands for float32 in exact numerics
_TINY = 1e-8


class RangeSize(NamedTuple):
    """A range that is wanted."""

    num_tokens: int
    on_device: bool = False  # or else wherever there is room


class KvArena:
    """Keys and values of all layers that have a KV cache, and the free ranges of tokens."""

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
        # the layers of the tokens on the device, one after the other, then two windows for the tokens on the host
        self._places = {layer: place for place, layer in enumerate(geometry.kv_layers)}
        self._window_start = len(self._places) * device_tokens
        rows = self._window_start + 2 * host_tokens, geometry.num_kv_heads
        self._parts, self._value_dim = geometry.kv_parts, geometry.value_dim
        storage_dtype = torch.int8 if stored_as == "int8" else dtype
        self._kv = [zeros((*rows, sum(parts)), storage_dtype, device) for parts in self._parts]
        self._scales = [
            zeros((*rows, len(parts)), torch.float32, device) for parts in self._parts if stored_as == "int8"
        ]
        self._host = None
        if host_tokens:
            self._host = HostKvCache(self.tensors, self._window_start, len(self._places), host_tokens)
        # (start, length), ascending; adjacent ranges are merged, except where device and host meet
        self._free_ranges = [(0, device_tokens), (device_tokens, host_tokens)][: 1 + bool(host_tokens)]

    @property
    def nbytes(self) -> int:
        """Device memory in use."""
        return sum(tensor.nbytes for tensor in self.tensors)

    @property
    def tensors(self) -> list[torch.Tensor]:
        """Keys and values of all layers, each [rows, kv heads, D]; for int8 also the scales of both.

        In latent attention one tensor has both.
        """
        return [*self._kv, *self._scales]

    @property
    def max_range_tokens(self) -> int:
        """The longest range that an empty arena can allocate."""
        return max(self.device_tokens, self.host_tokens)

    def num_ranges(self, num_tokens: int) -> int:
        """How many ranges of `num_tokens` tokens fit into an empty arena."""
        return self.device_tokens // num_tokens + self.host_tokens // num_tokens

    @property
    def free_tokens(self) -> int:
        """How many tokens are free, in all ranges together."""
        return sum(length for _, length in self._free_ranges)

    def begin_step(self, slot_mapping: Sequence[int]) -> None:
        """Begin a step that writes these indices."""
        if self._host is None:
            return
        written = [index - self.device_tokens for index in slot_mapping if index >= self.device_tokens]
        start, length = self._free_ranges[-1] if self._free_ranges else (0, 0)
        capacity = self.device_tokens + self.host_tokens
        used_end = start if start + length == capacity else capacity
        self._host.begin_step(written, max(0, used_end - self.device_tokens))

    def layer_offsets(self, layer: int) -> tuple[int, int]:
        """What to add to an index below `device_tokens`, and to one above, for the row in `tensors`."""
        place = self._places[layer]
        window_offset = self._window_start + place % 2 * self.host_tokens - self.device_tokens
        return place * self.device_tokens, window_offset

    def _rows(self, layer: int, indices: torch.Tensor) -> torch.Tensor:
        """Rows of a layer's tokens in `tensors`."""
        device_offset, host_offset = self.layer_offsets(layer)
        if self._host is None:
            return indices + device_offset
        return indices + torch.where(indices < self.device_tokens, device_offset, host_offset)

    def write(
        self, layer: int, slot_mapping: torch.Tensor, keys: torch.Tensor, values: torch.Tensor | None = None
    ) -> None:
        """Store keys and values [T, kv heads, D] at indices [T]; layers come in order.

        In latent attention the keys have the values in them.
        """
        if self._host is not None:
            self._host.swap_in(self._places[layer])
        rows = self._rows(layer, slot_mapping)
        for n, new in enumerate((keys,) if values is None else (keys, values)):
            if self.stored_as == "int8":
                parts = torch.split(new.float(), list(self._parts[n]), -1)
                scale = torch.stack([part.abs().amax(-1) for part in parts], -1).div_(127).clamp_min_(_TINY)
                self._scales[n][rows] = scale
                self._kv[n][rows] = (new.float() / self._of_each(n, scale)).round().to(torch.int8)
            else:
                self._kv[n][rows] = new.to(self._kv[n].dtype)
        if self._host is not None:
            self._host.swap_out(self._places[layer])

    def _of_each(self, n: int, scale: torch.Tensor) -> torch.Tensor:
        """Scales [T, kv heads, parts] -> what each number is scaled by."""
        parts = self._parts[n]
        if len(parts) == 1:
            return scale
        of_parts = scale[..., None].unbind(-2)
        return torch.cat([one.expand(*one.shape[:-1], size) for one, size in zip(of_parts, parts, strict=True)], -1)

    def gather(self, layer: int, indices: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """Copies of keys and values at indices [n], [n, kv heads, D] and [n, kv heads, Dv] in `dtype`."""
        rows = self._rows(layer, indices)
        return self._pair([self._gather(n, rows, dtype) for n in range(len(self._kv))])

    def _pair(self, stored: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values, which are the same tensor in latent attention."""
        return stored[0], stored[-1][..., : self._value_dim]

    def _gather(self, n: int, rows: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        gathered = self._kv[n].index_select(0, rows).to(dtype)
        if self.stored_as == "int8":
            gathered = gathered * self._of_each(n, self._scales[n].index_select(0, rows)).to(dtype)
        return gathered

    def layer_views(self, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of a layer on the device, [device tokens, kv heads, D or Dv]; not for int8."""
        assert self.stored_as != "int8", "int8 needs its scales: use gather, or tensors"
        start, _ = self.layer_offsets(layer)
        rows = slice(start, start + self.device_tokens)
        return self._pair([stored[rows] for stored in self._kv])

    def has_room(self, wanted: Sequence[RangeSize], freed: Sequence[tuple[int, int]] = ()) -> bool:
        """Whether `allocate` would succeed for each of `wanted`, in order, after the ranges `freed` (start, length)."""
        free_ranges = self._merged(freed)
        return all(self._take(free_ranges, one) is not None for one in wanted)

    def allocate(self, num_tokens: int, *, on_device: bool = False) -> int:
        """Reserve a range and return its start.  First fit: the device is filled first, and low indices are reused.

        Raises ValueError when no free range is long enough.
        """
        start = self._take(self._free_ranges, RangeSize(num_tokens, on_device))
        if start is None:
            raise ValueError(f"no free range of {num_tokens} tokens")
        return start

    def _take(self, free_ranges: list[tuple[int, int]], wanted: RangeSize) -> int | None:
        """Take tokens from the first free range that is long enough, and return their start."""
        limit = self.device_tokens if wanted.on_device else self.device_tokens + self.host_tokens
        size = wanted.num_tokens
        fitting = (n for n, (start, length) in enumerate(free_ranges) if length >= size and start < limit)
        n = next(fitting, None)
        if n is None:
            return None
        start, length = free_ranges[n]
        free_ranges[n : n + 1] = [(start + size, length - size)] * (length > size)
        return start

    def free(self, start: int, num_tokens: int) -> None:
        """Return a range, and merge it with the free ranges next to it."""
        self._free_ranges = self._merged([(start, num_tokens)])

    def _merged(self, freed: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """The free ranges after the ranges `freed` were freed."""
        merged: list[tuple[int, int]] = []
        for begin, length in sorted([*self._free_ranges, *freed]):
            if merged and sum(merged[-1]) == begin and begin != self.device_tokens:
                merged[-1] = (merged[-1][0], merged[-1][1] + length)
            else:
                merged.append((begin, length))
        return merged

    def copy(self, source: int, target: int, num_tokens: int) -> None:
        """Copy keys and values of all layers between two ranges in device memory, which do not overlap."""
        for tensor in self.tensors:
            layers = tensor[: self._window_start].view(-1, self.device_tokens, *tensor.shape[1:])
            layers[:, target : target + num_tokens] = layers[:, source : source + num_tokens]

    def close(self) -> None:
        """Unlock host memory; idempotent."""
        if self._host is not None:
            self._host.close()
