"""The rotor: the background thread that fills slots ahead of the compute, and how bytes get into a slot.

Knows threads, streams and events; knows nothing of what is in a slab or of which key comes next.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from queue import SimpleQueue
from typing import Protocol

import torch

from rotary_batch.core import ExpertKey
from rotary_batch.engine.ring import Ring
from rotary_batch.engine.tiers import RamTier, Tier, page_buffer
from rotary_batch.engine.trace import Trace
from rotary_batch.model.budget import STAGING_SLABS


class Transfer(Protocol):
    """Moves slabs into slots.  `fill` may be called by several threads, for different slots, the others are not."""

    @property
    def slots(self) -> Sequence[torch.Tensor]:
        """The memory of every slot, uint8."""
        ...

    def fill(self, key: ExpertKey, slot: int) -> None:
        """Bring a slab into a slot, or set that in motion."""
        ...

    def wait_ready(self, slot: int) -> None:
        """Order the compute after the arrival of the slot's bytes."""
        ...

    def note_free(self, slot: int) -> None:
        """Order the next fill of the slot after the compute that was issued so far."""
        ...

    def close(self) -> None:
        """Wait for what is under way: its memory, at both ends, may be given to others then; idempotent."""
        ...


class CpuTransfer:
    """Reads straight into the slot."""

    def __init__(self, tier: Tier, num_slots: int, slab_nbytes: int, trace: Trace) -> None:
        self._tier = tier
        self._trace = trace
        self.slots: Sequence[torch.Tensor] = [page_buffer(slab_nbytes) for _ in range(num_slots)]

    def fill(self, key: ExpertKey, slot: int) -> None:
        """Read; when this returns the bytes are there."""
        self._tier.read_into(key, self.slots[slot])
        self._trace.add("bytes_moved", self.slots[slot].numel())

    def wait_ready(self, slot: int) -> None:
        """Nothing to order: the ring only hands out slots whose read is done."""

    def note_free(self, slot: int) -> None:
        """Nothing to order: CPU compute is done when it returns."""

    def close(self) -> None:
        """Nothing is under way."""


class CudaTransfer:
    """Copies on a stream of its own, from the pinned arena or through pinned staging buffers.

    Per slot a `ready` and a `free` event; until it closes, the host never waits for a stream, only, before it
    overwrites a staging buffer, for the event of that buffer's last copy.
    """

    NUM_STAGING = STAGING_SLABS

    def __init__(self, tier: Tier, num_slots: int, slab_nbytes: int, device: torch.device, trace: Trace) -> None:
        self._tier = tier
        self._trace = trace
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        # one block: the allocator rounds each up to 2 MiB, 170 MB for 219 slabs of 94 MB
        memory = torch.empty(num_slots * slab_nbytes, dtype=torch.uint8, device=device)
        self.slots: Sequence[torch.Tensor] = torch.split(memory, slab_nbytes)
        self._stream.wait_stream(torch.cuda.current_stream(device))  # which may still read what lay there before
        self._ready: list[torch.cuda.Event | None] = [None] * num_slots
        self._free: list[torch.cuda.Event | None] = [None] * num_slots
        # pinned buffers with the event of their last copy; those that wait the longest come first
        self._staging: SimpleQueue[tuple[torch.Tensor, torch.cuda.Event] | None] = SimpleQueue()
        for _ in range(self.NUM_STAGING):
            self._staging.put(None)  # made at first use: an arena that is page-locked needs none

    def fill(self, key: ExpertKey, slot: int) -> None:
        """Enqueue the copy behind the last compute that used the slot."""
        with torch.cuda.device(self._device):  # a thread begins with the first device as the current one
            self._fill(key, slot)

    def _fill(self, key: ExpertKey, slot: int) -> None:
        source = self._tier.view(key) if isinstance(self._tier, RamTier) else None
        if source is not None:
            self._copy(key, source, slot)
            return
        staged = self._staging.get()
        try:
            if staged is not None:
                staged[1].synchronize()
            buffer = staged[0] if staged else torch.empty(self.slots[0].numel(), dtype=torch.uint8, pin_memory=True)
            self._tier.read_into(key, buffer)
            staged = buffer, self._copy(key, buffer, slot)
        finally:
            self._staging.put(staged)

    def _copy(self, key: ExpertKey, source: torch.Tensor, slot: int) -> torch.cuda.Event:
        with torch.cuda.stream(self._stream):
            free = self._free[slot]
            if free is not None:
                self._stream.wait_event(free)
            with self._trace.work("copy", f"{key.layer}.{key.expert}"):
                self.slots[slot].copy_(source, non_blocking=True)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record(self._stream)
        self._ready[slot] = event
        self._trace.add("bytes_moved", self.slots[slot].numel())
        return event

    def wait_ready(self, slot: int) -> None:
        """The compute stream waits for the copy, the host does not."""
        event = self._ready[slot]
        if event is not None:
            torch.cuda.current_stream(self._device).wait_event(event)

    def note_free(self, slot: int) -> None:
        """Mark this point of the compute stream."""
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self._device))
        self._free[slot] = event

    def close(self) -> None:
        """Wait for the last copy."""
        self._stream.synchronize()


def open_transfer(tier: Tier, num_slots: int, slab_nbytes: int, device: torch.device, trace: Trace) -> Transfer:
    """The way of moving that suits the device."""
    if device.type == "cuda":
        return CudaTransfer(tier, num_slots, slab_nbytes, device, trace)
    return CpuTransfer(tier, num_slots, slab_nbytes, trace)


class Rotor(threading.Thread):
    """Fills slots as the ring asks, until the ring is closed or a read fails."""

    def __init__(self, ring: Ring, transfer: Transfer) -> None:
        super().__init__(name="rotor", daemon=True)
        self._ring = ring
        self._transfer = transfer

    def run(self) -> None:
        """The thread's whole life."""
        try:
            while (claim := self._ring.next_load(wait=True)) is not None:
                self._transfer.fill(*claim)
                self._ring.loaded(claim[1])
        except BaseException as error:  # noqa: BLE001 - the compute thread raises it, whatever it is
            self._ring.failed(error)
