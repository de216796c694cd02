"""Borrow the weights of one expert: from device memory, from the ring, or from either."""

from __future__ import annotations

import time
from collections.abc import Collection, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple, Protocol

import torch

from rotary_batch.core import ExpertKey
from rotary_batch.engine.kernels.grouped import HeldExperts
from rotary_batch.engine.offload.policy import assign_tiers, prefers_sweep, sweep_window
from rotary_batch.engine.offload.prefetch import Prefetcher, Transfer, open_transfer
from rotary_batch.engine.offload.ring import Load, Ring
from rotary_batch.engine.offload.slab import Slab, SlotViews, held_experts, slab_views
from rotary_batch.engine.offload.tiers import DiskTier, RamTier, Tier
from rotary_batch.engine.runtime.trace import Trace, interval_label
from rotary_batch.model.manifest import Manifest
from rotary_batch.model.memory_plan import MIN_SLOTS, SLOTS, copy_batch_slabs

NUM_LOADERS = 4  # threads that load residents: checking a digest takes longer than reading a slab


class ExpertSource(Protocol):
    """Lends experts, and is told which ones are needed next."""

    @property
    def wants_predictions(self) -> bool:
        """Whether this step gains from predictions of what the next layers need."""
        ...

    def begin_step(self, num_rows: int) -> None:
        """Begin a step of `num_rows` rows."""
        ...

    def expect(self, needed: Sequence[ExpertKey], predicted: Sequence[ExpertKey]) -> None:
        """Announce the keys that this layer is going to hold, and those that later layers may, most likely first."""
        ...

    def take_prefetch_feedback(self) -> tuple[int, int]:
        """How many predicted slabs were evicted unused, and used, since the last call."""
        ...

    def hold(self, key: ExpertKey) -> AbstractContextManager[Slab]:
        """Borrow an expert; one at a time."""
        ...

    @property
    def is_resident(self) -> bool:
        """Whether every expert can be borrowed at any time, so that nobody needs to know which ones have rows."""
        ...

    def lend_groups(self, layer: int, keys: Sequence[ExpertKey]) -> Generator[HeldExperts, None, None]:
        """Lend at least these experts of a layer, some after the others; each group until the next one is asked for."""
        ...

    @property
    def residents(self) -> Mapping[ExpertKey, Slab]:
        """The experts that never move, which may be used all at once."""
        ...

    def close(self) -> None:
        """Stop the prefetchers and free the memory; idempotent."""
        ...


class AllResident:
    """Experts that stay in device memory."""

    wants_predictions = False
    is_resident = True

    def __init__(self, manifest: Manifest, keys: Sequence[ExpertKey], transfer: Transfer) -> None:
        try:
            with ThreadPoolExecutor(NUM_LOADERS) as pool:
                list(pool.map(transfer.fill, ([Load(key, slot)] for slot, key in enumerate(keys))))
        finally:
            transfer.close()
        self._slabs = {key: slab_views(transfer.slots[slot], manifest, key.layer) for slot, key in enumerate(keys)}
        self._groups: dict[int, HeldExperts] = {}
        if transfer.memory is not None:
            slots = {key: slot for slot, key in enumerate(keys)}
            for layer, own in groupby(sorted(slots), key=attrgetter("layer")):
                held = held_experts(transfer.memory, manifest.slab_nbytes, {key: slots[key] for key in own})
                self._groups[layer] = held

    def begin_step(self, num_rows: int) -> None:
        """Nothing to prepare."""

    def expect(self, needed: Sequence[ExpertKey], predicted: Sequence[ExpertKey]) -> None:
        """Nothing to load."""

    def take_prefetch_feedback(self) -> tuple[int, int]:
        """Nothing is predicted."""
        return 0, 0

    @contextmanager
    def hold(self, key: ExpertKey) -> Iterator[Slab]:
        """Borrow an expert; never waits."""
        yield self._slabs[key]

    def lend_groups(self, layer: int, keys: Sequence[ExpertKey]) -> Generator[HeldExperts, None, None]:
        """All residents of the layer, with rows or without."""
        if layer in self._groups:
            yield self._groups[layer]

    @property
    def residents(self) -> Mapping[ExpertKey, Slab]:
        """All of them."""
        return self._slabs

    def close(self) -> None:
        """Free the weights."""
        self._slabs.clear()
        self._groups.clear()


