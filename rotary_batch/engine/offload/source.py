"""Borrow the weights of one expert: from device memory, from the ring, or from either.

Knows slabs and their views; three sources under one contract.  Knows nothing of routing or matmuls.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

import torch

from rotary_batch.core import ExpertKey
from rotary_batch.engine.kernels.quant import Matrix, matrix_from
from rotary_batch.engine.offload.policy import choose_kept, prefers_sweep, sweep_window
from rotary_batch.engine.offload.prefetch import Prefetcher, Transfer, open_transfer
from rotary_batch.engine.offload.ring import Load, Ring
from rotary_batch.engine.offload.tiers import DiskTier, RamTier, Tier
from rotary_batch.engine.packs.encoding import DTYPES
from rotary_batch.engine.runtime.trace import Trace, interval_label
from rotary_batch.model.manifest import Manifest
from rotary_batch.model.memory_plan import MIN_SLOTS, bundle_slabs
from rotary_batch.model.slabs import matrix_shapes

NUM_LOADERS = 4  # threads that fill residents: checking digests takes a thread longer than reading does


class Slab(NamedTuple):
    """Views of one expert's weights; valid only inside the `hold` that gave it."""

    up: Matrix  # w1 over w3, [2 * intermediate, hidden]
    down: Matrix  # w2, [hidden, intermediate]


class ExpertSource(Protocol):
    """Gives experts, and is told what will be wanted."""

    @property
    def wants_predictions(self) -> bool:
        """Whether this revolution gains from guesses at what the next layers will ask for."""
        ...

    def start(self, num_rows: int) -> None:
        """A revolution of so many rows begins."""
        ...

    def expect(self, needed: Sequence[ExpertKey], guessed: Sequence[ExpertKey]) -> None:
        """What this layer holds next, and what later layers may hold, most likely first."""
        ...

    def outcomes(self) -> tuple[int, int]:
        """How many loaded guesses were given up unused, and used, since the last call."""
        ...

    def hold(self, key: ExpertKey) -> AbstractContextManager[Slab]:
        """Borrow an expert.  One at a time."""
        ...

    def close(self) -> None:
        """Stop the rotors and free the memory; idempotent."""
        ...


def views(buffer: torch.Tensor, manifest: Manifest) -> Slab:
    """The two matrices in the bytes of a slab."""
    parts = manifest.layout.parts
    matrices = []
    for name, (rows, _) in matrix_shapes(manifest.geometry).items():
        mine = {stored.removeprefix(name): part for stored, part in parts.items() if stored.partition(".")[0] == name}
        tensors = {
            suffix: buffer[part.offset : part.offset + part.nbytes].view(DTYPES[part.dtype]).view(part.shape)
            for suffix, part in mine.items()
        }
        matrices.append(matrix_from(tensors, rows))
    return Slab(*matrices)


class AllResident:
    """Every one of `keys` in device memory for good."""

    wants_predictions = False

    def __init__(self, manifest: Manifest, keys: Sequence[ExpertKey], transfer: Transfer) -> None:
        try:
            with ThreadPoolExecutor(NUM_LOADERS) as pool:
                list(pool.map(transfer.fill, ([Load(key, slot)] for slot, key in enumerate(keys))))
        finally:
            transfer.close()
        self._slabs = {key: views(transfer.slots[slot], manifest) for slot, key in enumerate(keys)}

    def start(self, num_rows: int) -> None:
        """Nothing to prepare."""

    def expect(self, needed: Sequence[ExpertKey], guessed: Sequence[ExpertKey]) -> None:
        """Nothing to fetch."""

    def outcomes(self) -> tuple[int, int]:
        """Nothing is guessed."""
        return 0, 0

    @contextmanager
    def hold(self, key: ExpertKey) -> Iterator[Slab]:
        """Borrow an expert; never waits."""
        yield self._slabs[key]

    def close(self) -> None:
        """Forget the weights."""
        self._slabs.clear()


