"""Shared prefixes, drafts, int8 keys and guesses: they move work around and change no token."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rotary_batch.commands.default_model import EMBEDDED
from rotary_batch.core import ExpertKey, Request
from rotary_batch.engine import open_engine
from rotary_batch.engine.attention.base import QuerySegment
from rotary_batch.engine.attention.exact import ExactAttention
from rotary_batch.engine.attention.gather import GatherAttention
from rotary_batch.engine.drafting import PromptLookup
from rotary_batch.engine.kvcache.arena import KvArena
from rotary_batch.engine.kvcache.prefix import MIN_TOKENS, PrefixStore
from rotary_batch.engine.offload.policy import eviction_victim, prefers_sweep
from rotary_batch.engine.offload.prediction import MIN_USEFUL, ExpertPredictor
from rotary_batch.engine.packs.pack import pack
from rotary_batch.engine.runtime.trace import Trace
from rotary_batch.engine.scheduler import Scheduler
from rotary_batch.errors import DeviceMemoryError, PromptError
from rotary_batch.model.manifest import Manifest
from rotary_batch.testing import drain, write_tiny_checkpoint

CPU = torch.device("cpu")
INSTRUCTIONS = tuple((3 * place + 1) % 250 for place in range(70))


@pytest.fixture(scope="module")
def packs(tmp_path_factory):
    """The same checkpoint in every format; widths that int4's groups divide."""
    source = write_tiny_checkpoint(
        tmp_path_factory.mktemp("hf"),
        seed=5,
        num_hidden_layers=4,
        num_local_experts=8,
        hidden_size=64,
        intermediate_size=96,
    )
    folders = {}
    for experts in ("bf16", "int8", "int4"):
        folders[experts] = tmp_path_factory.mktemp(experts)
        pack(source, folders[experts], experts=experts, dense="int8" if experts == "int4" else "bf16")
    return folders


def requests(new_tokens: int = 12) -> list[Request]:
    """Prompts that begin alike, two that do not, and one that quotes itself."""
    draw = random.Random(4)
    bodies = [tuple(draw.randrange(250) for _ in range(size)) for size in (1, 5, 40, 64, 90, 33)]
    prompts = [INSTRUCTIONS + body for body in bodies] + [(9,) * 30, bodies[2] * 3]
    return [Request(request_id=n, prompt_ids=p, max_new_tokens=new_tokens + n) for n, p in enumerate(prompts)]


def opened(folder, **options):
    return open_engine(folder, numerics="exact", **{"share_prefixes": False, "draft_tokens": 0} | options)


@pytest.fixture(scope="module")
def alone(packs, device):
    """What every request gives by itself in the plainest engine, for each format and kind of keys."""
    found = {}
    for experts, folder in packs.items():
        for kv in ("bf16", "int8"):
            found[experts, kv] = {}
            for request in requests():
                engine = opened(folder, kv=kv, device=device)
                found[experts, kv] |= drain(engine, [request])
                engine.close()
    return found


@pytest.mark.parametrize("kv", ["bf16", "int8"])
@pytest.mark.parametrize("experts", ["bf16", "int8", "int4"])
@pytest.mark.parametrize(
    "options",
    [
        {"share_prefixes": True},
        {"draft_tokens": 4},
        {"draft_tokens": 1, "share_prefixes": True, "max_batch": 3},
        {"share_prefixes": True, "prefill_span": 7},
        {"ring_slots": 2, "resident_share": 0.0},
        {"ring_slots": 5, "resident_share": 0.3, "max_batch": 1},
        {"ring_slots": 40, "resident_share": 0.0, "max_batch": 2},
        {
            "ring_slots": 9,
            "resident_share": 0.0,
            "max_batch": 1,
            "draft_tokens": 4,
            "share_prefixes": True,
            "routing": True,
        },
        {"ring_slots": 3, "resident_share": 0.0, "max_batch": 2, "prefetch": False, "tier": "ram"},
    ],
)
def test_bits_are_those_of_each_request_alone(packs, alone, device, experts, kv, options):
    engine = opened(packs[experts], kv=kv, device=device, **options)
    found = drain(engine, requests())
    totals = engine.trace.totals()
    engine.close()
    assert found == alone[experts, kv]
    assert totals["bytes_to_host"] == 0
    if options.get("max_batch") == 1:
        assert totals["speculative_revolutions"] > 0, "one sequence is served by guesses"
    if options.get("draft_tokens") == 4:
        assert 0 < totals["accepted_tokens"] <= totals["drafted_tokens"]


