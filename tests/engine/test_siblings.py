"""Requests that ask several things of one text: it is computed once, and each answer has the bits that it has alone."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
import torch

from rotary_batch.core import Request
from rotary_batch.engine import open_engine
from rotary_batch.engine.kvcache.arena import KvArena
from rotary_batch.engine.packs.pack import pack
from rotary_batch.engine.scheduler import Scheduler
from rotary_batch.model.footprint import Workload
from rotary_batch.model.manifest import Manifest
from rotary_batch.testing import drain, write_tiny_checkpoint
from tests.engine import test_families, test_hybrid

CPU = torch.device("cpu")
FAMILIES = [*test_families.CASES, *test_hybrid.CLASSES]
OPTIONS: list[dict[str, Any]] = [
    {},
    {"prefill_span": 7, "max_batch": 3},
    {"draft_tokens": 3, "ring_slots": 2, "resident_share": 0.0},
    {"prefill_span": 65, "max_batch": 5, "ring_slots": 3, "resident_share": 0.0},
]


def tokens(draw: random.Random, count: int) -> tuple[int, ...]:
    return tuple(draw.randrange(250) for _ in range(count))


def tree(seed: int, num_chunks: int = 3) -> list[Request]:
    """Siblings of chunks that begin with the same instructions, some of a part of one; others that say nothing."""
    draw = random.Random(seed)
    instructions = tokens(draw, 30)
    prompts: list[tuple[tuple[int, ...], int]] = [(instructions + tokens(draw, 9), 0), (tokens(draw, 20), 0)]
    for _ in range(num_chunks):
        chunk = instructions + tokens(draw, draw.randint(30, 60))
        longer = chunk + tokens(draw, 30)
        prompts += [(chunk + tokens(draw, draw.randint(1, 9)), len(chunk)) for _ in range(draw.randint(1, 3))]
        prompts += [(longer + tokens(draw, 2), len(longer)) for _ in range(draw.randint(0, 2))]
    requests = [
        Request(request_id=n, prompt_ids=ids, shared_tokens=shared, max_new_tokens=draw.randint(2, 5))
        for n, (ids, shared) in enumerate(prompts)
    ]
    requests[-1] = replace(requests[-1], generated_ids=(7,))
    if seed % 2:
        draw.shuffle(requests)
    return requests


def undeclared(requests: list[Request]) -> list[Request]:
    return [replace(request, shared_tokens=0) for request in requests]


@pytest.mark.parametrize("family", FAMILIES)
def test_bits_are_those_of_each_request_alone(family, tmp_path):
    number = FAMILIES.index(family)
    module: Any = test_hybrid if family in test_hybrid.CLASSES else test_families
    module.write_checkpoint(tmp_path / "hf", family, number % 2)
    pack(tmp_path / "hf", tmp_path / "pack")
    kv, todo, found = ("bf16", "int8")[number % 2], tree(number), []
    for options in ({"share_prefixes": False, "max_batch": 1, "draft_tokens": 0}, OPTIONS[number % len(OPTIONS)]):
        engine = open_engine(tmp_path / "pack", numerics="exact", kv=kv, **options)
        found.append(drain(engine, todo if options.get("share_prefixes", True) else undeclared(todo)))
        engine.close()
    assert found[0] == found[1]


@pytest.fixture(scope="module")
def tiny_pack(tmp_path_factory):
    source = write_tiny_checkpoint(tmp_path_factory.mktemp("hf"), seed=6)
    pack(source, tmp_path_factory.mktemp("tiny") / "pack")
    return tmp_path_factory.getbasetemp() / "tiny0" / "pack"


@pytest.mark.parametrize("device_tokens", [200, 500])
@pytest.mark.parametrize("host_tokens", [0, 300])
@pytest.mark.parametrize("kv", ["bf16", "int8"])
def test_bits_do_not_depend_on_the_room_for_prefixes(tiny_pack, device_tokens, host_tokens, kv, device):
    """With little room prefixes are evicted while siblings wait, and own ranges are in host memory."""
    found = []
    for seed in range(2):
        for options in ({"share_prefixes": False, "max_batch": 1}, {"host_kv_tokens": host_tokens, "max_batch": 6}):
            workload = Workload(1, 20, 5, device_tokens)
            engine = open_engine(tiny_pack, numerics="exact", kv=kv, workload=workload, device=device, **options)
            found.append(drain(engine, tree(seed, num_chunks=4)))
            engine.close()
    assert found[0::2] == found[1::2]


def chunk_requests(num_chunks: int, num_siblings: int, first_id: int = 0) -> list[Request]:
    """Chunks of 100 tokens, of which 40 are the same in all; each sibling asks with 4 tokens, and gets 3."""
    draw = random.Random(9)
    instructions = tokens(draw, 40)
    chunks = [(*instructions, n, *tokens(draw, 59)) for n in range(num_chunks)]
    prompts = [chunk + tokens(draw, 4) for chunk in chunks for _ in range(num_siblings)]
    return [
        Request(request_id=first_id + n, prompt_ids=ids, shared_tokens=100, max_new_tokens=3)
        for n, ids in enumerate(prompts)
    ]


@pytest.mark.parametrize("max_batch", [2, 5, 64])
def test_each_text_is_computed_once_and_what_all_begin_with_once(tiny_pack, max_batch):
    engine = open_engine(tiny_pack, max_batch=max_batch, draft_tokens=0)
    engine.stop_ids = frozenset()
    waiting, prefill_tokens = chunk_requests(12, 5), 0
    while waiting or engine.num_live:
        while waiting and engine.has_room(waiting[0]):
            engine.admit(waiting.pop(0))
        prefill_tokens += engine.step().prefill_tokens
    engine.close()
    # the first chunk was admitted before anybody knew what all begin with
    assert prefill_tokens == 100 + 40 + 11 * 60 + 12 * 5 * 4


def test_the_texts_that_nobody_uses_go_first_and_oldest_first_when_room_is_needed(tiny_pack):
    kv = KvArena(Manifest.load(tiny_pack).geometry, 500, "bf16", torch.float32, CPU)
    scheduler = Scheduler(kv, context_tokens=1000, vocab_size=320, share_prefixes=True)
    requests = chunk_requests(4, 1)
    for request in requests:
        sequence = scheduler.admit(request)
        for _ in range(2):
            for part in scheduler.schedule_step(max_prefill_tokens=1000):
                part.sequence.note_cached(part.num_tokens)
        scheduler.retire({sequence.request.request_id})
    assert kv.free_tokens == 500 - 4 * 100 - 40
    scheduler.admit(Request(request_id=9, prompt_ids=(9,) * 90, max_new_tokens=11))
    assert kv.free_tokens == 500 - 3 * 100 - 40 - 100
    assert [scheduler.admit(one).prefix.num_cached for one in requests[1:]] == [100] * 3
    with pytest.raises(ValueError, match="no room now"):
        scheduler.admit(requests[0])
    scheduler.retire({9})
    again = scheduler.admit(requests[0])
    [part] = [one for one in scheduler.schedule_step(max_prefill_tokens=1000) if one.sequence is again]
    assert (again.num_cached, part.num_tokens) == (40, 64), "what all begin with is still there"


def test_a_short_text_and_one_that_is_the_whole_prompt_are_no_trouble(tiny_pack):
    engine = open_engine(tiny_pack, numerics="exact")
    prompts = [tuple(range(30)), tuple(range(30)), (1, 2, 3), (5,)]
    shared = (30, 99, 3, -4)
    requests = [
        Request(request_id=n, prompt_ids=ids, shared_tokens=count, max_new_tokens=3)
        for n, (ids, count) in enumerate(zip(prompts, shared, strict=True))
    ]
    found = drain(engine, requests)
    assert found[0] == found[1]
    assert found == drain(engine, undeclared(requests))
    engine.close()
