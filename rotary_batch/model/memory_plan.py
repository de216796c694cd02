"""How memory is split into KV cache, resident experts, ring slots, host memory and room for prompt tokens.

roofline.py says what a split is worth.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator

from rotary_batch.errors import UnavailableError
from rotary_batch.model.footprint import Footprint, Workload
from rotary_batch.model.rates import Rates
from rotary_batch.model.roofline import (
    SWEEP_SHARE,
    MemoryPlan,
    drafts_at_most,
    steady_prefill_rows,
    step_roofline,
    tokens_per_s,
    touched_share,
)

MIN_SLOTS = 2
SLOTS = 4  # of a ring, unless memory is short: one in use, two on their way; with 2 a third of the overlap was lost
# Small slabs want more slots: with 30 of 3 MB prompts from disk were 1.3 times as fast as with four, decode 1.0 to 1.4
# times (NOTES.md).  Small slabs are copied in batches of up to COPY_BATCH_NBYTES and COPY_BATCH_SLABS, and a ring holds
# SLOTS batches; a longer one is slow to search.
COPY_BATCH_NBYTES, COPY_BATCH_SLABS = 32 * 10**6, 16
RING_SHARE = 1 / 8  # of the room for keys and experts, at most, for slots beyond SLOTS: what they take, residents lack
PREFILL_TOKENS = 2048  # prompt tokens of a step, as a rule; from about 1,000 on they hide the disk
PREFILL_FACTORS = (2, 4)  # times as many where a batch begins faster than that and compute has room (a GPU)
MIN_PREFILL_TOKENS = 64
DRAFT_TOKENS = 4
# Below this share (1 or 2 rows of top 2 of 8) slots that keep what was used last beat a fixed set of residents: 55 and
# 35 % of hits with 3 slots for 8 experts on real routing, 33 and 38 % on random routing (benchmarks/cache_sim.md).
CACHE_SHARE = 0.5
DEFAULT_BATCH = 128
LONGEST_TOKENS = 4096  # what the longest item may need when that is not known yet
# Of the device's memory, when no cap is given.  On a CPU Python, torch and pieces between tensors need room beside it:
# at 0.75 the resident set was 1,125 to 1,228 MB under a limit of 1,363, and 690 under 786.
MEMORY_SHARE = {"cpu": 0.75, "cuda": 0.9}
HOST_MEMORY_SHARE = 0.8  # of what is free, beside a CUDA device
STAGING_SLABS = 4  # page-locked; torch rounds each up to a power of two


def copy_batch_slabs(slab_nbytes: int, num_slots: int) -> int:
    """How many slabs are copied at a time: several when they are small and a ring of `num_slots` has room for that."""
    return max(1, min(COPY_BATCH_SLABS, COPY_BATCH_NBYTES // slab_nbytes, num_slots // SLOTS))


def ring_slots(model: Footprint, room_nbytes: int, fitting: int) -> int:
    """Slots of a sweep's ring, out of so many slabs that fit: SLOTS, and for small slabs as many as batches need.

    At most as many as there are streamed slabs, and a small share of the room.
    """
    batched = SLOTS * copy_batch_slabs(model.slab_nbytes, sys.maxsize)
    affordable = min(int(room_nbytes * RING_SHARE) // model.slab_nbytes, model.num_slabs - fitting)
    return min(fitting, max(SLOTS, min(batched, affordable)))


def host_nbytes_for(device: str, host_memory: int | None, free_nbytes: int, slab_nbytes: int) -> int:
    """Host memory for slabs and keys: what was allowed, or most of what is free; a CPU's RAM is the device's."""
    if device == "cpu":
        return 0
    allowed = int(free_nbytes * HOST_MEMORY_SHARE) if host_memory is None else host_memory
    return max(0, allowed - (STAGING_SLABS << (slab_nbytes - 1).bit_length()))


def with_hosted(model: Footprint, memory_plan: MemoryPlan, host_nbytes: int) -> MemoryPlan:
    """The plan with as many streamed slabs in host memory as its KV cache leaves room for."""
    room = host_nbytes - memory_plan.host_kv_tokens * model.kv_token_nbytes
    streamed = model.num_slabs - memory_plan.num_residents
    return memory_plan._replace(num_hosted=max(0, min(streamed, room // model.slab_nbytes)))


def minimum_nbytes(model: Footprint, longest_tokens: int) -> int:
    """The least device memory that a model runs in: dense part, two slots, the longest item's keys, workspace."""
    rows_nbytes = (MIN_PREFILL_TOKENS + 1) * model.row_nbytes()
    return _fixed_nbytes(model) + rows_nbytes + MIN_SLOTS * model.slab_nbytes + longest_tokens * model.kv_token_nbytes


