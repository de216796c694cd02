"""The ring: a held slot is never reused, no key sits in two slots, counters add up, errors surface."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rotary_batch.core import ExpertKey
from rotary_batch.engine.experts import Placement, open_experts, open_tier, views
from rotary_batch.engine.policy import choose_kept, sweep_window
from rotary_batch.engine.ring import Ring, SlotState
from rotary_batch.engine.tiers import DiskTier, page_buffer
from rotary_batch.engine.trace import Trace
from rotary_batch.errors import ModelError, StorageError
from rotary_batch.model.manifest import EXPERTS_NAME, Manifest

CPU = torch.device("cpu")


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
        self.held: tuple[ExpertKey, int] | None = None
        self.num_holds = 0

    @rule(data=st.data())
    def aim(self, data):
        """Any keys, in any order: a sweep, guesses, nonsense."""
        quota = data.draw(st.one_of(st.none(), st.integers(0, 3)))
        self.ring.aim(data.draw(st.lists(st.sampled_from(self.order), unique=True)), quota)

    @rule()
    def begin_load(self):
        claim = self.ring.next_load(wait=False)
        if claim is not None:
            key, slot = claim
            assert self.held is None or slot != self.held[1], "a held slot was given to another key"
            assert slot not in self.loading
            self.loading[slot] = key
            self.content.pop(slot, None)

    @precondition(lambda self: self.loading)
    @rule(data=st.data())
    def end_load(self, data):
        slot = data.draw(st.sampled_from(sorted(self.loading)))
        self.content[slot] = self.loading.pop(slot)
        self.ring.loaded(slot)

    @precondition(lambda self: self.held is None)
    @rule(data=st.data())
    def hold(self, data):
        key = data.draw(st.sampled_from(self.order))
        for slot in sorted(self.loading):  # hold waits for a rotor; this machine has one thread
            self.content[slot] = self.loading.pop(slot)
            self.ring.loaded(slot)
        slot = self.ring.hold(key, self.load_one)
        self.num_holds += 1
        assert self.content[slot] == key, "the slot has the bytes of another key"
        self.held = (key, slot)

    def load_one(self):
        key, slot = self.ring.next_load(wait=False)
        self.content[slot] = key
        self.ring.loaded(slot)

    @precondition(lambda self: self.held is not None)
    @rule()
    def release(self):
        self.ring.release(self.held[0])
        self.held = None

    @invariant()
    def laws(self):
        if not hasattr(self, "ring"):
            return
        self.ring.check_integrity()
        totals = self.trace.totals()
        assert totals["ring_hits"] + totals["late_prefetches"] + totals["fetches"] == self.num_holds
        assert totals["bytes_to_host"] == 0
        if self.held is not None:
            assert self.ring._states[self.held[1]] is SlotState.HELD
            assert self.content[self.held[1]] == self.held[0]


RingMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestRing = RingMachine.TestCase


def test_loads_on_a_guess_are_told_apart_by_what_became_of_them():
    ring = Ring(2, Trace())
    needed, right, wrong, later = (ExpertKey(0, n) for n in range(4))

    def load() -> None:
        ring.loaded(ring.next_load(wait=False)[1])

    ring.aim([needed, right], num_needed=1)
    load()
    load()
    for key in (needed, right):
        ring.hold(key)
        ring.release(key)
    assert ring.take_outcomes() == (0, 1), "what was needed is no guess"
    ring.aim([right, wrong], num_needed=1)
    load()
    ring.aim([right, later], num_needed=2)
    load()
    assert ring.take_outcomes() == (1, 0)
    ring.hold(later)
    ring.release(later)
    assert ring.take_outcomes() == (0, 0)
    ring.aim([wrong], num_needed=0)
    load()
    ring.forget_guesses()
    ring.hold(wrong)
    assert ring.take_outcomes() == (0, 0), "a sweep would have asked for it in any case"


def test_the_window_turns_over_the_end():
    order = [ExpertKey(0, 0), ExpertKey(0, 1), ExpertKey(1, 0)]
    assert sweep_window(order, 2, 2) == [order[2], order[0]]
    assert sweep_window(order, 1, 9) == [order[1], order[2], order[0]]


@given(st.integers(0, 32), st.integers(0, 40))
def test_residents_and_what_host_memory_holds_are_each_spread_over_the_layers(num_residents, num_hosted):
    order = [ExpertKey(layer, expert) for layer in range(4) for expert in range(8)]
    residents, hosted = choose_kept(order, num_residents, num_hosted)
    assert not residents & hosted
    for kept, count in ((residents, num_residents), (hosted, min(num_hosted, 32 - num_residents))):
        by_layer = [sum(key.layer == layer for key in kept) for layer in range(4)]
        assert sum(by_layer) == count
        assert max(by_layer) - min(by_layer) <= 1


@pytest.mark.parametrize("rotor", [True, False])
@pytest.mark.parametrize("num_hosted", [0, 1, 2, 8])
@pytest.mark.parametrize(("residents", "slots"), [(8, 0), (0, 2), (0, 8), (3, 2), (7, 2)])
def test_every_source_gives_the_weights_of_the_expert_that_was_asked_for(
    tiny_pack, residents, slots, num_hosted, rotor, device
):
    """The contract of an ExpertSource, over all three of them."""
    manifest, trace, target = Manifest.load(tiny_pack), Trace(), torch.device(device)
    raw = (tiny_pack / EXPERTS_NAME).read_bytes()
    placement = Placement(residents, slots, num_hosted)
    opened = open_tier(manifest, tiny_pack, placement, target, trace)
    source = open_experts(manifest, opened, placement, target, trace, rotor=rotor)
    keys = sorted(manifest.slabs)
    for key in [*keys, *keys, *keys[::3], *reversed(keys)]:
        offset, nbytes, _ = manifest.slabs[key]
        expected = views(torch.frombuffer(bytearray(raw[offset : offset + nbytes]), dtype=torch.uint8), manifest)
        with source.hold(key) as slab:
            assert all(torch.equal(mine.cpu(), wanted) for mine, wanted in zip(slab, expected, strict=True))
    assert trace.totals()["bytes_to_host"] == 0
    source.close()
    source.close()
    opened.close()


@pytest.mark.parametrize("rotor", [True, False])
def test_a_read_that_fails_surfaces_in_hold_and_names_the_file(tiny_pack, tmp_path, rotor):
    manifest, trace = Manifest.load(tiny_pack), Trace()
    tier = DiskTier(manifest, tiny_pack, trace)
    source = open_experts(manifest, tier, Placement(0, 2, 0), CPU, trace, rotor=rotor)
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
