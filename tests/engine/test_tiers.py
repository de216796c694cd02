"""What a system may refuse: direct reads, page-locked memory.  The bytes are the same, and the report says the way."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rotary_batch.core import ExpertKey
from rotary_batch.engine import build, open_engine
from rotary_batch.engine.offload import tiers
from rotary_batch.engine.offload.prefetch import CudaTransfer, contiguous_copies
from rotary_batch.engine.offload.ring import Load
from rotary_batch.engine.offload.tiers import DiskTier, RamTier
from rotary_batch.engine.runtime.buffers import page_buffer, page_lock
from rotary_batch.engine.runtime.trace import Trace
from rotary_batch.errors import ModelError, UnavailableError
from rotary_batch.model.manifest import EXPERTS_NAME, Manifest

PROMPT = [5, 9, 200, 31]


def refuse(*_):
    raise OSError(errno.EINVAL, "Invalid argument")


def stored(pack_dir, manifest, key) -> bytes:
    place = manifest.slabs[key]
    return (pack_dir / EXPERTS_NAME).read_bytes()[place.offset : place.offset + place.nbytes]


def open_without_direct(path, flags, *rest):
    return refuse() if flags & os.O_DIRECT else REAL_OPEN(path, flags, *rest)


REAL_OPEN = os.open


@pytest.mark.parametrize("refused_at", ["open", "read"])
def test_direct_reads_that_are_refused_become_buffered_ones(tiny_pack, monkeypatch, refused_at):
    manifest = Manifest.load(tiny_pack)
    if refused_at == "open":
        monkeypatch.setattr(os, "open", open_without_direct)
    tier = DiskTier(manifest, tiny_pack, Trace())
    if refused_at == "read":  # as tmpfs and overlays do
        direct, real = tier._direct, os.preadv
        monkeypatch.setattr(os, "preadv", lambda fd, *rest: refuse() if fd == direct else real(fd, *rest))
    for key, place in manifest.slabs.items():
        target = page_buffer(place.nbytes)
        tier.read_into(key, target)
        assert target.numpy().tobytes() == stored(tiny_pack, manifest, key)
    assert tier.name == "disk (buffered)"
    tier.close()


def test_an_engine_without_direct_reads_gives_the_same_tokens_and_says_so(tiny_pack, monkeypatch):
    outputs = []
    for _ in range(2):
        engine = open_engine(tiny_pack, tier="disk", numerics="exact", ring_slots=3, resident_share=0.0)
        outputs.append(engine.generate([PROMPT], max_new_tokens=6))
        name = engine.tier_name
        engine.close()
        monkeypatch.setattr(os, "open", open_without_direct)
    assert outputs[0] == outputs[1]
    assert name == "disk (buffered)"


@pytest.mark.parametrize("is_locked", [True, False])
def test_memory_that_cannot_be_locked_goes_through_staging(tiny_pack, monkeypatch, is_locked):
    manifest, unlocked = Manifest.load(tiny_pack), []
    monkeypatch.setattr(tiers, "page_lock", lambda _: is_locked)
    monkeypatch.setattr(tiers, "page_unlock", lambda *memories: unlocked.extend(memories))
    tier = RamTier(manifest, DiskTier(manifest, tiny_pack, Trace()), manifest.slabs, 0, pinned=True)
    assert tier.name == ("host (pinned arena)" if is_locked else "host (pageable, through a pinned staging ring)")
    for key, place in manifest.slabs.items():
        assert (tier.view(key) is not None) is is_locked
        target = page_buffer(place.nbytes)
        tier.read_into(key, target)
        assert target.numpy().tobytes() == stored(tiny_pack, manifest, key)
    tier.close()
    tier.close()
    assert len(unlocked) == is_locked, "unlocked once, and only what was locked"


def test_what_host_memory_has_no_room_for_is_read_from_disk(tiny_pack, monkeypatch):
    manifest = Manifest.load(tiny_pack)
    monkeypatch.setattr(tiers, "page_lock", lambda _: True)
    monkeypatch.setattr(tiers, "page_unlock", lambda *_: None)
    hosted = sorted(manifest.slabs)[1::2]
    trace = Trace()
    disk = DiskTier(manifest, tiny_pack, trace)
    tier = RamTier(manifest, disk, hosted, 4, pinned=True)
    assert trace.totals()["bytes_read"] == len(hosted) * manifest.slab_nbytes
    assert tier.name == f"host (pinned arena); 4 slabs: {disk.name}"
    for key, place in manifest.slabs.items():
        assert (tier.view(key) is not None) is (key in hosted)
        target = page_buffer(place.nbytes)
        tier.read_into(key, target)
        assert target.numpy().tobytes() == stored(tiny_pack, manifest, key)
    assert trace.totals()["bytes_read"] == len(manifest.slabs) * manifest.slab_nbytes, "from disk what is not here"
    tier.close()


@pytest.mark.parametrize("slabs_in_ram", [0, 1, 3, 7])
def test_tokens_do_not_depend_on_how_many_experts_host_memory_holds(tiny_pack, device, slabs_in_ram):
    nbytes = Manifest.load(tiny_pack).slab_nbytes
    found = []
    for options in ({"tier": "disk"}, {"tier": "ram", "host_memory": slabs_in_ram * nbytes}):
        engine = open_engine(
            tiny_pack, device=device, numerics="exact", ring_slots=2, resident_share=0.125, host_kv_tokens=0, **options
        )
        found.append(engine.generate([PROMPT], max_new_tokens=6))
        num_hosted = engine.memory_plan.num_host_slabs
        engine.close()
    assert found[0] == found[1]
    assert num_hosted == slabs_in_ram


@pytest.mark.parametrize(("status", "is_locked"), [(0, True), (1, False), (2, False)])
def test_the_system_s_answer_to_locking_is_taken(monkeypatch, status, is_locked):
    """A refusal leaves an error behind, which the next call on the device would raise: it is taken there."""
    asked, raised = [], []

    class Runtime:
        @staticmethod
        def cudaHostRegister(address, nbytes, flags):
            asked.append((address, nbytes, flags))
            return status

    def next_call(*_, device):
        raised.append(device)
        raise RuntimeError(f"CUDA error on {device}: out of memory")

    monkeypatch.setattr(torch.cuda, "cudart", lambda: Runtime)
    monkeypatch.setattr(torch, "zeros", next_call)
    memory = page_buffer(4096)
    assert page_lock(memory) is is_locked
    assert asked == [(memory.data_ptr(), 4096, 0)]
    assert raised == ["cuda"] * (not is_locked), "the error is taken where there is one"


@given(
    st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), min_size=1, max_size=8, unique_by=lambda pair: pair[0])
)
def test_neighbours_at_both_ends_go_in_one_copy(places):
    """Whatever lies beside what, each slot has the bytes of its own slab in the end."""
    arena = torch.arange(8 * 4, dtype=torch.uint8)
    parts = torch.split(arena, 4)
    loads = [Load(ExpertKey(0, source), slot) for slot, source in places]
    memory = torch.zeros(8 * 4, dtype=torch.uint8)
    found = list(contiguous_copies(loads, [parts[source] for _, source in places], parts[0].numel()))
    for run, source in found:
        memory[run[0].slot * 4 :][: source.numel()].copy_(source)
    assert [load for run, _ in found for load in run] == loads
    assert all(torch.equal(memory[slot * 4 :][:4], parts[source]) for slot, source in places)
    steps = [(slot - before[0], source - before[1]) for before, (slot, source) in pairwise(places)]
    assert len(found) == 1 + sum(step != (1, 1) for step in steps)


def num_open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_an_engine_that_cannot_be_opened_leaves_no_thread_and_no_file(tiny_pack, monkeypatch):
    def broken(*_):
        raise torch.OutOfMemoryError("CUDA out of memory (test)")

    monkeypatch.setattr(build, "attention_for", broken)
    before = threading.active_count(), num_open_files()
    with pytest.raises(UnavailableError, match="give a smaller --device-memory"):
        open_engine(tiny_pack, ring_slots=2, resident_share=0.0)
    assert (threading.active_count(), num_open_files()) == before


@pytest.mark.parametrize("options", [{"tier": "ram", "ring_slots": 2}, {"resident_share": 1.0}])
def test_a_damaged_slab_is_named_while_opening_and_leaves_no_file(tiny_pack, tmp_path, options):
    shutil.copytree(tiny_pack, tmp_path / "pack")
    with (tmp_path / "pack" / EXPERTS_NAME).open("r+b") as file:
        file.seek(Manifest.load(tiny_pack).slabs[ExpertKey(0, 1)].offset + 99)
        file.write(b"?!")
    before = num_open_files()
    with pytest.raises(ModelError, match="layer 0 expert 1 is damaged"):
        open_engine(tmp_path / "pack", **options)
    assert num_open_files() == before


class StandIn:
    """A stream or an event of a device that is not there: every copy ends before it returns."""

    waits: ClassVar[list[StandIn]] = []

    def __init__(self, *_, **__) -> None:
        self.recorded = 0

    def record(self, *_) -> None:
        self.recorded += 1

    def synchronize(self) -> None:
        assert self.recorded, "nobody waits for what was never set in motion"
        self.waits.append(self)

    wait_event = wait_stream = lambda self, _: None


@pytest.mark.parametrize("batch_slabs", [1, 3, 8])
@pytest.mark.parametrize("num_hosted", [0, 3, 8])
@pytest.mark.parametrize("is_locked", [True, False])
def test_several_threads_may_send_slabs_at_once_through_few_staging_buffers(
    tiny_pack, monkeypatch, is_locked, num_hosted, batch_slabs
):
    """The bookkeeping of copies to a card, on a machine without one."""
    made, waits = [], []

    def empty(count, *, dtype, pin_memory=False, device=None):
        made.extend([count] * pin_memory)
        return torch.zeros(count, dtype=dtype)

    for name in ("Stream", "Event", "current_stream"):
        monkeypatch.setattr(torch.cuda, name, StandIn)
    for name in ("stream", "device"):
        monkeypatch.setattr(torch.cuda, name, lambda _: nullcontext())
    monkeypatch.setattr(StandIn, "waits", waits)
    monkeypatch.setattr(torch, "empty", empty)
    monkeypatch.setattr(tiers, "page_lock", lambda _: is_locked)
    monkeypatch.setattr(tiers, "page_unlock", lambda *_: None)
    manifest, trace = Manifest.load(tiny_pack), Trace()
    keys = sorted(manifest.slabs)
    disk = DiskTier(manifest, tiny_pack, trace)
    left = len(keys) - num_hosted
    tier = RamTier(manifest, disk, keys[:num_hosted], left, pinned=True) if num_hosted else disk
    transfer = CudaTransfer(tier, len(keys), manifest.slab_nbytes, torch.device("cpu"), trace)
    assert transfer.batches_copies is (is_locked and not left), "what is staged would hold up what comes with it"
    loads = [Load(key, slot) for slot, key in enumerate(keys)]
    batches = [loads[first : first + batch_slabs] for first in range(0, len(loads), batch_slabs)]
    with ThreadPoolExecutor(2 * CudaTransfer.NUM_STAGING) as pool:
        for _ in range(3):
            list(pool.map(transfer.fill, batches))
    for slot, key in enumerate(keys):
        transfer.wait_ready(slot)
        transfer.note_free(slot)
        assert transfer.slots[slot].numpy().tobytes() == stored(tiny_pack, manifest, key)
    through_staging = 3 * (len(keys) - num_hosted * is_locked)
    assert len(made) <= CudaTransfer.NUM_STAGING
    assert bool(made) is bool(through_staging), "an arena that is locked needs no buffers"
    assert len(waits) == through_staging - len(made), "before a buffer is filled again its last copy is waited for"
    monkeypatch.setattr(tier, "read_into", refuse)
    monkeypatch.setattr(tier, "view", lambda _: None, raising=False)
    for _ in range(2 * CudaTransfer.NUM_STAGING):  # buffers of reads that fail are used again, else this would hang
        with pytest.raises(OSError, match="Invalid argument"):
            transfer.fill([Load(keys[0], 0)])
    tier.close()