def test_sharing_saves_the_prefill_and_the_memory_of_the_prefix(packs):
    todo = [r for r in requests() if r.prompt_ids[:70] == INSTRUCTIONS]
    prefill, free = {}, {}
    for share in (False, True):
        engine = opened(packs["bf16"], share_prefixes=share)
        for request in todo:
            engine.admit(request)
        free[share] = engine.model.kv.free_tokens
        prefill[share] = 0
        while engine.num_live:
            prefill[share] += engine.step().prefill_tokens
        engine.close()
    # the first prompt was admitted before anybody knew that it would be shared
    assert prefill[False] - prefill[True] == (len(todo) - 2) * 70
    assert free[True] - free[False] == (len(todo) - 2) * 70


def test_keys_and_values_in_int8_are_off_by_at_most_half_a_step(packs):
    geometry = Manifest.load(packs["bf16"]).geometry
    kv = KvArena(geometry, 50, "int8", torch.float32, CPU)
    shape = (50, geometry.num_kv_heads, geometry.head_dim)
    keys, values = torch.randn(shape), torch.randn(shape) * 40
    kv.write(1, torch.arange(50), keys, values)
    for found, given_ in zip(kv.gather(1, torch.arange(50), torch.float32), (keys, values), strict=True):
        assert ((found - given_).abs() <= given_.abs().amax(-1, keepdim=True) / 254 * 1.0001).all()


@pytest.mark.parametrize("window", [None, 9])
@pytest.mark.parametrize("kv_format", ["bf16", "int8"])
def test_fast_attention_is_exact_attention_within_bf16(packs, window, kv_format):
    """Prompt spans, decode rows, drafts, rows that share a prefix and rows that do not, in one revolution."""
    import dataclasses

    geometry = dataclasses.replace(Manifest.load(packs["bf16"]).geometry, sliding_window=window)
    shared = [QuerySegment(20 + n, 1, 30 + n, 100 + 40 * n, 10, 25) for n in range(5)]
    rows = [
        QuerySegment(0, 14, 0, 60),
        QuerySegment(14, 5, 7, 80),
        QuerySegment(19, 1, 0, 95),
        *shared,
        QuerySegment(25, 3, 28, 300, 10, 25),
    ]
    generator = torch.Generator().manual_seed(1)
    queries = torch.randn(28, geometry.num_heads, geometry.head_dim, generator=generator)
    keys, values = (torch.randn(400, geometry.num_kv_heads, geometry.head_dim, generator=generator) for _ in "kv")
    found = []
    for attention, kept, dtype in (
        (ExactAttention(geometry, CPU), torch.float32, torch.float32),
        (GatherAttention(geometry, torch.bfloat16, CPU), torch.bfloat16, torch.bfloat16),
        (GatherAttention(geometry, torch.float32, CPU), torch.bfloat16, torch.float32),  # no bf16 instructions
    ):
        kv = KvArena(geometry, 400, kv_format, kept, CPU)
        kv.write(0, torch.arange(400), keys.bfloat16().to(dtype), values.bfloat16().to(dtype))
        attention.plan(rows)
        found.append(attention.attend(0, queries.bfloat16().to(dtype), kv).float())
    assert (found[0] - found[1]).abs().max() <= 0.04
    assert (found[0] - found[2]).abs().max() <= (1e-5 if kv_format == "bf16" else 0.04)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 60), st.booleans()), max_size=30))
def test_a_prefix_store_gives_everything_back(steps):
    geometry = Manifest.load(EMBEDDED).geometry
    kv = KvArena(geometry, 400, "bf16", torch.float32, CPU)
    store, users = PrefixStore(kv), []
    for family, length, leaves in steps:
        prompt = tuple(range(family * 100, family * 100 + 30)) + tuple(range(1000 + length, 1000 + 2 * length))
        prefix = store.find(prompt) or store.detect(prompt)
        if prefix is not None:
            store.acquire(prefix)
            assert MIN_TOKENS <= prefix.num_tokens < len(prompt)
            assert prompt[: prefix.num_tokens] == prefix.token_ids
            prefix.num_cached = prefix.num_tokens
            users.append(prefix)
        if leaves and users:
            store.release(users.pop(0))
    for prefix in users:
        store.release(prefix)
    for prefix in store.unused():
        store.evict(prefix)
    assert kv.free_tokens == 400


@pytest.mark.parametrize("share_prefix", [True, False])
def test_asking_for_room_evicts_nothing_and_admitting_evicts_what_it_needs(packs, share_prefix):
    kv = KvArena(Manifest.load(packs["bf16"]).geometry, 120, "bf16", torch.float32, CPU)
    scheduler = Scheduler(kv, context_tokens=1000, vocab_size=320, share_prefixes=True)
    for n in range(2):
        scheduler.admit(Request(request_id=n, prompt_ids=(*INSTRUCTIONS[:30], n), max_new_tokens=2))
    scheduler.live[1].note_cached(30)
    scheduler.retire({0, 1})
    assert kv.free_tokens == 90, "the prefix stays"
    large = Request(request_id=2, prompt_ids=(9,) * 100, max_new_tokens=5)
    assert scheduler.has_room(large)
    assert kv.free_tokens == 90
    scheduler.admit(large, share_prefix=share_prefix)
    assert kv.free_tokens == 120 - 104
    assert not scheduler.has_room(large)


