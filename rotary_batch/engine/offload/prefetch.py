"""The prefetcher, the background thread that fills slots ahead of the compute, and how bytes get into a slot."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Iterator, Sequence
from queue import SimpleQueue
from typing import Protocol

import torch

from rotary_batch.engine.offload.ring import Load, Ring
from rotary_batch.engine.offload.tiers import RamTier, Tier
from rotary_batch.engine.runtime.buffers import page_buffer
from rotary_batch.engine.runtime.trace import Trace, interval_label
from rotary_batch.model.memory_plan import STAGING_SLABS


class Transfer(Protocol):
    """Moves slabs into slots.  Several threads may call `fill`, for different slots, one thread the rest."""

    @property
    def slots(self) -> Sequence[torch.Tensor]:
        """The memory of every slot, uint8."""
        ...

    @property
    def batches_copies(self) -> bool:
        """Whether several slabs move faster together than one after the other."""
        ...

    @property
    def memory(self) -> torch.Tensor | None:
        """All slots as one block, where they are one."""
        ...

    def fill(self, loads: Sequence[Load]) -> None:
        """Move slabs into slots, or enqueue that."""
        ...

    def wait_ready(self, *slots: int) -> None:
        """Let the compute start only after the slots' bytes have arrived."""
        ...

    def note_free(self, *slots: int) -> None:
        """Let the next fill of the slots start only after the compute that was issued so far."""
        ...

    def close(self) -> None:
        """Wait for copies in flight, so that the memory at both ends can be freed; idempotent."""
        ...


class CpuTransfer:
    """Reads straight into the slot."""

    memory = None
    batches_copies = False  # single reads of 3 MB, two in flight, were no slower than seven in one

    def __init__(self, tier: Tier, slot_sizes: Sequence[int], trace: Trace) -> None:
        self._tier = tier
        self._trace = trace
        self.slots: Sequence[torch.Tensor] = [page_buffer(nbytes) for nbytes in slot_sizes]

    def fill(self, loads: Sequence[Load]) -> None:
        """Read; when this returns the bytes are there."""
        for key, slot in loads:
            self._trace.add("bytes_moved", self._tier.read_into(key, self.slots[slot]))

    def wait_ready(self, *slots: int) -> None:
        """Nothing to wait for: the ring only hands out slots whose read is complete."""

    def note_free(self, *slots: int) -> None:
        """Nothing to wait for: CPU compute is complete when it returns."""

    def close(self) -> None:
        """Nothing is in flight."""


