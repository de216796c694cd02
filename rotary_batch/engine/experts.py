"""Borrow the weights of one expert: from device memory, from the ring, or from either.

Knows slabs and their views; three sources under one contract.  Knows nothing of routing or matmuls.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

import torch

from rotary_batch.core import ExpertKey
from rotary_batch.engine.policy import choose_residents
from rotary_batch.engine.prefetch import Rotor, Transfer, open_transfer
from rotary_batch.engine.ring import Ring
from rotary_batch.engine.tiers import DiskTier, RamTier, Tier
from rotary_batch.engine.trace import Trace
from rotary_batch.errors import UnavailableError
from rotary_batch.model.geometry import Geometry
from rotary_batch.model.manifest import Manifest

MIN_SLOTS = 2
DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


class Slab(NamedTuple):
    """Views of one expert's weights; valid only inside the `hold` that gave it."""

    w1: torch.Tensor  # [intermediate, hidden]
    w3: torch.Tensor  # [intermediate, hidden]
    w2: torch.Tensor  # [hidden, intermediate]


class ExpertSource(Protocol):
    """Gives experts in ring order."""

    def hold(self, key: ExpertKey) -> AbstractContextManager[Slab]:
        """Borrow an expert.  One at a time; layers and experts ascending within a revolution."""
        ...

    def close(self) -> None:
        """Stop the rotor and free the memory; idempotent."""
        ...


def views(buffer: torch.Tensor, geometry: Geometry) -> Slab:
    """The three matrices in the bytes of a slab."""
    weights = buffer[: geometry.expert_params * DTYPES[geometry.dtype].itemsize].view(DTYPES[geometry.dtype])
    parts, offset = [], 0
    for rows, columns in geometry.expert_shapes.values():
        parts.append(weights[offset : offset + rows * columns].view(rows, columns))
        offset += rows * columns
    return Slab(*parts)


class AllResident:
    """Every one of `keys` in device memory for good."""

    def __init__(self, geometry: Geometry, keys: Sequence[ExpertKey], transfer: Transfer) -> None:
        self._slabs: dict[ExpertKey, Slab] = {}
        for slot, key in enumerate(keys):
            transfer.fill(key, slot)
            transfer.wait_ready(slot)
            self._slabs[key] = views(transfer.slots[slot], geometry)

    @contextmanager
    def hold(self, key: ExpertKey) -> Iterator[Slab]:
        """Borrow an expert; never waits."""
        yield self._slabs[key]

    def close(self) -> None:
        """Forget the weights."""
        self._slabs.clear()


class RingSource:
    """Experts revolve through the slots of a ring; without a rotor each is loaded when it is asked for."""

    def __init__(
        self,
        geometry: Geometry,
        order: Sequence[ExpertKey],
        num_slots: int,
        transfer: Transfer,
        trace: Trace,
        *,
        rotor: bool,
    ) -> None:
        self._trace = trace
        self._transfer = transfer
        self._ring = Ring(order, num_slots, trace)
        self._slabs = [views(buffer, geometry) for buffer in transfer.slots]
        self._rotor = Rotor(self._ring, transfer) if rotor else None
        if self._rotor:
            self._rotor.start()

    @contextmanager
    def hold(self, key: ExpertKey) -> Iterator[Slab]:
        """Borrow an expert, waiting for its bytes.  Raises what stopped the rotor."""
        start_s = time.perf_counter()
        with self._trace.span("stall", f"{key.layer}.{key.expert}"):
            slot = self._ring.hold(key, None if self._rotor else self._load_one)
        self._trace.add("stall_s", time.perf_counter() - start_s)
        try:
            self._transfer.wait_ready(slot)
            yield self._slabs[slot]
        finally:
            self._transfer.note_free(slot)
            self._ring.release(key)

    def _load_one(self) -> None:
        claim = self._ring.next_load(wait=False)
        assert claim is not None, "the key at the cursor always has a slot"
        self._transfer.fill(*claim)
        self._ring.loaded(claim[1])

    def close(self) -> None:
        """Stop the rotor."""
        self._ring.close()
        if self._rotor:
            self._rotor.join()
            self._rotor = None


class RingWithResidents:
    """A fixed share of the experts stays, the others revolve."""

    def __init__(self, residents: AllResident, resident_keys: Collection[ExpertKey], ring: RingSource) -> None:
        self._residents = residents
        self._keys = frozenset(resident_keys)
        self._ring = ring

    def hold(self, key: ExpertKey) -> AbstractContextManager[Slab]:
        """Borrow an expert from wherever it lives."""
        return self._residents.hold(key) if key in self._keys else self._ring.hold(key)

    def close(self) -> None:
        """Stop the rotor, forget the residents."""
        self._ring.close()
        self._residents.close()


class Placement(NamedTuple):
    """How many experts stay in device memory and how many slots the others share (0 = none revolves)."""

    num_residents: int
    num_slots: int


def place(num_experts: int, slab_nbytes: int, memory_nbytes: int | None) -> Placement:
    """Split device memory: everything resident when it fits, else 4 slots and the rest for residents.

    Raises UnavailableError, with the minimum, when not even two slots fit.
    """
    fitting = num_experts if memory_nbytes is None else memory_nbytes // slab_nbytes
    if fitting >= num_experts:
        return Placement(num_experts, 0)
    if fitting < MIN_SLOTS:
        raise UnavailableError(f"device memory: the ring needs {MIN_SLOTS * slab_nbytes:,} bytes for {MIN_SLOTS} slots")
    slots = min(4, fitting)
    return Placement(fitting - slots, slots)


def open_tier(manifest: Manifest, pack_dir: Path, device: torch.device, kind: str, trace: Trace) -> Tier:
    """The tier that slabs come from: `disk`, or `ram` filled from it."""
    disk = DiskTier(manifest, pack_dir, trace)
    return disk if kind == "disk" else RamTier(manifest, disk, pinned=device.type == "cuda")


def open_experts(
    manifest: Manifest, tier: Tier, placement: Placement, device: torch.device, trace: Trace, *, rotor: bool = True
) -> ExpertSource:
    """The source for a placement: all resident, a ring, or a ring with residents."""
    geometry, order = manifest.geometry, sorted(manifest.slabs)
    kept = choose_residents(order, placement.num_residents)
    residents = None
    if kept:
        transfer = open_transfer(tier, len(kept), manifest.slab_nbytes, device)
        residents = AllResident(geometry, sorted(kept), transfer)
    streamed = [key for key in order if key not in kept]
    if not streamed:
        assert residents is not None
        return residents
    slots = min(max(MIN_SLOTS, placement.num_slots), len(streamed))
    transfer = open_transfer(tier, slots, manifest.slab_nbytes, device)
    ring = RingSource(geometry, streamed, max(slots, MIN_SLOTS), transfer, trace, rotor=rotor)
    return RingWithResidents(residents, kept, ring) if residents else ring