def test_a_draft_is_what_followed_the_last_time():
    lookup = PromptLookup()
    assert lookup.draft([1, 2, 3, 4, 5, 1, 2, 3], 3) == (4, 5, 1)
    assert lookup.draft([1, 2, 3, 4, 5, 1, 2, 3, 9, 2, 3], 2) == (9, 2)
    assert lookup.draft([1, 2, 3, 4, 5, 1, 2, 3, 9, 2, 3, 8], 2) == ()
    assert lookup.draft([1, 2, 3, 4, 5, 1, 2, 3, 9, 2, 3, 8, 2, 3], 0) == ()
    for _ in range(40):
        lookup.draft([1, 2] * 20, 4)
    assert lookup.draft([1, 2] * 21, 4) == (), "drafts that are never right stop"


def test_what_a_layer_used_last_is_given_up_last_and_layers_keep_their_quota():
    key = ExpertKey
    loaded = [key(0, 1), key(1, 1), key(0, 2), key(1, 2)]  # least recently used first
    assert eviction_victim(loaded, {key(0, 1)}, key(2, 0)) == key(1, 1)
    assert eviction_victim(loaded, set(), key(1, 5), layer_quota=2) == key(1, 1)
    assert eviction_victim([*loaded, key(0, 3)], set(), key(2, 0), layer_quota=2) == key(0, 1)
    assert eviction_victim(loaded, set(loaded), key(1, 5), layer_quota=2) is None


def test_a_sweep_is_preferred_as_soon_as_most_experts_are_asked_for():
    assert [prefers_sweep(rows, 8, 2) for rows in (1, 4, 5, 100)] == [False, False, True, True]


def ids_of(predicted: dict[int, torch.Tensor]) -> dict[int, list[int]]:
    return {distance: experts.tolist() for distance, experts in predicted.items()}


def test_prediction_pauses_when_loads_are_for_nothing_and_two_layers_ahead_needs_recall():
    trace = Trace()
    wrong = ExpertPredictor(lambda layer, x: torch.arange(8.0).expand(1, 8), layers=range(4), top_k=2, trace=trace)
    for _ in range(200):
        predicted = ids_of(wrong.predict(0, torch.zeros(1, 4)))
        if not predicted:
            break
        wrong.record_prediction(0, predicted)
        assert wrong.keys_to_prefetch(0, predicted)
        wrong.observe([ExpertKey(1, 0), ExpertKey(1, 1)], num_unused=1, num_used=0)
    assert predicted == {}, f"loads of which none is used stay above {MIN_USEFUL}"
    right = ExpertPredictor(lambda layer, x: torch.arange(8.0).expand(1, 8), layers=range(4), top_k=2, trace=Trace())
    for _ in range(1000):
        right.observe([ExpertKey(1, 7), ExpertKey(1, 6)], num_unused=1, num_used=2)
    predicted = ids_of(right.predict(0, torch.zeros(1, 4)))
    assert predicted, "two of three loads are used"
    right.recall[2] = 0.1
    assert right.keys_to_prefetch(0, predicted) == [ExpertKey(1, 7), ExpertKey(1, 6)]


def fail_above(engine, most_rows: int) -> list[int]:
    """Let revolutions of more rows run out of memory; the row counts that failed."""
    real, failed = engine.model.decoder.forward, []

    def forward(token_ids, *rest):
        if len(token_ids) > most_rows:
            failed.append(len(token_ids))
            raise torch.OutOfMemoryError("CUDA out of memory (test)")
        return real(token_ids, *rest)

    engine.model.decoder.forward = forward
    return failed


def drain_with_retries(engine, todo) -> dict[int, tuple[tuple[int, ...], float]]:
    engine.stop_ids = frozenset()
    waiting, found, by_id = list(todo), {}, {r.request_id: r for r in todo}
    for _ in range(500):
        while waiting and engine.has_room(waiting[0]):
            engine.admit(waiting.pop(0))
        report = engine.step()
        found |= {done.request_id: (done.token_ids, done.logprob_sum) for done in report.completions}
        assert all(failure.retry for failure in report.failures)
        waiting += [by_id[failure.request_id] for failure in report.failures]
        if not waiting and not engine.num_live:
            return found
    raise AssertionError("the engine waits for something that never comes")


@pytest.mark.parametrize("share", [False, True])
def test_running_out_of_device_memory_costs_rows_and_no_token(packs, alone, device, share):
    engine = opened(packs["bf16"], share_prefixes=share, device=device)
    failed = fail_above(engine, 70)
    assert drain_with_retries(engine, requests()) == alone["bf16", "bf16"]
    assert failed[0] > 70
    assert engine.memory_plan.prefill_tokens == 64, "halved until it fitted"
    engine.close()


