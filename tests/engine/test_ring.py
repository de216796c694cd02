"""The ring: a held slot is never reused, no key sits in two slots, counters add up, errors surface."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rotary_batch.core import ExpertKey
from rotary_batch.engine.offload.policy import assign_tiers, sweep_window
from rotary_batch.engine.offload.prefetch import CpuTransfer
from rotary_batch.engine.offload.ring import Load, Ring, SlotState
from rotary_batch.engine.offload.slab import slab_views
from rotary_batch.engine.offload.source import Placement, RingSource, open_experts, open_tier
from rotary_batch.engine.offload.tiers import DiskTier
from rotary_batch.engine.packs.pack import pack
from rotary_batch.engine.runtime.buffers import page_buffer
from rotary_batch.engine.runtime.trace import Trace
from rotary_batch.errors import ModelError, StorageError
from rotary_batch.model.manifest import EXPERTS_NAME, Manifest
from rotary_batch.testing import write_tiny_checkpoint

CPU = torch.device("cpu")


def _matrices(slab):
    return [*slab.gate_up, slab.down]


class RingMachine(RuleBasedStateMachine):
    """Loads that start and end at any time, beside holds at any key."""

    @initialize(layers=st.integers(1, 3), experts=st.integers(2, 5), slots=st.integers(2, 8))
    def start(self, layers, experts, slots):
        self.order = [ExpertKey(layer, expert) for layer in range(layers) for expert in range(experts)]
        self.trace = Trace()
        self.ring = Ring(slots, self.trace)
        self.quota = None
        self.loading: dict[int, ExpertKey] = {}
        self.content: dict[int, ExpertKey] = {}  # what the bytes of a slot are
        self.held: dict[ExpertKey, int] = {}
        self.num_holds = 0

    @rule(data=st.data())
    def aim(self, data):
        """Any keys, in any order: a sweep, guesses, nonsense."""
        self.quota = data.draw(st.one_of(st.none(), st.integers(0, 3)))
        self.ring.set_window(data.draw(st.lists(st.sampled_from(self.order), unique=True)), self.quota)

    @rule(at_most=st.integers(1, 4))
    def begin_load(self, at_most):
        loads = self.ring.claim_loads(at_most, wait=False)
        assert len(loads) <= (at_most if self.quota is None else 1), "what is asked for now waits for nothing else"
        for key, slot in loads:
            assert slot not in self.held.values(), "a held slot was given to another key"
            assert slot not in self.loading
            self.loading[slot] = key
            self.content.pop(slot, None)

    @precondition(lambda self: self.loading)
    @rule(data=st.data())
    def end_load(self, data):
        slots = data.draw(st.lists(st.sampled_from(sorted(self.loading)), unique=True, min_size=1))
        self.arrive(slots)

    def arrive(self, slots):
        loads = [Load(self.loading.pop(slot), slot) for slot in slots]
        self.content |= {slot: key for key, slot in loads}
        self.ring.finish_loads(loads)

    @precondition(lambda self: not self.held)
    @rule(data=st.data())
    def hold(self, data):
        """One key or several, as many as there are slots, whatever is in the slots."""
        most = min(self.ring.num_slots, len(self.order))
        keys = data.draw(st.lists(st.sampled_from(self.order), unique=True, min_size=1, max_size=most))
        self.arrive(sorted(self.loading))  # hold waits for a prefetcher; this machine has one thread
        slots = self.ring.hold_all(keys, self.load_one)
        self.num_holds += len(keys)
        self.held = dict(zip(keys, slots, strict=True))

    def load_one(self):
        [(key, slot)] = self.ring.claim_loads(1, wait=False)
        self.content[slot] = key
        self.ring.finish_loads([Load(key, slot)])

    @precondition(lambda self: self.held)
    @rule()
    def release(self):
        self.ring.release(*self.held)
        self.held = {}

    @invariant()
    def laws(self):
        if not hasattr(self, "ring"):
            return
        self.ring.check_integrity()
        totals = self.trace.totals()
        assert totals["ring_hits"] + totals["late_prefetches"] + totals["fetches"] == self.num_holds
        assert totals["bytes_to_host"] == 0
        for key, slot in self.held.items():
            assert self.ring._states[slot] is SlotState.HELD
            assert self.content[slot] == key, "the slot has the bytes of another key"


RingMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestRing = RingMachine.TestCase


def test_loads_on_a_guess_are_told_apart_by_what_became_of_them():
    ring = Ring(2, Trace())
    needed, right, wrong, later = (ExpertKey(0, n) for n in range(4))

    def load() -> None:
        ring.finish_loads(ring.claim_loads(1, wait=False))

    ring.set_window([needed, right], num_needed=1)
    load()
    load()
    for key in (needed, right):
        ring.hold(key)
        ring.release(key)
    assert ring.take_prefetch_feedback() == (0, 1), "what was needed is no guess"
    ring.set_window([right, wrong], num_needed=1)
    load()
    ring.set_window([right, later], num_needed=2)
    load()
    assert ring.take_prefetch_feedback() == (1, 0)
    ring.hold(later)
    ring.release(later)
    assert ring.take_prefetch_feedback() == (0, 0)
    ring.set_window([wrong], num_needed=0)
    load()
    ring.forget_predictions()
    ring.hold(wrong)
    assert ring.take_prefetch_feedback() == (0, 0), "a sweep would have asked for it in any case"


def test_a_sweep_claims_several_slots_at_once_as_far_as_they_are_free():
    ring, order = Ring(8, Trace()), [ExpertKey(0, n) for n in range(12)]
    ring.set_window(order)
    loads = [ring.claim_loads(3, wait=False), ring.claim_loads(5, wait=False)]
    assert [load for batch in loads for load in batch] == [Load(order[slot], slot) for slot in range(8)]
    assert ring.claim_loads(3, wait=False) == []
    ring.finish_loads([*loads[0], *loads[1]])
    claims = []
    for cursor in range(4):
        ring.set_window(order[cursor:])
        slot = ring.hold(order[cursor])
        claims.append(ring.claim_loads(3, wait=False))
        assert slot == cursor
        ring.release(order[cursor])
    assert claims == [[], [], [], [Load(order[8 + n], n) for n in range(3)]], "a batch, once three slots are free"
    ring.set_window(order[8:])
    assert [load.key for load in ring.claim_loads(3, wait=False)] == [order[11]], "half a ring does not cover it"


@pytest.mark.parametrize(("slots", "batch_slabs"), [(2, 1), (4, 2), (4, 3), (5, 5), (8, 2)])
@pytest.mark.parametrize("num_prefetchers", [1, 2])
def test_batches_bring_the_right_bytes_whatever_is_skipped_and_end_where_a_read_fails(
    tmp_path_factory, slots, batch_slabs, num_prefetchers
):
    folder = tmp_path_factory.mktemp("pack")
    pack(write_tiny_checkpoint(tmp_path_factory.mktemp("hf"), seed=4, num_hidden_layers=3), folder)
    manifest, trace = Manifest.load(folder), Trace()
    tier, raw = DiskTier(manifest, folder, trace), (folder / EXPERTS_NAME).read_bytes()
    order = sorted(manifest.slabs)
    transfer = CpuTransfer(tier, [manifest.slab_nbytes] * slots, trace)
    source = RingSource(
        manifest, order, slots, transfer, trace, num_prefetchers=num_prefetchers, batch_slabs=batch_slabs
    )
    for step in (1, 1, 5, 3, 1):
        source.begin_step(99)
        for key in order[::step]:
            place = manifest.slabs[key]
            expected = slab_views(
                torch.frombuffer(bytearray(raw), dtype=torch.uint8)[place.offset :], manifest, key.layer
            )
            with source.hold(key) as slab:
                assert all(
                    torch.equal(mine, wanted) for mine, wanted in zip(_matrices(slab), _matrices(expected), strict=True)
                )
    source._ring.check_integrity()
    tier._read = lambda view, offset: 0  # a file that ends

    def turn() -> None:
        for key in [*order, *order]:
            with source.hold(key):
                pass

    with pytest.raises(StorageError, match="ends at byte"):
        turn()
    source.close()
    tier.close()


def test_the_window_turns_over_the_end():
    order = [ExpertKey(0, 0), ExpertKey(0, 1), ExpertKey(1, 0)]
    assert sweep_window(order, 2, 2) == [order[2], order[0]]
    assert sweep_window(order, 1, 9) == [order[1], order[2], order[0]]


@given(st.integers(0, 32), st.integers(0, 40))
def test_residents_and_what_host_memory_holds_are_each_spread_over_the_layers(num_residents, num_hosted):
    order = [ExpertKey(layer, expert) for layer in range(4) for expert in range(8)]
    residents, hosted = assign_tiers(order, num_residents, num_hosted)
    assert not residents & hosted
    for kept, count in ((residents, num_residents), (hosted, min(num_hosted, 32 - num_residents))):
        by_layer = [sum(key.layer == layer for key in kept) for layer in range(4)]
        assert sum(by_layer) == count
        assert max(by_layer) - min(by_layer) <= 1


@pytest.mark.parametrize("prefetch", [True, False])
@pytest.mark.parametrize("num_hosted", [0, 1, 2, 8])
@pytest.mark.parametrize(("residents", "slots"), [(8, 0), (0, 2), (0, 8), (3, 2), (7, 2)])
def test_every_source_gives_the_weights_of_the_expert_that_was_asked_for(
    tiny_pack, residents, slots, num_hosted, prefetch, device
):
    """The contract of an ExpertSource, over all three of them."""
    manifest, trace, target = Manifest.load(tiny_pack), Trace(), torch.device(device)
    raw = (tiny_pack / EXPERTS_NAME).read_bytes()
    placement = Placement(residents, slots, num_hosted)
    opened = open_tier(manifest, tiny_pack, placement, target, trace)
    source = open_experts(manifest, opened, placement, target, trace, prefetch=prefetch)
    keys = sorted(manifest.slabs)
    for key in [*keys, *keys, *keys[::3], *reversed(keys)]:
        offset, nbytes, _ = manifest.slabs[key]
        expected = slab_views(
            torch.frombuffer(bytearray(raw[offset : offset + nbytes]), dtype=torch.uint8), manifest, key.layer
        )
        with source.hold(key) as slab:
            assert all(
                torch.equal(mine.cpu(), wanted)
                for mine, wanted in zip(_matrices(slab), _matrices(expected), strict=True)
            )
    assert trace.totals()["bytes_to_host"] == 0
    source.close()
    source.close()
    opened.close()


@pytest.mark.parametrize("prefetch", [True, False])
def test_a_read_that_fails_surfaces_in_hold_and_names_the_file(tiny_pack, tmp_path, prefetch):
    manifest, trace = Manifest.load(tiny_pack), Trace()
    tier = DiskTier(manifest, tiny_pack, trace)
    source = open_experts(manifest, tier, Placement(0, 2, 0), CPU, trace, prefetch=prefetch)
    first, second, *_, last = sorted(manifest.slabs)
    with source.hold(first):
        pass
    tier._path = tmp_path / "gone"
    broken = lambda view, offset: 0  # noqa: E731 - a file that ends
    tier._read = broken
    with pytest.raises(StorageError, match="gone: ends at byte"), source.hold(last):
        pass
    source.close()


def test_a_pack_shorter_than_its_manifest_is_refused(tiny_pack, tmp_path):
    (tmp_path / EXPERTS_NAME).write_bytes((tiny_pack / EXPERTS_NAME).read_bytes()[:-4096])
    with pytest.raises(ModelError, match="the manifest needs"):
        DiskTier(Manifest.load(tiny_pack), tmp_path, Trace())


def test_page_buffers_are_page_aligned():
    assert all(page_buffer(size).data_ptr() % 4096 == 0 for size in (1, 4096, 100_000))