class CudaTransfer:
    """Copies on a stream of its own, from the pinned arena or through pinned staging buffers.

    Each slot has a `ready` and a `free` event.  Until it closes, the host never waits for a stream.  Before it
    overwrites a staging buffer, it waits for the event of that buffer's last copy.
    """

    NUM_STAGING = STAGING_SLABS

    def __init__(self, tier: Tier, num_slots: int, slab_nbytes: int, device: torch.device, trace: Trace) -> None:
        self._tier = tier
        self._trace = trace
        self._device = device
        self._slab_nbytes = slab_nbytes
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        # one block: the allocator rounds each up to 2 MiB, 170 MB for 219 slabs of 94 MB
        self.memory = torch.empty(num_slots * slab_nbytes, dtype=torch.uint8, device=device)
        self.slots: Sequence[torch.Tensor] = torch.split(self.memory, slab_nbytes)
        self._stream.wait_stream(torch.cuda.current_stream(device))  # which may still read what was there before
        self._ready: list[torch.cuda.Event | None] = [None] * num_slots
        self._free: list[torch.cuda.Event | None] = [None] * num_slots
        # pinned buffers with the event of their last copy, the oldest first
        self._staging: SimpleQueue[tuple[torch.Tensor, torch.cuda.Event] | None] = SimpleQueue()
        for _ in range(self.NUM_STAGING):
            self._staging.put(None)  # allocated at first use: a page-locked arena needs none

    @property
    def batches_copies(self) -> bool:
        """Neighbours in the pinned arena are one copy.  A staged slab is read first, and would delay the others."""
        return isinstance(self._tier, RamTier) and self._tier.is_pinned_whole

    def fill(self, loads: Sequence[Load]) -> None:
        """Enqueue the copies behind the last compute that used their slots."""
        views = {load: self._tier.view(load.key) for load in loads} if isinstance(self._tier, RamTier) else {}
        pinned = {load: view for load, view in views.items() if view is not None}
        with torch.cuda.device(self._device):  # in a new thread the first device is the current one
            if pinned:
                self._copy(list(pinned), list(pinned.values()))
            for load in loads:
                if load not in pinned:
                    self._copy_staged(load)

    def _copy_staged(self, load: Load) -> None:
        staged = self._staging.get()
        try:
            if staged is not None:
                staged[1].synchronize()
            buffer = staged[0] if staged else torch.empty(self._slab_nbytes, dtype=torch.uint8, pin_memory=True)
            nbytes = self._tier.read_into(load.key, buffer)
            staged = buffer, self._copy([load], [buffer[:nbytes]])
        finally:
            self._staging.put(staged)

    def _copy(self, loads: Sequence[Load], sources: Sequence[torch.Tensor]) -> torch.cuda.Event:
        with torch.cuda.stream(self._stream):
            for free in {event for _, slot in loads if (event := self._free[slot])}:
                self._stream.wait_event(free)
            for together, source in contiguous_copies(loads, sources, self._slab_nbytes):
                with self._trace.time_on_device("copy", interval_label([load.key for load in together])):
                    at = together[0].slot * self._slab_nbytes
                    self.memory[at : at + source.numel()].copy_(source, non_blocking=True)
                self._trace.add("bytes_moved", source.numel())
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record(self._stream)
        for _, slot in loads:
            self._ready[slot] = event
        return event

    def wait_ready(self, *slots: int) -> None:
        """The compute stream waits for the copies, the host does not."""
        for event in {event for slot in slots if (event := self._ready[slot])}:
            torch.cuda.current_stream(self._device).wait_event(event)

    def note_free(self, *slots: int) -> None:
        """Mark this point of the compute stream."""
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._device))
        for slot in slots:
            self._free[slot] = event

    def close(self) -> None:
        """Wait for the last copy."""
        self._stream.synchronize()


def contiguous_copies(
    loads: Sequence[Load], sources: Sequence[torch.Tensor], slot_nbytes: int
) -> Iterator[tuple[Sequence[Load], torch.Tensor]]:
    """Groups of loads that are neighbours at both ends, each with all its source bytes as one tensor.

    A slab that is shorter than its slot has no neighbour behind it.
    """
    first = 0
    for end in range(1, len(loads) + 1):
        fills_slot = sources[end - 1].numel() == slot_nbytes
        is_next_slot = end < len(loads) and fills_slot and loads[end].slot == loads[end - 1].slot + 1
        if not is_next_slot or sources[end].data_ptr() != sources[end - 1].data_ptr() + slot_nbytes:
            nbytes = (end - 1 - first) * slot_nbytes + sources[end - 1].numel()
            yield loads[first:end], sources[first].as_strided([nbytes], [1])
            first = end


def open_transfer(tier: Tier, slot_sizes: Sequence[int], device: torch.device, trace: Trace) -> Transfer:
    """The transfer for a kind of device, with slots of these sizes in bytes, which on CUDA are equal."""
    if device.type == "cuda":
        return CudaTransfer(tier, len(slot_sizes), max(slot_sizes), device, trace)
    return CpuTransfer(tier, slot_sizes, trace)


class Prefetcher(threading.Thread):
    """Fills the slots that the ring wants, up to `batch_slabs` at a time, until the ring is closed or a read fails."""

    def __init__(self, ring: Ring, transfer: Transfer, batch_slabs: int) -> None:
        super().__init__(name="prefetcher", daemon=True)
        self._ring = ring
        self._transfer = transfer
        self._batch_slabs = batch_slabs

    def start(self) -> None:
        """Start the thread, and end it before the interpreter goes: a thread that torch runs in then aborts it."""
        atexit.register(self.end)
        super().start()

    def end(self) -> None:
        """Close the ring and wait for the thread; idempotent."""
        self._ring.close()
        self.join()
        atexit.unregister(self.end)

    def run(self) -> None:
        """Run the thread."""
        try:
            while loads := self._ring.claim_loads(self._batch_slabs, wait=True):
                self._transfer.fill(loads)
                self._ring.finish_loads(loads)
        except BaseException as error:  # noqa: BLE001 - the compute thread raises it, whatever it is
            self._ring.fail(error)