def test_sequences_that_are_too_many_come_back_later_and_an_orphaned_prefix_finds_a_maker(packs, alone, device):
    engine = opened(packs["bf16"], share_prefixes=True, device=device)
    engine.memory_plan = engine.memory_plan._replace(prefill_tokens=8)
    todo = [r for r in requests() if r.prompt_ids[:70] == INSTRUCTIONS]
    engine.stop_ids = frozenset()
    for request in todo:
        engine.admit(request)
    maker = next(sequence for sequence in engine.scheduler.live if sequence.makes_prefix)
    while not 0 < maker.prefix.num_cached < maker.prefix.num_tokens:
        engine.step()
    engine.scheduler.retire({maker.request.request_id})
    found = drain_with_retries(engine, [maker.request])
    expected = {r.request_id: alone["bf16", "bf16"][r.request_id] for r in todo}
    assert found == {n: expected[n] for n in found}
    assert maker.request.request_id in found
    engine.close()


def test_fewer_sequences_when_halving_the_prompts_was_not_enough(packs, alone, device):
    engine = opened(packs["bf16"], device=device)
    engine.memory_plan = engine.memory_plan._replace(prefill_tokens=64)  # the least
    failed = fail_above(engine, 66)
    assert drain_with_retries(engine, requests()) == alone["bf16", "bf16"]
    assert failed
    assert engine.memory_plan.batch < 8
    engine.close()


def test_a_sequence_that_runs_out_of_memory_alone_is_not_to_blame(packs, alone, device):
    engine = opened(packs["bf16"], device=device)
    engine.stop_ids = frozenset()
    real = engine.model.decoder.forward
    fail_above(engine, 0)
    request = requests()[0]
    engine.admit(request)
    with pytest.raises(DeviceMemoryError, match="out of memory with 1 live sequences"):
        engine.step()
    engine.model.decoder.forward = real  # others gave it back
    found = drain_with_retries(engine, [])
    assert found == {request.request_id: alone["bf16", "bf16"][request.request_id]}
    engine.close()


def test_what_was_halved_grows_again_after_calm_steps(packs, device):
    engine = opened(packs["bf16"], device=device)
    engine.stop_ids, engine._regrow_steps = frozenset(), 2
    planned, real = engine.memory_plan, engine.model.decoder.forward
    fail_above(engine, 66)
    seen = []
    engine.admit(requests()[3])
    engine.step()  # its 134 prompt tokens do not fit one step
    assert engine.memory_plan.prefill_tokens == 64
    engine.model.decoder.forward = real  # others gave the memory back
    for number in range(100, 300):
        if not engine.num_live:
            engine.admit(replace(requests()[0], request_id=number))
        engine.step()
        seen += [engine.memory_plan] if engine.memory_plan not in seen else []
        if engine.memory_plan == planned:
            break
    assert seen[-1] == planned
    assert all(after.batch <= 2 * before.batch for before, after in pairwise(seen))
    assert all(after.prefill_tokens <= 2 * before.prefill_tokens for before, after in pairwise(seen))
    engine.close()


def test_a_prompt_that_does_not_fit_leaves_nothing_behind(packs):
    """Neither in `generate`, where others were live already, nor in `logits`, which takes prefixes out of the way."""
    engine = opened(packs["bf16"], share_prefixes=True, max_batch=4)
    engine.stop_ids = frozenset()
    prompts = [[*INSTRUCTIONS, n] for n in range(3)]
    expected = engine.generate(prompts, 6)
    free = engine.model.kv.free_tokens
    with pytest.raises(PromptError, match="hold"):
        engine.generate([[5, 6, 7], [1] * 9000], 6)
    assert (engine.num_live, engine.model.kv.free_tokens) == (0, free)
    assert engine.generate(prompts, 6) == expected
    with pytest.raises(PromptError, match="hold"):
        engine.logits([1] * 9000)
    assert engine.generate(prompts, 6) == expected
    engine.close()


def test_no_new_token_is_refused(packs):
    engine = opened(packs["bf16"])
    with pytest.raises(PromptError, match="no new token"):
        engine.generate([[1, 2, 3]], 0)
    with pytest.raises(PromptError, match="no new token"):
        engine.admit(Request(request_id=1, prompt_ids=(1, 2), max_new_tokens=2, generated_ids=(3, 4)))
    assert engine.num_live == 0
    engine.close()


def test_token_ids_that_the_vocabulary_has_not_are_refused(packs):
    engine = opened(packs["bf16"])
    for prompt in ([1, 5000], [-1]):
        with pytest.raises(PromptError, match="vocabulary of 320"):
            engine.generate([prompt], 3)
    assert engine.num_live == 0
    engine.close()