class RingSource:
    """Experts that pass through the slots of a ring; without a prefetcher each is loaded when it is held.

    A step of many rows is a sweep: every expert is loaded in order.  A step of few rows loads only the experts that
    the router chose, and those that it is predicted to choose.
    """

    is_resident = False

    def __init__(
        self,
        manifest: Manifest,
        order: Sequence[ExpertKey],
        num_slots: int,
        transfer: Transfer,
        trace: Trace,
        *,
        num_prefetchers: int,
        batch_slabs: int,
    ) -> None:
        self._geometry = manifest.geometry
        self._slab_nbytes = manifest.slab_nbytes
        self._trace = trace
        self._transfer = transfer
        self._order = list(order)
        self._position = {key: place for place, key in enumerate(self._order)}
        self._layer_quota = num_slots // len({key.layer for key in order})
        self._ring = Ring(num_slots, trace)
        self._slabs = [SlotViews(buffer, manifest) for buffer in transfer.slots]
        self._sweeping = True
        self._prefetchers = [Prefetcher(self._ring, transfer, batch_slabs) for _ in range(num_prefetchers)]
        for prefetcher in self._prefetchers:
            prefetcher.start()

    @property
    def wants_predictions(self) -> bool:
        """Not in a sweep, whose order is known, and not without a prefetcher."""
        return not self._sweeping and bool(self._prefetchers)

    def begin_step(self, num_rows: int) -> None:
        """Choose the policy; a change of policy wastes at most the slots that were loaded ahead."""
        sweeping = prefers_sweep(num_rows, self._geometry.num_experts, self._geometry.top_k)
        if self._sweeping and not sweeping:
            self._ring.set_window([], self._layer_quota)
        if sweeping:
            self._ring.forget_predictions()
        self._sweeping = sweeping
        self._trace.add("sweeps" if sweeping else "speculative_revolutions")

    def expect(self, needed: Sequence[ExpertKey], predicted: Sequence[ExpertKey]) -> None:
        """Load the needed keys, then the predicted ones."""
        if not self._sweeping:
            self._ring.set_window([*needed, *predicted], self._layer_quota, len(needed))

    def take_prefetch_feedback(self) -> tuple[int, int]:
        """How many predicted slabs were evicted unused, and used, since the last call."""
        return self._ring.take_prefetch_feedback()

    @contextmanager
    def hold(self, key: ExpertKey) -> Iterator[Slab]:
        """Borrow an expert, waiting for its bytes.  Raises the error that stopped a prefetcher."""
        with self._hold_all([key]) as (slot,):
            yield self._slabs[slot].of(key.layer)

    def lend_groups(self, layer: int, keys: Sequence[ExpertKey]) -> Generator[HeldExperts, None, None]:
        """A quarter of the slots at a time, so that the others are filled meanwhile."""
        memory, size = self._transfer.memory, max(1, self._ring.num_slots // SLOTS)
        assert memory is not None, "slots that are not one block are held one by one"
        for begin in range(0, len(keys), size):
            group = keys[begin : begin + size]
            with self._hold_all(group) as slots:
                yield held_experts(memory, self._slab_nbytes, dict(zip(group, slots, strict=True)))

    @contextmanager
    def _hold_all(self, keys: Sequence[ExpertKey]) -> Iterator[list[int]]:
        """The slots of some experts, in ring order."""
        self._advance_sweep(self._position[keys[0]])
        start_s = time.perf_counter()
        with self._trace.time_on_device("stall", interval_label(keys)):
            slots = self._ring.hold_all(keys, None if self._prefetchers else self._load_one)
            self._transfer.wait_ready(*slots)
        self._trace.add("stall_s", time.perf_counter() - start_s)
        try:
            yield slots
        finally:
            self._transfer.note_free(*slots)
            self._ring.release(*keys)
            self._advance_sweep(self._position[keys[-1]] + 1)

    @property
    def residents(self) -> Mapping[ExpertKey, Slab]:
        """None: every one passes through the ring."""
        return {}

    def _advance_sweep(self, position: int) -> None:
        if self._sweeping:
            self._ring.set_window(sweep_window(self._order, position, self._ring.num_slots))

    def _load_one(self) -> None:
        loads = self._ring.claim_loads(1, wait=False)
        assert loads, "the key at the cursor always has a slot"
        self._transfer.fill(loads)
        self._ring.finish_loads(loads)

    def close(self) -> None:
        """Stop the prefetchers, wait for copies in flight; idempotent."""
        self._ring.close()  # for all of them, before the first is waited for
        for prefetcher in self._prefetchers:
            prefetcher.end()
        self._prefetchers = []
        self._transfer.close()


class RingWithResidents:
    """A fixed share of the experts is resident, the others pass through a ring."""

    is_resident = False

    def __init__(self, residents: AllResident, resident_keys: Collection[ExpertKey], ring: RingSource) -> None:
        self._residents = residents
        self._keys = frozenset(resident_keys)
        self._ring = ring

    @property
    def wants_predictions(self) -> bool:
        """As the ring does."""
        return self._ring.wants_predictions

    def begin_step(self, num_rows: int) -> None:
        """Begin a step of the ring."""
        self._ring.begin_step(num_rows)

    def expect(self, needed: Sequence[ExpertKey], predicted: Sequence[ExpertKey]) -> None:
        """Announce the keys that are not resident."""
        self._ring.expect(*([key for key in keys if key not in self._keys] for keys in (needed, predicted)))

    def take_prefetch_feedback(self) -> tuple[int, int]:
        """Feedback of the ring."""
        return self._ring.take_prefetch_feedback()

    def hold(self, key: ExpertKey) -> AbstractContextManager[Slab]:
        """Borrow an expert from where it is."""
        return self._residents.hold(key) if key in self._keys else self._ring.hold(key)

    def lend_groups(self, layer: int, keys: Sequence[ExpertKey]) -> Generator[HeldExperts, None, None]:
        """The residents of the layer, then the others as the ring does."""
        yield from self._residents.lend_groups(layer, keys)
        yield from self._ring.lend_groups(layer, [key for key in keys if key not in self._keys])

    @property
    def residents(self) -> Mapping[ExpertKey, Slab]:
        """Those outside the ring."""
        return self._residents.residents

    def close(self) -> None:
        """Stop the prefetchers, free the residents."""
        self._ring.close()
        self._residents.close()


class Placement(NamedTuple):
    """Where the experts of a model are."""

    num_residents: int  # in device memory
    num_slots: int  # of the ring that the others pass through; 0 = all are resident
    num_hosted: int  # of the others, in host memory; the rest is on disk


def open_tier(manifest: Manifest, pack_dir: Path, placement: Placement, device: torch.device, trace: Trace) -> Tier:
    """The tier that slabs are loaded from: the disk, or host memory for a part of them."""
    disk = DiskTier(manifest, pack_dir, trace)
    residents, hosted = assign_tiers(list(manifest.slabs), placement.num_residents, placement.num_hosted)
    if not hosted:
        return disk
    num_on_disk = len(manifest.slabs) - len(residents) - len(hosted)
    with ExitStack() as opened:  # closes the disk when a slab is damaged
        opened.callback(disk.close)
        tier = RamTier(manifest, disk, hosted, num_on_disk, pinned=device.type == "cuda")
        opened.pop_all()
    return tier


def open_experts(
    manifest: Manifest, tier: Tier, placement: Placement, device: torch.device, trace: Trace, *, prefetch: bool = True
) -> ExpertSource:
    """The source for a placement: all resident, a ring, or a ring with residents."""
    order = sorted(manifest.slabs)
    resident_keys, _ = assign_tiers(order, placement.num_residents, 0)
    residents = None
    if resident_keys:
        own = sorted(resident_keys)
        has_equal_slots = device.type == "cuda"  # kernels find an expert by the number of its slot
        sizes = [manifest.slab_nbytes if has_equal_slots else manifest.slabs[key].nbytes for key in own]
        transfer = open_transfer(tier, sizes, device, trace)
        residents = AllResident(manifest, own, transfer)
    streamed = [key for key in order if key not in resident_keys]
    if not streamed:
        assert residents is not None
        return residents
    num_slots = max(MIN_SLOTS, min(placement.num_slots, len(streamed)))
    transfer = open_transfer(tier, [manifest.slab_nbytes] * num_slots, device, trace)
    batch_slabs = copy_batch_slabs(manifest.slab_nbytes, num_slots) if transfer.batches_copies else 1
    num_prefetchers = tier.num_readers if prefetch else 0
    ring = RingSource(
        manifest, streamed, num_slots, transfer, trace, num_prefetchers=num_prefetchers, batch_slabs=batch_slabs
    )
    return RingWithResidents(residents, resident_keys, ring) if residents else ring
