"""KV cache in host memory, which is swapped into the device one layer at a time.

The device has a window of two layers: while attention reads one, the next is being copied.  What a step writes is
copied back to the host.  Every copy to the device is one contiguous run of a layer (many small gathers use 30 % of a
link, large runs 90 %: PipeMax, arXiv 2605.02189).  On a CPU the same copies are made within RAM.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from rotary_batch.engine.runtime.buffers import page_buffer, page_lock, page_unlock


class WriteBack(NamedTuple):
    """What a step wrote into a layer's window, on its way to the host."""

    target: torch.Tensor  # [tokens, ...] the layer in host memory
    indices: torch.Tensor  # [n] of the written tokens
    source: torch.Tensor  # [n, ...] on the host, valid once the copy has ended


class HostKvCache:
    """The host's part of an arena: for each tensor of the arena, [layers, tokens, ...] in host memory."""

    def __init__(self, tensors: Sequence[torch.Tensor], first_row: int, num_layers: int, num_tokens: int) -> None:
        """The windows are the rows `first_row` to `first_row + 2 * num_tokens` of `tensors` [rows, ...]."""
        self._windows = [tensor[first_row:].view(2, num_tokens, *tensor.shape[1:]) for tensor in tensors]
        rows = num_layers * num_tokens
        self._memory = [page_buffer(rows * tensor[0].numel() * tensor.itemsize) for tensor in tensors]
        self._layers = [
            memory.view(tensor.dtype).view(num_layers, num_tokens, *tensor.shape[1:])
            for memory, tensor in zip(self._memory, tensors, strict=True)
        ]
        self._write_backs: list[list[WriteBack]] = [[] for _ in range(num_layers)]
        self._written = torch.empty(0, dtype=torch.int64)  # tokens of the host's part that this step writes
        self._written_on_device = self._written
        self._used_tokens = 0
        self._device = tensors[0].device
        self._on_cuda = self._device.type == "cuda"
        if self._on_cuda:
            self._stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
            self._swapped_in = [torch.cuda.Event() for _ in range(2)]  # type: ignore[no-untyped-call]
            self._swapped_out = [torch.cuda.Event() for _ in range(num_layers)]  # type: ignore[no-untyped-call]
        # where page-locking is refused, copies go through the driver's own staging buffers
        locked = [memory for memory in self._memory if self._on_cuda and page_lock(memory)]
        self._unlock = weakref.finalize(self, page_unlock, *locked)  # for the reason that RamTier has

    def begin_step(self, written: Sequence[int], used_tokens: int) -> None:
        """Begin a step that writes the tokens `written`; only the first `used_tokens` tokens are in use."""
        self._used_tokens = used_tokens
        self._written = torch.tensor(written, dtype=torch.int64)
        self._written_on_device = self._written.to(self._device, non_blocking=True)
        if used_tokens:
            self._start_copy(0)

    def swap_in(self, layer: int) -> None:
        """Make the device wait until a layer is in its window, and start the copy of the next layer."""
        if self._used_tokens == 0:
            return
        if self._on_cuda:
            torch.cuda.current_stream(self._device).wait_event(self._swapped_in[layer % 2])
        if layer + 1 < len(self._write_backs):
            self._start_copy(layer + 1)

    def _start_copy(self, layer: int) -> None:
        """Copy a layer into its window, after all work so far: that includes all reads of the window's last layer."""
        self._finish_write_backs(layer)
        used = self._used_tokens
        if not self._on_cuda:
            for window, layers in zip(self._windows, self._layers, strict=True):
                window[layer % 2, :used] = layers[layer, :used]
            return
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            for window, layers in zip(self._windows, self._layers, strict=True):
                window[layer % 2, :used].copy_(layers[layer, :used], non_blocking=True)
            self._swapped_in[layer % 2].record()

    def swap_out(self, layer: int) -> None:
        """Start to copy what the step wrote into a layer's window to the host."""
        if not len(self._written):
            return
        for window, layers in zip(self._windows, self._layers, strict=True):
            source = window[layer % 2].index_select(0, self._written_on_device)
            if self._on_cuda:
                staged = torch.empty(source.shape, dtype=source.dtype, pin_memory=True)
                source = staged.copy_(source, non_blocking=True)
            self._write_backs[layer].append(WriteBack(layers[layer], self._written, source))
        if self._on_cuda:
            self._swapped_out[layer].record(torch.cuda.current_stream(self._device))

    def _finish_write_backs(self, layer: int) -> None:
        """Store what the last step wrote to the layer; the copy ended long ago."""
        if self._write_backs[layer] and self._on_cuda:
            self._swapped_out[layer].synchronize()
        for target, indices, source in self._write_backs[layer]:
            _as_bytes(target)[indices.numpy()] = _as_bytes(source)
        self._write_backs[layer].clear()

    def close(self) -> None:
        """Unlock the memory, after the copies of a step that failed; idempotent."""
        if self._on_cuda:
            self._stream.synchronize()
        self._unlock()


def _as_bytes(tensor: torch.Tensor) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Rows of bytes.  Torch copies rows of int8 number by number: 0.9 ms for 2,048 rows of 512 bytes, numpy 0.1."""
    return tensor.view(len(tensor), -1).view(torch.uint8).numpy()