def _fixed_nbytes(model: Footprint) -> int:
    return model.dense_nbytes + model.scratch_nbytes() + model.library_nbytes


def plan_memory(
    model: Footprint,
    memory_nbytes: int,
    max_batch: int,
    workload: Workload,
    rates: Rates | None,
    host_nbytes: int = 0,
    least_batch: int = 1,
) -> MemoryPlan:
    """Split device memory.  Raises UnavailableError, with the minimum, when the model cannot run in it.

    Keys and values come first, up to the batch that pays; experts are pinned with what is left.  With measured rates
    every batch is tried and the one with the most tokens a second is taken; without, the batch is as large as it can be
    (X(R) = (V - R) / c * B / (W - R) rises with every byte given to keys while V < W, see NOTES.md).  `host_nbytes` of
    host memory take slabs and, where that pays more, keys, which then ride the link beside the experts; slabs may
    be left on disk for them while the link is slower.  Batches below `least_batch` are taken only when none else fits.
    """
    least = minimum_nbytes(model, workload.longest_tokens)
    if memory_nbytes < least:
        raise UnavailableError(
            f"device memory of {memory_nbytes:,} bytes: {model.name} needs {least:,} (dense part "
            f"{model.dense_nbytes:,}, {MIN_SLOTS} slots of {model.slab_nbytes:,}, KV of one sequence of "
            f"{workload.longest_tokens:,} tokens); {least - memory_nbytes:,} are missing"
        )
    prefill = _prefill_tokens(model, memory_nbytes, max_batch, workload)
    if rates is None:
        return with_hosted(model, _candidates(model, memory_nbytes, prefill, max_batch, workload)[-1], host_nbytes)
    needed = max_batch * workload.prompt_tokens / max(1.0, workload.new_tokens)
    more = [prefill * factor for factor in PREFILL_FACTORS if prefill * factor // 2 < needed]
    room = memory_nbytes // 8 // model.row_nbytes()
    fitting = [count for count in more if count <= room and _holds_longest(model, memory_nbytes, count, workload)]
    candidates: list[MemoryPlan] = []
    for tokens in (prefill, *fitting):
        plain = _candidates(model, memory_nbytes, tokens, max_batch, workload)
        left = _left(model, memory_nbytes, tokens)
        keyed = _with_host_keys(model, left, max_batch, plain[-1], workload, host_nbytes)
        candidates += [with_hosted(model, memory_plan, host_nbytes) for memory_plan in (*plain, *keyed)]
    large = [memory_plan for memory_plan in candidates if memory_plan.batch >= least_batch]
    best = max(large or candidates, key=lambda memory_plan: tokens_per_s(model, memory_plan, rates, workload))
    return replace_drafts(model, best, rates, workload)


def _prefill_tokens(model: Footprint, memory_nbytes: int, max_batch: int, workload: Workload) -> int:
    """Prompt tokens of a step: at most as many as ever wait, and only as many as leave room for the longest item."""
    waiting = math.ceil(max_batch * workload.prompt_tokens)
    prefill = max(MIN_PREFILL_TOKENS, min(PREFILL_TOKENS, waiting, memory_nbytes // 8 // model.row_nbytes()))
    return prefill if _holds_longest(model, memory_nbytes, prefill, workload) else MIN_PREFILL_TOKENS


def _holds_longest(model: Footprint, memory_nbytes: int, prefill: int, workload: Workload) -> bool:
    needed = MIN_SLOTS * model.slab_nbytes + workload.longest_tokens * model.kv_token_nbytes
    return _left(model, memory_nbytes, prefill) >= needed


def _left(model: Footprint, memory_nbytes: int, prefill: int) -> int:
    """Device memory for keys and experts."""
    return memory_nbytes - _fixed_nbytes(model) - (prefill + 1) * model.row_nbytes()


def _candidates(
    model: Footprint, memory_nbytes: int, prefill: int, max_batch: int, workload: Workload
) -> list[MemoryPlan]:
    """Budgets without keys in host memory, by batch, the largest last."""
    left = _left(model, memory_nbytes, prefill)
    kv_room = 0
    for slots in (ring_slots(model, left, left // model.slab_nbytes), SLOTS, MIN_SLOTS):
        if kv_room < workload.longest_tokens:
            kv_room = (left - slots * model.slab_nbytes) // model.kv_token_nbytes
    sequence = workload.kv_tokens * model.kv_token_nbytes + model.row_nbytes()
    fitting = max(1, min(max_batch, kv_room * model.kv_token_nbytes // sequence))
    memory_plans = [
        _with_batch(model, left - (batch - 1) * model.row_nbytes(), batch, prefill, workload, kv_room)
        for batch in _batches(fitting)
    ]
    # an item far longer than the average may leave rows of a larger batch no room for the second slot
    return [
        one
        for one in memory_plans
        if one.batch == 1 or one.num_slots >= MIN_SLOTS or one.num_slots == 0 < one.num_residents
    ]


def _batches(most: int) -> list[int]:
    sizes = {most} | {2**power for power in range(most.bit_length()) if 2**power <= most}
    return sorted(sizes | {3 * size // 2 for size in sizes if 3 * size // 2 <= most})


def _with_batch(model: Footprint, left: int, batch: int, prefill: int, workload: Workload, kv_room: int) -> MemoryPlan:
    kv_tokens = min(kv_room, max(workload.longest_tokens, batch * workload.kv_tokens))
    fitting = (left - kv_tokens * model.kv_token_nbytes) // model.slab_nbytes
    if fitting >= model.num_slabs:
        return MemoryPlan(model.num_slabs, 0, kv_tokens, 0, batch, prefill, 0, 0, workload.kv_tokens)
    few = touched_share(batch, model.geometry.num_experts, model.geometry.top_k) < CACHE_SHARE
    slots = fitting if few else ring_slots(model, left, fitting)
    return MemoryPlan(fitting - slots, slots, kv_tokens, 0, batch, prefill, 0, 0, workload.kv_tokens)


def _with_host_keys(
    model: Footprint, left: int, max_batch: int, most: MemoryPlan, workload: Workload, host_nbytes: int
) -> Iterator[MemoryPlan]:
    """Budgets with some sequences' keys in host memory: as few as a batch allows, and all but the longest item's.

    The second leaves device memory to experts.  Two windows of a layer are what host keys take of the device.
    """
    sequence = workload.kv_tokens * model.kv_token_nbytes
    windows = 2 * sequence // model.geometry.num_layers
    slots = min(SLOTS, max(MIN_SLOTS, most.num_slots)) * model.slab_nbytes
    at_least = workload.longest_tokens * model.kv_token_nbytes
    for batch in _batches(max_batch):
        few = max(0, math.ceil((batch * sequence - (left - slots)) / max(1, sequence - windows)))
        for visiting in {few, batch}:
            device_nbytes = max(at_least, (batch - visiting) * sequence)
            room = left - device_nbytes - visiting * windows - (batch - 1) * model.row_nbytes()
            if visiting == 0 or visiting > batch or visiting * sequence > host_nbytes or room < slots:
                continue
            fitting = min(model.num_slabs, room // model.slab_nbytes)
            num_slots = 0 if fitting == model.num_slabs else ring_slots(model, left, fitting)
            yield most._replace(
                num_residents=fitting - num_slots,
                num_slots=num_slots,
                kv_tokens=device_nbytes // model.kv_token_nbytes,
                host_kv_tokens=visiting * workload.kv_tokens,
                batch=batch,
            )


def replace_drafts(model: Footprint, memory_plan: MemoryPlan, rates: Rates, workload: Workload) -> MemoryPlan:
    """Draft tokens where verifying them hides behind moving."""
    drafts = drafts_at_most(DRAFT_TOKENS, memory_plan.batch, model.geometry.num_experts, model.geometry.top_k)
    is_few = touched_share(memory_plan.batch, model.geometry.num_experts, model.geometry.top_k) < SWEEP_SHARE
    prefill = 0 if is_few else steady_prefill_rows(memory_plan, workload)
    decode = memory_plan.batch * (1 + drafts)
    roofline = step_roofline(model, memory_plan, rates, decode, prefill, workload.mean_context_tokens)
    return memory_plan._replace(draft_tokens=drafts if roofline.compute_s < roofline.move_s else 0)
