"""Keys and values that live in host memory and visit the device one layer at a time.

Knows a window of two layers: while attention works on one, the next is on its way, as with experts.  What a revolution
adds goes back to the host.  Knows nothing of ranges or formats.  Every copy is one contiguous run of a layer (many
small gathers use 30 % of a link, large runs 90 %: PipeMax, arXiv 2605.02189).  On a CPU the same happens in RAM.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence

import torch

from rotary_batch.engine.runtime.buffers import page_buffer, page_lock, page_unlock


class HostKvCache:
    """The host's part of an arena: for each tensor of the device, [layers, tokens, ...] of what has no room there."""

    def __init__(self, stores: Sequence[torch.Tensor], first: int, num_layers: int, num_tokens: int) -> None:
        """`stores` [rows, ...] hold the windows in rows `first` to `first + 2 * num_tokens`."""
        self._windows = [store[first:].view(2, num_tokens, *store.shape[1:]) for store in stores]
        rows = num_layers * num_tokens
        self._memory = [page_buffer(rows * store[0].numel() * store.itemsize) for store in stores]
        self._hosts = [
            memory.view(store.dtype).view(num_layers, num_tokens, *store.shape[1:])
            for memory, store in zip(self._memory, stores, strict=True)
        ]
        self._returning: list[list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]] = [[] for _ in range(num_layers)]
        self._fresh = torch.empty(0, dtype=torch.int64)  # places, of the host's part, that this revolution writes
        self._fresh_on_device = self._fresh
        self._used_tokens = 0
        self._device = stores[0].device
        self._on_cuda = self._device.type == "cuda"
        if self._on_cuda:
            self._stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
            self._arrived = [torch.cuda.Event() for _ in range(2)]  # type: ignore[no-untyped-call]
            self._returned = [torch.cuda.Event() for _ in range(num_layers)]  # type: ignore[no-untyped-call]
        # where page-locking is refused, copies go through the driver's own staging
        locked = [memory for memory in self._memory if self._on_cuda and page_lock(memory)]
        self._unlock = weakref.finalize(self, page_unlock, *locked)  # as RamTier does, and why

    def start(self, fresh: Sequence[int], used_tokens: int) -> None:
        """Begin a revolution that writes places `fresh`; only the first `used_tokens` places are in use."""
        self._used_tokens = used_tokens
        self._fresh = torch.tensor(fresh, dtype=torch.int64)
        self._fresh_on_device = self._fresh.to(self._windows[0].device, non_blocking=True)
        if used_tokens:
            self._fetch(0)

    def arrive(self, layer: int) -> None:
        """Let the device's work wait until a layer is in its window, and send for the next one."""
        if self._used_tokens == 0:
            return
        if self._on_cuda:
            torch.cuda.current_stream(self._device).wait_event(self._arrived[layer % 2])
        if layer + 1 < len(self._returning):
            self._fetch(layer + 1)

    def _fetch(self, layer: int) -> None:
        """Copy a layer into its window; all work so far, so all that used the window's last layer, is done by then."""
        self._settle(layer)
        used = self._used_tokens
        if not self._on_cuda:
            for window, host in zip(self._windows, self._hosts, strict=True):
                window[layer % 2, :used] = host[layer, :used]
            return
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            for window, host in zip(self._windows, self._hosts, strict=True):
                window[layer % 2, :used].copy_(host[layer, :used], non_blocking=True)
            self._arrived[layer % 2].record()

    def send_back(self, layer: int) -> None:
        """Send what the revolution wrote into a layer's window on its way to the host."""
        if not len(self._fresh):
            return
        for window, host in zip(self._windows, self._hosts, strict=True):
            fresh = window[layer % 2].index_select(0, self._fresh_on_device)
            if self._on_cuda:
                staged = torch.empty(fresh.shape, dtype=fresh.dtype, pin_memory=True)
                fresh = staged.copy_(fresh, non_blocking=True)
            self._returning[layer].append((host[layer], self._fresh, fresh))
        if self._on_cuda:
            self._returned[layer].record(torch.cuda.current_stream(self._device))

    def _settle(self, layer: int) -> None:
        """Put into place what came back from the layer's last revolution; that copy ended long ago."""
        if self._returning[layer] and self._on_cuda:
            self._returned[layer].synchronize()
        for host, places, fresh in self._returning[layer]:
            host.index_copy_(0, places, fresh)
        self._returning[layer].clear()

    def close(self) -> None:
        """Unlock the memory, after the copies that a broken revolution left; idempotent."""
        if self._on_cuda:
            self._stream.synchronize()
        self._unlock()
