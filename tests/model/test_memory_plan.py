"""The planner's arithmetic: it fits, it refuses honestly, and more of anything never costs tokens."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rotary_batch.config import parse_nbytes
from rotary_batch.errors import UnavailableError
from rotary_batch.model.footprint import Footprint, Workload, dense_nbytes
from rotary_batch.model.memory_plan import (
    COPY_BATCH_NBYTES,
    RING_SHARE,
    SLOTS,
    copy_batch_slabs,
    host_nbytes_for,
    minimum_nbytes,
    ring_slots,
)
from rotary_batch.model.memory_planner import DRAFT_TOKENS, PREFILL_TOKENS, plan_memory
from rotary_batch.model.rates import Rates, cached_rates, rates_path
from rotary_batch.model.roofline import drain_s, max_draft_tokens, step_roofline, tokens_per_s
from rotary_batch.model.shapes import SHAPES
from rotary_batch.model.slabs import uniform_layout

# A card of 165 TFLOP/s at 60 % behind a link of 25 GB/s: an RTX 4090 on PCIe 4.
FLOPS, MEMORY = 165e12 * 0.6, 1008e9


def rates(move: float = 25e9, disk: float | None = None) -> Rates:
    """A disk as fast as the link makes it the same where experts lie."""
    rows = [1, 16, 64, 256, 1024, 4096]
    table = [(count, max(2 / MEMORY, 2 * count / FLOPS)) for count in rows]
    return Rates(
        machine="arithmetic",
        device="cuda",
        device_memory_nbytes=24 * 10**9,
        activation_nbytes=2,
        move_nbytes_per_s=move,
        disk_nbytes_per_s=disk or move,
        memory_nbytes_per_s=MEMORY,
        attention_nbytes_per_s=dict.fromkeys(("bf16", "int8"), MEMORY * 0.8),
        weight_s=dict.fromkeys(("bf16", "int8", "int4"), table),
        measured_at=1e9,
        probed_at=1e9,
    )


def model(name: str = "mixtral-8x7b", experts: str = "int4", kv_nbytes: int = 1) -> Footprint:
    geometry = SHAPES[name]
    return Footprint(
        name=name,
        geometry=geometry,
        experts=experts,
        dense="bf16",
        expert_shares={experts: 1.0},
        dense_shares={"bf16": 1.0},
        head_format="bf16",
        has_packed_dense=False,
        slab_nbytes=uniform_layout(geometry, experts).nbytes,
        num_slabs=geometry.num_layers * geometry.num_experts,
        experts_nbytes=uniform_layout(geometry, experts).nbytes * geometry.num_layers * geometry.num_experts,
        dense_nbytes=dense_nbytes(geometry, lambda _name: "bf16", 2),
        kv="int8" if kv_nbytes == 1 else "bf16",
        kv_token_nbytes=geometry.kv_token_params * kv_nbytes,
        state_nbytes=geometry.state_nbytes,
        number_nbytes=2,
        activation_nbytes=2,
        library_nbytes=0,
    )


JOB = Workload(4000, 1100, 200, 2000)


def used(m: Footprint, memory: int, **limits) -> int:
    host = limits.get("host", 0)
    memory_plan = plan_memory(m, memory, limits.get("batch", 512), limits.get("work", JOB), limits.get("rates"), host)
    assert memory_plan.host_kv_tokens * m.kv_token_nbytes + memory_plan.num_host_slabs * m.slab_nbytes <= host
    assert 0 <= memory_plan.num_host_slabs <= m.num_slabs - memory_plan.num_residents
    slots = (memory_plan.num_residents + memory_plan.num_slots) * m.slab_nbytes
    workspace = memory_plan.prefill_tokens * m.row_nbytes() + m.scratch_nbytes()
    windows = 2 * memory_plan.host_kv_tokens * m.kv_token_nbytes // len(m.geometry.kv_layers)
    states = memory_plan.num_states * m.state_nbytes
    return m.dense_nbytes + slots + memory_plan.kv_tokens * m.kv_token_nbytes + windows + states + workspace


def test_byte_counts_are_those_of_the_papers():
    """By hand from the published shapes: one expert 352.3 / 93.6 MB, resident part 2.95 GB and the embeddings."""
    assert uniform_layout(SHAPES["mixtral-8x7b"], "bf16").nbytes == 352_321_536
    assert uniform_layout(SHAPES["mixtral-8x7b"], "int4").nbytes / 93.6e6 == pytest.approx(1, abs=0.001)
    assert uniform_layout(SHAPES["mixtral-8x22b"], "int4").nbytes / 160.4e6 == pytest.approx(1, abs=0.001)
    assert dense_nbytes(SHAPES["mixtral-8x7b"], lambda _name: "bf16", 2) == pytest.approx(2.95e9 + 0.262e9, rel=0.01)
    assert SHAPES["mixtral-8x7b"].kv_token_params == 65_536


def test_a_sweep_of_8x7b_in_int4_takes_a_second_over_pcie_4():
    memory_plan = plan_memory(model(), 24 * 10**9, 512, JOB, None)
    roofline = step_roofline(model(), memory_plan._replace(num_residents=0), rates(), memory_plan.batch, 0, 1200)
    assert roofline.move_s == pytest.approx(0.96, abs=0.01)
    assert roofline.binding == "moving experts"


def test_halving_the_bytes_of_experts_and_of_keys_helps_as_the_product():
    """X = (V / c) * B / W: from bf16 experts and keys to int4 and int8, nearly 8 times."""
    slow = model(experts="bf16", kv_nbytes=2)
    fast = model(experts="int4", kv_nbytes=1)
    gain = [tokens_per_s(m, plan_memory(m, 24 * 10**9, 4096, JOB, rates()), rates(), JOB) for m in (slow, fast)]
    assert 4 < gain[1] / gain[0] < 9


@settings(max_examples=60, deadline=None)
@given(st.floats(4, 200), st.integers(1, 600), st.sampled_from(list(SHAPES)), st.sampled_from(["bf16", "int8", "int4"]))
def test_a_budget_fits_or_says_what_is_missing(gigabytes, batch, name, experts):
    m, memory = model(name, experts), int(gigabytes * 1e9)
    least = minimum_nbytes(m, JOB.longest_tokens)
    for known, host in ((None, 0), (rates(), 0), (rates(), 64 * 10**9)):
        if memory >= least:
            assert used(m, memory, batch=batch, rates=known, host=host) <= memory
        else:
            with pytest.raises(UnavailableError, match=r"try --device-memory \S+$") as error:
                plan_memory(m, memory, batch, JOB, known)
            advised = parse_nbytes(str(error.value).split("try --device-memory ")[1])
            assert least <= advised < 1.1 * least
            assert used(m, advised, batch=batch, rates=known, host=host) <= advised


def test_states_are_planned_for_each_sequence_and_some_prefixes_and_there_are_no_drafts():
    m = model("qwen3.6-35b-a3b")
    assert m.state_nbytes == 30 * 4 * (32 * 128 * 128 + 3 * 8192)
    assert m.kv_token_nbytes == 10 * 2 * 2 * 256
    most = plan_memory(m, 24 * 10**9, 512, JOB, None)
    assert 64 < most.batch < 512, "states take most of what a sequence takes"
    assert most.num_states == most.batch + 4
    plan = plan_memory(m, 24 * 10**9, 2, JOB, rates(), 64 * 10**9)
    assert (plan.num_states, plan.draft_tokens) == (2 * plan.batch, 0)
    assert plan_memory(model("qwen3-30b-a3b"), 24 * 10**9, 2, JOB, rates()).num_states == 0


def test_the_minimum_is_enough():
    for name in SHAPES:
        m = model(name)
        least = minimum_nbytes(m, JOB.longest_tokens)
        memory_plan = plan_memory(m, least, 512, JOB, rates())
        assert memory_plan.num_slots == 2
        with pytest.raises(UnavailableError, match=r"needs .* try --device-memory \S+$"):
            plan_memory(m, least - 1, 512, JOB, rates())


@pytest.mark.parametrize("memory", [8, 12, 16, 24])
def test_more_memory_or_a_faster_link_never_costs_tokens(memory):
    speeds = [
        tokens_per_s(model(), plan_memory(model(), size, 512, JOB, r), r, JOB)
        for size, r in ((memory * 10**9, rates()), (2 * memory * 10**9, rates()))
    ]
    assert speeds[1] >= speeds[0]
    quick = rates(50e9)
    assert tokens_per_s(model(), plan_memory(model(), memory * 10**9, 512, JOB, quick), quick, JOB) >= speeds[0]


def speed(m: Footprint, memory: int, host: int) -> float:
    return tokens_per_s(m, plan_memory(m, memory, 4096, JOB, rates(), host), rates(), JOB)


@pytest.mark.parametrize("memory", [8, 16, 24])
@pytest.mark.parametrize("experts", ["bf16", "int4"])
def test_host_memory_for_keys_never_costs_tokens(memory, experts):
    m = model(experts=experts)
    speeds = [speed(m, memory * 10**9, host * 10**9) for host in (0, 8, 32, 128)]
    assert speeds == sorted(speeds)


def test_keys_in_host_memory_pay_where_experts_are_large_or_the_card_is_small():
    """A few per cent for int4 experts on a 24 GB card, half as much again for bf16, which link and prompts then share."""
    gain = {
        (experts, memory): speed(model(experts=experts), memory * 10**9, 64 * 10**9)
        / speed(model(experts=experts), memory * 10**9, 0)
        for experts, memory in (("int4", 24), ("bf16", 24))
    }
    assert 1.0 <= gain["int4", 24] < 1.4
    assert gain["bf16", 24] > 1.4
    assert plan_memory(model("small"), 24 * 10**9, 64, JOB, rates(), 64 * 10**9).host_kv_tokens == 0, "it all fits"


@pytest.mark.parametrize("name", ["mixtral-8x7b", "mixtral-8x22b"])
@pytest.mark.parametrize("memory", [12, 24])
def test_host_memory_never_costs_tokens_beside_a_disk_slower_than_the_link(name, memory):
    m, slow = model(name), rates(disk=3e9)
    plans = [plan_memory(m, memory * 10**9, 512, JOB, slow, host * 10**9) for host in (0, 8, 32, 64, 128)]
    speeds = [tokens_per_s(m, plan, slow, JOB) for plan in plans]
    assert speeds == sorted(speeds)
    assert plans[0].num_host_slabs == 0
    assert speeds[-1] > 4 * speeds[0], "128 GB hold nearly all of it, and the link is 8 times as fast"


def test_experts_beyond_host_memory_come_from_disk_and_the_bound_says_so():
    """8x22B in int4 has 72 GB of experts: half of them in 36 GB leave the other half to the disk."""
    m, few = model("mixtral-8x22b"), rates(disk=5e9)
    host = m.num_slabs // 2 * m.slab_nbytes
    memory_plan = plan_memory(m, 16 * 10**9, 128, JOB, few, host)
    left = m.num_slabs - memory_plan.num_residents - memory_plan.num_host_slabs
    assert (
        memory_plan.num_host_slabs * m.slab_nbytes + memory_plan.host_kv_tokens * m.kv_token_nbytes
        > host - m.slab_nbytes
    )
    assert memory_plan.disk_nbytes(m) == left * m.slab_nbytes > 0
    roofline = step_roofline(m, memory_plan, few, memory_plan.batch, 0, 100)
    assert roofline.move_s == pytest.approx(left * m.slab_nbytes / 5e9)
    assert roofline.binding == "reading the disk"
    assert step_roofline(m, memory_plan, rates(disk=100e9), memory_plan.batch, 0, 100).binding == "moving experts"


def test_drafts_are_used_where_computing_them_hides_behind_moving():
    moving = plan_memory(model(), 12 * 10**9, 64, JOB, rates())
    assert moving.draft_tokens == DRAFT_TOKENS
    resident = plan_memory(model("small"), 24 * 10**9, 64, JOB, rates())
    assert (resident.num_slots, resident.draft_tokens) == (0, 0)


def test_twice_the_work_takes_about_twice_as_long():
    memory_plan = plan_memory(model(), 24 * 10**9, 512, JOB, rates())
    once, twice = (drain_s(model(), memory_plan, rates(), JOB._replace(num_items=n)) for n in (4000, 8000))
    assert 1.8 < twice / once <= 2.0


def test_rates_survive_a_file_and_a_foreign_file_is_no_rates(tmp_path):
    import json

    path = rates_path("cuda", tmp_path)
    path.write_text(json.dumps(rates().as_dict()))
    assert cached_rates("cuda", tmp_path) == Rates.from_dict(rates().as_dict())
    path.write_text("{}")
    assert cached_rates("cuda", tmp_path) is None
    assert cached_rates("cpu", tmp_path) is None


def test_between_two_measurements_the_cost_is_a_straight_line():
    r = rates()
    assert r.weights_s("bf16", 1) == r.weights_s("bf16", 0.5) == 2 / MEMORY
    low, high = r.weights_s("bf16", 1024), r.weights_s("bf16", 4096)
    assert r.weights_s("bf16", 2560) == pytest.approx((low + high) / 2)
    assert r.weights_s("bf16", 8192) == pytest.approx(2 * high)


def test_no_memory_is_set_aside_for_more_prompt_tokens_than_can_be_live():
    """One sequence of 64 tokens needs no room for 2,048 rows; what that leaves holds experts."""
    few, many = (plan_memory(model(), 24 * 10**9, batch, Workload(batch, 64, 32, 96), rates()) for batch in (1, 64))
    assert (few.prefill_tokens, many.prefill_tokens) == (64, PREFILL_TOKENS)
    rows = PREFILL_TOKENS - 64
    held = [memory_plan.num_residents + memory_plan.num_slots for memory_plan in (few, many)]
    assert held[0] - held[1] >= rows * model().row_nbytes() // model().slab_nbytes


def test_one_sequence_gets_slots_that_keep_what_was_used_last_and_many_get_residents():
    one, many = (plan_memory(model(), 24 * 10**9, batch, JOB, rates()) for batch in (1, 64))
    assert (one.num_residents, one.num_slots > 100) == (0, True)
    assert (many.num_residents > 100, many.num_slots) == (True, SLOTS)


def test_one_sequence_gets_slots_also_where_host_memory_could_take_its_kv_cache():
    """On an H200 such plans had residents: 9.6 tokens/s under 12 GB, where slots had given 13.6."""
    short = Workload(1, 64, 64, 128)
    for memory_gb in (12, 24):
        plan = plan_memory(model(kv_nbytes=2), memory_gb * 10**9, 1, short, rates(55e9), 64 * 10**9)
        assert (plan.num_residents, plan.num_slots > 70) == (0, True)


def test_a_batch_that_is_asked_for_is_kept_room_for_though_a_smaller_one_pays_more():
    """bench --sequences 128 once said that 96 fit, where 128 did and 96 were a little faster by the rates."""
    steep = rates()
    steep.weight_s["int4"] = [(1, 1e-10), (96, 1.01e-10), (128, 1e-8)]
    work = Workload(128, 64, 16, 80)
    chosen = plan_memory(model(), 24 * 10**9, 128, work, steep)
    asked = plan_memory(model(), 24 * 10**9, 128, work, steep, least_batch=128)
    assert (chosen.batch < 128, asked.batch) == (True, 128)
    assert plan_memory(model(), 24 * 10**9, 128, work, steep, least_batch=10**6) == chosen


def test_few_rows_move_what_they_ask_for_and_many_move_everything():
    memory_plan = plan_memory(model(), 24 * 10**9, 64, JOB, None)
    everything = memory_plan.streamed_nbytes(model()) / 25e9
    moved = [step_roofline(model(), memory_plan, rates(), rows, 0, 100).move_s / everything for rows in (1, 2, 5, 64)]
    missing = 1 - memory_plan.num_slots * model().slab_nbytes / memory_plan.streamed_nbytes(model())  # from the slots
    assert moved == pytest.approx([2 / 8 * missing, (1 - (6 / 8) ** 2) * missing, 1, 1])


def test_drafts_never_make_a_sweep_of_few_rows():
    drafts = [max_draft_tokens(4, rows, 8, 2) for rows in (1, 2, 3, 4, 5, 64)]
    assert drafts == [3, 1, 0, 0, 4, 4], "four rows ask for 68 % of the experts, five for 76 %: a sweep"
    one = plan_memory(model(), 24 * 10**9, 1, JOB, rates())
    assert one.draft_tokens <= 3


def test_one_sequence_pays_for_its_prompt_once_and_not_with_every_token():
    """5 or 6 prompt tokens a revolution, as many sequences share them, would be a sweep each."""
    one = plan_memory(model(), 12 * 10**9, 1, JOB, rates())
    token_s = step_roofline(model(), one, rates(), 1, 0, JOB.mean_context_tokens).step_s
    prompt_s = step_roofline(model(), one, rates(), 0, one.prefill_tokens, 0).step_s
    spans = math.ceil(JOB.prompt_tokens / one.prefill_tokens)
    assert 1 / tokens_per_s(model(), one, rates(), JOB) == pytest.approx(token_s + spans * prompt_s / JOB.new_tokens)


@given(st.floats(1.0, 1.2), st.integers(1, 64))
def test_spans_never_take_the_room_of_the_longest_item(factor, batch):
    work = Workload(100, 3000, 20, 3020)
    memory_plan = plan_memory(model(), int(minimum_nbytes(model(), 3020) * factor), batch, work, rates())
    assert memory_plan.kv_tokens >= 3020


def test_prompts_ride_in_larger_spans_only_where_a_batch_begins_faster_than_2048_tokens_a_revolution():
    steady = plan_memory(model(), 60 * 10**9, 512, Workload(4000, 300, 100, 600), rates())
    flooded = plan_memory(model(), 60 * 10**9, 512, Workload(4000, 3000, 60, 3200), rates())
    assert steady.prefill_tokens == PREFILL_TOKENS < flooded.prefill_tokens


def fine() -> Footprint:
    """Many small experts, each of 2.5 MB."""
    geometry = replace(
        SHAPES["mixtral-8x7b"], hidden_size=2048, intermediate_size=768, num_layers=48, num_experts=128, top_k=8
    )
    return replace(
        model(),
        geometry=geometry,
        slab_nbytes=uniform_layout(geometry, "int4").nbytes,
        num_slabs=48 * 128,
        experts_nbytes=uniform_layout(geometry, "int4").nbytes * 48 * 128,
        dense_nbytes=dense_nbytes(geometry, lambda _name: "bf16", 2),
        kv_token_nbytes=geometry.kv_token_params,
    )


def test_small_slabs_move_in_batches_through_a_longer_ring():
    m = fine()
    for memory in (6 * 10**9, 12 * 10**9):
        memory_plan = plan_memory(m, memory, 512, JOB, rates())
        batch = copy_batch_slabs(m.slab_nbytes, memory_plan.num_slots)
        assert (batch, memory_plan.num_slots) == (12, 48)
        assert COPY_BATCH_NBYTES * 0.9 < batch * m.slab_nbytes <= COPY_BATCH_NBYTES
        assert used(m, memory, rates=rates()) <= memory


@given(st.integers(0, 20 * 10**9))
def test_a_longer_ring_is_a_small_share_of_the_room_and_not_longer_than_what_revolves(room):
    m = fine()
    fitting = min(m.num_slabs, room // m.slab_nbytes)
    slots = ring_slots(m, room, fitting)
    assert slots <= fitting
    if slots > SLOTS:
        assert slots * m.slab_nbytes <= room * RING_SHARE
        assert slots <= m.num_slabs - fitting
    assert fitting - slots <= fitting + 1 - ring_slots(m, room + m.slab_nbytes, fitting + 1), "residents never fewer"


def test_experts_of_mixtral_are_large_enough_to_move_alone():
    for name in ("mixtral-8x7b", "mixtral-8x22b"):
        for experts in ("bf16", "int8", "int4"):
            m = model(name, experts)
            assert copy_batch_slabs(m.slab_nbytes, 1000) == 1
            assert ring_slots(m, 10**12, 100) == SLOTS


def test_a_larger_limit_on_live_sequences_changes_no_bound_of_so_many():
    m, known = model("mixtral-8x22b", kv_nbytes=2), rates()
    for gigabytes, host in ((16, 64), (24, 128)):
        memory_plan = plan_memory(m, gigabytes * 10**9, 4096, JOB, known, host * 10**9)
        assert memory_plan.host_kv_tokens > 0
        rooflines = [
            step_roofline(m, one, known, memory_plan.batch, 0, 1200)
            for one in (memory_plan, memory_plan._replace(batch=4096))
        ]
        assert rooflines[0] == rooflines[1]


@settings(max_examples=200, deadline=None)
@given(
    st.integers(0, 4_000_000),
    st.integers(2, 600),
    st.floats(20, 900),
    st.floats(1, 300),
    st.integers(1300, 9000),
    st.sampled_from(["small", "medium", "mixtral-8x7b"]),
    st.booleans(),
)
def test_what_revolves_has_two_slots_however_long_the_longest_item_is(spare, batch, prompt, new, longest, name, known):
    m, work = model(name), Workload(4000, prompt, new, longest)
    memory = minimum_nbytes(m, longest) + spare
    memory_plan = plan_memory(m, memory, batch, work, rates() if known else None)
    assert memory_plan.num_slots >= 2 or memory_plan.num_residents == m.num_slabs
    assert used(m, memory, batch=batch, work=work, rates=rates() if known else None) <= memory


def test_the_head_is_unpacked_as_a_whole_in_exact_numerics():
    plain = model("small", "bf16")
    small = replace(plain, dense="int8", has_packed_dense=True, number_nbytes=4)
    assert small.scratch_nbytes() == 4 * max(32000 * 1024, 2 * 3584 * 1024)
    assert replace(plain, number_nbytes=4).scratch_nbytes() == 4 * 2 * 3584 * 1024
    assert plain.scratch_nbytes() == 0


def test_temporaries_of_formats_of_files_have_room():
    plain = model("small", "bf16")
    assert replace(plain, unpacking_nbytes=10**6).scratch_nbytes() == 10**6
    assert minimum_nbytes(replace(plain, unpacking_nbytes=10**6), 100) == minimum_nbytes(plain, 100) + 10**6


@given(
    st.lists(st.integers(1, 50), min_size=1, max_size=6), st.integers(1, 5), st.integers(-10, 2000), st.integers(0, 99)
)
def test_slabs_that_stay_in_one_place_take_their_own_bytes(sizes, experts, nbytes, first):
    """Layer by layer they differ: as many as fit, wherever the first of them is; all of them where all fit."""
    geometry = replace(SHAPES["small"], num_experts=experts, top_k=1)
    m = replace(model("small"), geometry=geometry, slab_nbytes=max(sizes))
    m = replace(m, num_slabs=experts * len(sizes), experts_nbytes=experts * sum(sizes))
    order = (sizes * experts)[first % len(sizes) :] + sizes
    count = m.slabs_within(nbytes)
    assert 0 <= count <= m.num_slabs
    assert sum(order[:count]) <= max(0, nbytes)
    assert (count == m.num_slabs) == (nbytes >= m.experts_nbytes)
    if len(set(sizes)) == 1:
        assert count == min(m.num_slabs, max(0, nbytes) // sizes[0])


def test_host_memory_is_never_more_than_is_free():
    """An H200 machine with 90 GB free killed a run that was allowed 100 GB."""
    slab, staging = 90 * 10**6, 4 * 2**27
    answers = [host_nbytes_for("cuda", allowed, 10**11, slab) + staging for allowed in (None, 48 * 10**9, 120 * 10**9)]
    assert answers == [80 * 10**9, 48 * 10**9, 95 * 10**9]
    assert host_nbytes_for("cpu", 48 * 10**9, 10**11, slab) == 0


SIBLINGS = Workload(4000, 1306, 40, 2000, shared_tokens=1300, siblings=8)


def test_what_siblings_share_is_counted_once_for_all_of_them():
    assert (SIBLINGS.prefill_tokens, SIBLINGS.kv_tokens, SIBLINGS.own_kv_tokens) == (168.5, 208, 45)
    alone = SIBLINGS._replace(siblings=1.0)
    assert (alone.prefill_tokens, alone.kv_tokens, alone.own_kv_tokens) == (1306, 1345, 1345)
    m = model("mixtral-8x7b")
    plans = [plan_memory(m, 24 * 10**9, 512, work, rates()) for work in (alone, SIBLINGS)]
    assert plans[1].batch > plans[0].batch
    speeds = [tokens_per_s(m, plan, rates(), work) for plan, work in zip(plans, (alone, SIBLINGS), strict=True)]
    assert speeds[1] > 3 * speeds[0]


@pytest.mark.parametrize("name", ["mixtral-8x7b", "qwen3.6-35b-a3b"])
@settings(max_examples=40, deadline=None)
@given(st.integers(8, 60), st.integers(1, 600), st.floats(1, 40), st.floats(0, 1300), st.sampled_from([0, 64]))
def test_a_plan_for_siblings_fits_and_holds_their_batch(name, gigabytes, batch, siblings, shared, host):
    m, work = model(name), SIBLINGS._replace(shared_tokens=shared, siblings=siblings)
    memory = gigabytes * 10**9
    if memory < minimum_nbytes(m, work.longest_tokens):
        return
    for known in (None, rates()):
        assert used(m, memory, batch=batch, work=work, rates=known, host=host * 10**9) <= memory
        plan = plan_memory(m, memory, batch, work, known, host * 10**9)
        own = plan.batch * work.own_kv_tokens
        shared_tokens = (work.kv_tokens - work.own_kv_tokens) * plan.batch
        if plan.batch > 1:
            assert plan.kv_tokens >= shared_tokens, "what is shared is on the device"
            assert plan.kv_tokens + plan.host_kv_tokens >= own + shared_tokens
