"""KV cache in host memory: no range crosses the border, swapping changes no bit, kernels read only the device."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotary_batch.core import Request
from rotary_batch.engine import open_engine
from rotary_batch.engine.attention.base import QuerySegment
from rotary_batch.engine.attention.gather import GatherAttention
from rotary_batch.engine.attention.split import SplitAttention
from rotary_batch.engine.kvcache.arena import KvArena, RangeSize
from rotary_batch.engine.packs.pack import pack
from rotary_batch.errors import PromptError
from rotary_batch.model.footprint import Workload
from rotary_batch.model.geometry import Geometry
from rotary_batch.testing import drain, write_tiny_checkpoint

CPU = torch.device("cpu")
GEOMETRY = Geometry(
    hidden_size=32,
    intermediate_size=32,
    num_layers=5,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    num_experts=2,
    top_k=1,
    vocab_size=2,
    rope_theta=1e4,
    rms_norm_eps=1e-5,
    tie_word_embeddings=True,
    max_position=512,
    sliding_window=None,
    dtype="BF16",
    eos_ids=(),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 60), st.booleans(), st.booleans()), max_size=40))
def test_ranges_never_overlap_or_cross_the_border_and_all_can_be_freed(steps):
    kv = KvArena(GEOMETRY, 100, "bf16", torch.float32, CPU, host_tokens=80)
    held: list[tuple[int, int]] = []
    for size, on_device, frees in steps:
        if kv.has_room([RangeSize(size, on_device)]):
            start = kv.allocate(size, on_device=on_device)
            assert start + size <= 100 or (not on_device and start >= 100)
            assert start + size <= 180
            assert all(start + size <= other or other + length <= start for other, length in held)
            held.append((start, size))
        else:
            with pytest.raises(ValueError, match="no free range"):
                kv.allocate(size, on_device=on_device)
        if frees and held:
            kv.free(*held.pop(0))
        assert kv.free_tokens == 180 - sum(length for _, length in held)
    for one in held:
        kv.free(*one)
    assert (kv.allocate(100), kv.allocate(80)) == (0, 100)


def test_a_longest_range_fits_one_part_and_ranges_are_counted_by_part():
    kv = KvArena(GEOMETRY, 100, "bf16", torch.float32, CPU, host_tokens=80)
    assert kv.max_range_tokens == 100
    assert not kv.has_room([RangeSize(101)])
    assert kv.has_room([RangeSize(60), RangeSize(60)])
    assert not kv.has_room([RangeSize(60), RangeSize(60, on_device=True)])
    assert kv.num_ranges(30) == 3 + 2


@pytest.mark.parametrize("stored_as", ["bf16", "int8"])
def test_what_is_swapped_in_is_what_the_device_would_hold(stored_as, device):
    """Steps that write to random slots while ranges are freed and allocated, compared with an arena of the device alone."""
    draw, generator = random.Random(3), torch.Generator().manual_seed(3)
    where = torch.device(device)
    split = KvArena(GEOMETRY, 40, stored_as, torch.float32, where, host_tokens=60)
    whole = KvArena(GEOMETRY, 100, stored_as, torch.float32, where)
    written: set[int] = set()
    held = [(split.allocate(20), 20) for _ in range(5)]
    for step in range(30):
        if step % 7 == 3:  # another sequence takes the place of one that ended
            split.free(*held.pop(draw.randrange(len(held))))
            held.append((split.allocate(20), 20))
        slots = sorted(draw.sample(range(100), draw.choice([1, 3, 20])))
        if step == 12:
            slots = [place for place in slots if place < 40]  # none in host memory
        written |= set(slots)
        split.begin_step(slots)
        for layer in range(GEOMETRY.num_layers):
            keys, values = (torch.randn(len(slots), 2, 8, generator=generator).to(where) for _ in "kv")
            for kv in (split, whole):
                kv.write(layer, torch.tensor(slots, dtype=torch.int64, device=where), keys, values)
            indices = torch.tensor(sorted(written), device=where)
            for one, other in zip(
                split.gather(layer, indices, torch.float32), whole.gather(layer, indices, torch.float32), strict=True
            ):
                assert torch.equal(one, other)
    assert split.nbytes < whole.nbytes
    split.close()


def test_kernels_get_the_segments_whose_kv_is_on_the_device():
    kv = KvArena(GEOMETRY, 200, "bf16", torch.float32, CPU, host_tokens=200)
    generator = torch.Generator().manual_seed(1)
    keys, values = (torch.randn(400, 2, 8, generator=generator) for _ in "kv")
    kv.begin_step(range(400))
    kv.write(0, torch.arange(400), keys, values)
    segments = [
        QuerySegment(0, 12, 0, 10),
        QuerySegment(12, 1, 30, 210),
        QuerySegment(13, 3, 40, 300, 50, 25),
        QuerySegment(16, 1, 9, 150),
    ]
    queries = torch.randn(17, 4, 8, generator=generator)
    plain, seen = GatherAttention(GEOMETRY, torch.float32, CPU), []

    class Kernel(GatherAttention):
        def plan(self, segments):
            seen.extend(segments)
            super().plan(segments)

    for part in (segments, segments[1:3], segments[3:]):
        some = [segment._replace(first_row=segment.first_row - part[0].first_row) for segment in part]
        plain.plan(some)
        split = SplitAttention(
            Kernel(GEOMETRY, torch.float32, CPU), GatherAttention(GEOMETRY, torch.float32, CPU), 200, CPU
        )
        split.plan(some)
        count = sum(segment.num_rows for segment in some)
        out = split.attend(0, queries[:count], kv)
        torch.testing.assert_close(out, plain.attend(0, queries[:count], kv), atol=1e-6, rtol=1e-5)
    assert seen == [segments[0], segments[3], segments[3]._replace(first_row=0)]


@pytest.fixture(scope="module")
def tiny_pack(tmp_path_factory):
    source = write_tiny_checkpoint(tmp_path_factory.mktemp("hf"), seed=5, num_hidden_layers=4, num_local_experts=4)
    folder = tmp_path_factory.mktemp("pack")
    pack(source, folder)
    return folder


def requests() -> list[Request]:
    draw = random.Random(7)
    beginning = tuple(draw.randrange(250) for _ in range(40))
    prompts = [beginning + tuple(draw.randrange(250) for _ in range(size)) for size in (3, 60, 20, 9, 50, 70, 31)]
    return [Request(request_id=n, prompt_ids=p, max_new_tokens=6 + n) for n, p in enumerate(prompts)]


@pytest.mark.parametrize("kv", ["bf16", "int8"])
@pytest.mark.parametrize("share_prefixes", [True, False])
@pytest.mark.parametrize("host_kv_tokens", [130, 1000])
def test_bits_do_not_depend_on_where_the_kv_cache_is(tiny_pack, kv, share_prefixes, host_kv_tokens, device):
    small = Workload(1, 20, 5, 130)  # so that the device keeps 130 tokens
    results, is_on_host = [], set()
    for host in (0, host_kv_tokens):
        engine = open_engine(
            tiny_pack,
            numerics="exact",
            kv=kv,
            workload=small,
            host_kv_tokens=host,
            max_batch=4,
            draft_tokens=0,
            share_prefixes=share_prefixes,
            device=device,
        )
        assert engine.model.kv.device_tokens == 130
        real = engine.model.decoder.forward

        def forward(ids, segments, *rest, real=real):
            is_on_host.update(segment.kv_start >= 130 for segment in segments)
            return real(ids, segments, *rest)

        engine.model.decoder.forward = forward
        results.append(drain(engine, requests()))
        engine.close()
    assert results[0] == results[1]
    assert is_on_host == {True, False}, "some sequences were in host memory, some were not"


def test_a_prompt_longer_than_either_part_is_refused(tiny_pack):
    engine = open_engine(tiny_pack, workload=Workload(1, 20, 5, 130), host_kv_tokens=90, max_batch=1)
    with pytest.raises(PromptError, match="hold 130"):
        engine.admit(Request(request_id=1, prompt_ids=(1,) * 130, max_new_tokens=2))
    engine.close()


def test_a_prompt_that_can_never_fit_is_refused_at_once_and_holds_nobody_up(tiny_pack):
    """`has_room` must not say "later" for ever: the queue behind it would wait."""
    engine = open_engine(tiny_pack, workload=Workload(1, 20, 5, 130), max_batch=1)
    engine.admit(requests()[0])
    assert not engine.has_room(requests()[1])
    giant = Request(request_id=9, prompt_ids=(1,) * 140, max_new_tokens=2)
    assert engine.has_room(giant)
    with pytest.raises(PromptError):
        engine.admit(giant)
    engine.close()