class RingSource:
    """Experts revolve through the slots of a ring; without a rotor each is loaded when it is asked for.

    Many rows: a sweep, every key in order.  Few: only what the router asked for and what it is guessed to ask for.
    """

    def __init__(
        self,
        manifest: Manifest,
        order: Sequence[ExpertKey],
        num_slots: int,
        transfer: Transfer,
        trace: Trace,
        *,
        num_rotors: int,
        bundle: int,
    ) -> None:
        self._geometry = manifest.geometry
        self._trace = trace
        self._transfer = transfer
        self._order = list(order)
        self._position = {key: place for place, key in enumerate(self._order)}
        self._layer_quota = num_slots // len({key.layer for key in order})
        self._ring = Ring(num_slots, trace)
        self._slabs = [views(buffer, manifest) for buffer in transfer.slots]
        self._sweeping = True
        self._rotors = [Prefetcher(self._ring, transfer, bundle) for _ in range(num_rotors)]
        for rotor in self._rotors:
            rotor.start()

    @property
    def wants_predictions(self) -> bool:
        """In a sweep the order is known; without a rotor nobody could load ahead."""
        return not self._sweeping and bool(self._rotors)

    def start(self, num_rows: int) -> None:
        """Choose the policy: the hand-over costs at most the slots that were read ahead."""
        sweeping = prefers_sweep(num_rows, self._geometry.num_experts, self._geometry.top_k)
        if self._sweeping and not sweeping:
            self._ring.aim([], self._layer_quota)
        if sweeping:
            self._ring.forget_predictions()
        self._sweeping = sweeping
        self._trace.add("sweeps" if sweeping else "speculative_revolutions")

    def expect(self, needed: Sequence[ExpertKey], guessed: Sequence[ExpertKey]) -> None:
        """Load what is needed, then what is guessed."""
        if not self._sweeping:
            self._ring.aim([*needed, *guessed], self._layer_quota, len(needed))

    def outcomes(self) -> tuple[int, int]:
        """Those of the ring."""
        return self._ring.take_prefetch_feedback()

    @contextmanager
    def hold(self, key: ExpertKey) -> Iterator[Slab]:
        """Borrow an expert, waiting for its bytes.  Raises what stopped a rotor."""
        self._turn(self._position[key])
        start_s = time.perf_counter()
        with self._trace.time_on_device("stall", interval_label([key])):
            slot = self._ring.hold(key, None if self._rotors else self._load_one)
            self._transfer.wait_ready(slot)
        self._trace.add("stall_s", time.perf_counter() - start_s)
        try:
            yield self._slabs[slot]
        finally:
            self._transfer.note_free(slot)
            self._ring.release(key)
            self._turn(self._position[key] + 1)

    def _turn(self, position: int) -> None:
        if self._sweeping:
            self._ring.aim(sweep_window(self._order, position, self._ring.num_slots))

    def _load_one(self) -> None:
        loads = self._ring.next_loads(1, wait=False)
        assert loads, "the key at the cursor always has a slot"
        self._transfer.fill(loads)
        self._ring.loaded(loads)

    def close(self) -> None:
        """Stop the rotors."""
        self._ring.close()
        for rotor in self._rotors:
            rotor.join()
        self._rotors = []
        self._transfer.close()


class RingWithResidents:
    """A fixed share of the experts stays, the others revolve."""

    def __init__(self, residents: AllResident, resident_keys: Collection[ExpertKey], ring: RingSource) -> None:
        self._residents = residents
        self._keys = frozenset(resident_keys)
        self._ring = ring

    @property
    def wants_predictions(self) -> bool:
        """As the ring does."""
        return self._ring.wants_predictions

    def start(self, num_rows: int) -> None:
        """A revolution of the ring."""
        self._ring.start(num_rows)

    def expect(self, needed: Sequence[ExpertKey], guessed: Sequence[ExpertKey]) -> None:
        """Only what revolves needs to be fetched."""
        self._ring.expect(*([key for key in keys if key not in self._keys] for keys in (needed, guessed)))

    def outcomes(self) -> tuple[int, int]:
        """Those of the ring."""
        return self._ring.outcomes()

    def hold(self, key: ExpertKey) -> AbstractContextManager[Slab]:
        """Borrow an expert from wherever it lives."""
        return self._residents.hold(key) if key in self._keys else self._ring.hold(key)

    def close(self) -> None:
        """Stop the rotor, forget the residents."""
        self._ring.close()
        self._residents.close()


class Placement(NamedTuple):
    """How many experts stay in device memory, how many slots the others share, how many of those lie in host memory."""

    num_residents: int
    num_slots: int  # 0 = none revolves
    num_hosted: int


def open_tier(manifest: Manifest, pack_dir: Path, placement: Placement, device: torch.device, trace: Trace) -> Tier:
    """The tier that slabs come from: the disk, or host memory for those that lie there."""
    disk = DiskTier(manifest, pack_dir, trace)
    residents, hosted = choose_kept(list(manifest.slabs), placement.num_residents, placement.num_hosted)
    if not hosted:
        return disk
    num_left = len(manifest.slabs) - len(residents) - len(hosted)
    with ExitStack() as opened:  # and closed again when a slab is damaged
        opened.callback(disk.close)
        tier = RamTier(manifest, disk, hosted, num_left, pinned=device.type == "cuda")
        opened.pop_all()
    return tier


def open_experts(
    manifest: Manifest, tier: Tier, placement: Placement, device: torch.device, trace: Trace, *, rotor: bool = True
) -> ExpertSource:
    """The source for a placement: all resident, a ring, or a ring with residents."""
    order = sorted(manifest.slabs)
    kept, _ = choose_kept(order, placement.num_residents, 0)
    residents = None
    if kept:
        transfer = open_transfer(tier, len(kept), manifest.slab_nbytes, device, trace)
        residents = AllResident(manifest, sorted(kept), transfer)
    streamed = [key for key in order if key not in kept]
    if not streamed:
        assert residents is not None
        return residents
    slots = max(MIN_SLOTS, min(placement.num_slots, len(streamed)))
    transfer = open_transfer(tier, slots, manifest.slab_nbytes, device, trace)
    bundle = bundle_slabs(manifest.slab_nbytes, slots) if transfer.moves_bundles else 1
    rotors = tier.num_readers if rotor else 0
    ring = RingSource(manifest, streamed, slots, transfer, trace, num_rotors=rotors, bundle=bundle)
    return RingWithResidents(residents, kept, ring) if residents else ring
