"""Choose a memory plan: every batch that fits is a candidate, and the fastest by the roofline wins."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rotary_batch.errors import UnavailableError
from rotary_batch.model.footprint import Footprint, Workload
from rotary_batch.model.memory_plan import (
    MIN_PREFILL_TOKENS,
    MIN_SLOTS,
    SLOTS,
    MemoryPlan,
    fixed_nbytes,
    minimum_nbytes,
    ring_slots,
    with_host_slabs,
)
from rotary_batch.model.rates import Rates
from rotary_batch.model.roofline import (
    SWEEP_SHARE,
    activated_share,
    max_draft_tokens,
    steady_prefill_rows,
    step_roofline,
    tokens_per_s,
)
from rotary_batch.sizes import enough_size, size_text

PREFILL_TOKENS = 2048  # prompt tokens of a step, as a rule; from about 1,000 on they hide the disk
PREFILL_FACTORS = (2, 4)  # times as many where a batch begins faster than that and compute has room (a GPU)
DRAFT_TOKENS = 4
# Below this share (1 or 2 rows of top 2 of 8) slots that keep what was used last beat a fixed set of residents: 55 and
# 35 % of hits with 3 slots for 8 experts on real routing, 33 and 38 % on random routing (benchmarks/cache_sim.md).
CACHE_SHARE = 0.5


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

    KV cache comes first, up to the batch that pays; experts are resident in what is left.  With measured rates every
    batch is tried and the one with the most tokens per second is taken; without, the batch is as large as possible
    (X(R) = (V - R) / c * B / (W - R) rises with every byte given to KV cache while V < W, see docs/lab-notes).
    `host_nbytes` of host memory take slabs and, where that is faster, KV cache, which then crosses the link like the
    experts; it may leave slabs on disk while the link is slower.  Batches below `least_batch` are taken only when no
    other fits.
    """
    require_memory(model, memory_nbytes, workload.longest_tokens)
    search = _Search(model, memory_nbytes, max_batch, workload, host_nbytes)
    if rates is None:
        return with_host_slabs(model, search.device_plans(search.prefill_tokens())[-1], host_nbytes)
    candidates = list(search.candidates())
    large = [plan for plan in candidates if plan.batch >= least_batch]
    fastest = max(large or candidates, key=lambda plan: tokens_per_s(model, plan, rates, workload))
    return with_draft_tokens(model, fastest, rates, workload)


def require_memory(model: Footprint, memory_nbytes: int, longest_tokens: int) -> None:
    """Raise UnavailableError, with what to write, unless the longest sequence can be computed in this much memory."""
    least = minimum_nbytes(model, longest_tokens)
    if memory_nbytes < least:
        parts = (
            f"dense part {size_text(model.dense_nbytes)}, {MIN_SLOTS} slots of {size_text(model.slab_nbytes)}, "
            f"KV cache of {longest_tokens:,} tokens"
        )
        raise UnavailableError(
            f"{model.name} needs {size_text(least)} of device memory ({parts}), but only "
            f"{size_text(memory_nbytes)} is allowed; try --device-memory {enough_size(least)}"
        )


@dataclass(frozen=True, slots=True)
class _Search:
    """The plans that fit into a device and its host."""

    model: Footprint
    memory_nbytes: int
    max_batch: int
    workload: Workload
    host_nbytes: int

    def prefill_tokens(self) -> int:
        """Prompt tokens of a step: as many as wait at most, and only as many as leave room for the longest item."""
        waiting = math.ceil(self.max_batch * self.workload.prefill_tokens)
        prefill_tokens = max(MIN_PREFILL_TOKENS, min(PREFILL_TOKENS, waiting, self._max_rows()))
        return prefill_tokens if self._holds_longest(prefill_tokens) else MIN_PREFILL_TOKENS

    def candidates(self) -> Iterator[MemoryPlan]:
        """Every plan, with the slabs that host memory has room for."""
        for prefill_tokens in self._prefill_choices():
            device_plans = self.device_plans(prefill_tokens)
            for plan in (*device_plans, *self._host_kv_plans(prefill_tokens, device_plans[-1])):
                yield with_host_slabs(self.model, plan, self.host_nbytes)

    def device_plans(self, prefill_tokens: int) -> list[MemoryPlan]:
        """Plans without KV cache in host memory, by batch, the largest last."""
        max_kv_tokens = self._max_kv_tokens(prefill_tokens)
        siblings = self.workload.siblings
        num_states = 1 + (1 / siblings if siblings > 1 else 0)
        own_nbytes = self.model.row_nbytes() + math.ceil(num_states * self.model.state_nbytes)
        sequence_nbytes = self.workload.kv_tokens * self.model.kv_token_nbytes + own_nbytes
        max_batch = max(1, min(self.max_batch, max_kv_tokens * self.model.kv_token_nbytes // sequence_nbytes))
        plans = [self._device_plan(batch, prefill_tokens, max_kv_tokens) for batch in _batches(max_batch)]
        # An item far longer than the average may leave no room for the second slot next to the rows of a larger batch.
        return [plan for plan in plans if plan.batch == 1 or _has_enough_slots(plan)]

    def _prefill_choices(self) -> Iterable[int]:
        """Prompt tokens of a step to try: more of them where prompts would otherwise wait, and rows have room."""
        least, workload = self.prefill_tokens(), self.workload
        wanted = self.max_batch * workload.prefill_tokens / max(1.0, workload.new_tokens)
        larger = [least * factor for factor in PREFILL_FACTORS if least * factor // 2 < wanted]
        return [least, *(count for count in larger if count <= self._max_rows() and self._holds_longest(count))]

    def _max_rows(self) -> int:
        """Rows whose activations take an eighth of the memory."""
        return self.memory_nbytes // 8 // self.model.row_nbytes()

    def _room_nbytes(self, prefill_tokens: int) -> int:
        """Device memory for KV cache and experts, with a batch of one sequence."""
        rows_nbytes = prefill_tokens * self.model.row_nbytes() + self._batch_nbytes(1)
        return self.memory_nbytes - fixed_nbytes(self.model) - rows_nbytes

    def _more_nbytes(self, batch: int) -> int:
        """What a batch takes besides KV cache, beyond what one sequence takes."""
        return self._batch_nbytes(batch) - self._batch_nbytes(1)

    def _batch_nbytes(self, batch: int) -> int:
        return self.model.batch_nbytes(batch, self.workload.siblings)

    def _holds_longest(self, prefill_tokens: int) -> bool:
        kv_nbytes = self.workload.longest_tokens * self.model.kv_token_nbytes
        return self._room_nbytes(prefill_tokens) >= MIN_SLOTS * self.model.slab_nbytes + kv_nbytes

    def _max_kv_tokens(self, prefill_tokens: int) -> int:
        """KV cache beside a ring, which is shortened until the longest item has room."""
        model, room = self.model, self._room_nbytes(prefill_tokens)
        kv_tokens = 0
        for slots in (ring_slots(model, room, room // model.slab_nbytes), SLOTS, MIN_SLOTS):
            if kv_tokens < self.workload.longest_tokens:
                kv_tokens = (room - slots * model.slab_nbytes) // model.kv_token_nbytes
        return kv_tokens

    def _device_plan(self, batch: int, prefill_tokens: int, max_kv_tokens: int) -> MemoryPlan:
        model, workload = self.model, self.workload
        room = self._room_nbytes(prefill_tokens) - self._more_nbytes(batch)
        kv_tokens = min(max_kv_tokens, max(workload.longest_tokens, batch * workload.kv_tokens))
        num_residents, num_slots = self._slabs(batch, room, room - kv_tokens * model.kv_token_nbytes)
        return MemoryPlan(
            num_residents=num_residents,
            num_slots=num_slots,
            kv_tokens=kv_tokens,
            host_kv_tokens=0,
            batch=batch,
            prefill_tokens=prefill_tokens,
            draft_tokens=0,
            num_host_slabs=0,
            sequence_kv_tokens=workload.kv_tokens,
            num_states=model.num_states(batch, workload.siblings),
        )

    def _slabs(self, batch: int, room_nbytes: int, nbytes: int) -> tuple[int, int]:
        """Residents, each of its own size, and slots of the largest, in `nbytes` of the room.

        Few rows have no residents, but slots that keep what was used last.
        """
        model, geometry = self.model, self.model.geometry
        if model.residents_within(nbytes) == model.num_slabs:
            return model.num_slabs, 0
        fitting = min(model.num_slabs, nbytes // model.slab_nbytes)
        if activated_share(batch, geometry.num_experts, geometry.top_k) < CACHE_SHARE:
            return 0, fitting
        num_slots = ring_slots(model, room_nbytes, fitting)
        residents = model.residents_within(nbytes - num_slots * model.slab_nbytes)
        return min(residents, model.num_slabs - num_slots), num_slots

    def _host_kv_plans(self, prefill_tokens: int, largest: MemoryPlan) -> Iterator[MemoryPlan]:
        """Plans with the KV cache of some sequences in host memory; `largest` is the largest without.

        Of each batch there are two: with as few such sequences as possible, and with all of them, which leaves device
        memory to experts.
        """
        model, room = self.model, self._room_nbytes(prefill_tokens)
        sequence_nbytes = self.workload.kv_tokens * model.kv_token_nbytes
        own_nbytes = self.workload.own_kv_tokens * model.kv_token_nbytes  # what it shares stays on the device
        window_nbytes = _window_nbytes(model, own_nbytes)
        slots_nbytes = min(SLOTS, max(MIN_SLOTS, largest.num_slots)) * model.slab_nbytes
        for batch in _batches(self.max_batch):
            excess_nbytes = batch * sequence_nbytes - (room - slots_nbytes)
            fewest = max(0, math.ceil(excess_nbytes / max(1, own_nbytes - window_nbytes)))
            for num_in_host in {fewest, batch}:
                if 0 < num_in_host <= batch and num_in_host * own_nbytes <= self.host_nbytes:
                    yield from self._host_kv_plan(largest._replace(batch=batch), num_in_host, room, slots_nbytes)

    def _host_kv_plan(
        self, plan: MemoryPlan, num_in_host: int, room_nbytes: int, slots_nbytes: int
    ) -> Iterator[MemoryPlan]:
        """The plan with the KV cache of `num_in_host` sequences in host memory, if its slots have room."""
        model = self.model
        in_host_tokens = num_in_host * self.workload.own_kv_tokens
        on_device_tokens = max(self.workload.longest_tokens, plan.batch * self.workload.kv_tokens - in_host_tokens)
        kv_nbytes = on_device_tokens * model.kv_token_nbytes
        windows_nbytes = _window_nbytes(model, in_host_tokens * model.kv_token_nbytes)
        slabs_nbytes = room_nbytes - kv_nbytes - windows_nbytes - self._more_nbytes(plan.batch)
        if slabs_nbytes < slots_nbytes:
            return
        num_residents, num_slots = self._slabs(plan.batch, room_nbytes, slabs_nbytes)
        yield plan._replace(
            num_residents=num_residents,
            num_slots=num_slots,
            kv_tokens=on_device_tokens,
            host_kv_tokens=in_host_tokens,
            num_states=model.num_states(plan.batch, self.workload.siblings),
        )


def _window_nbytes(model: Footprint, kv_nbytes: int) -> int:
    """Device memory for KV cache in host memory: two windows of one layer each."""
    return 2 * kv_nbytes // len(model.geometry.kv_layers)


def _has_enough_slots(plan: MemoryPlan) -> bool:
    return plan.num_slots >= MIN_SLOTS or plan.num_slots == 0 < plan.num_residents


def _batches(largest: int) -> list[int]:
    """Batches to try: powers of two, halfway between them, and the largest."""
    sizes = {largest} | {2**power for power in range(largest.bit_length()) if 2**power <= largest}
    return sorted(sizes | {3 * size // 2 for size in sizes if 3 * size // 2 <= largest})


def with_draft_tokens(model: Footprint, plan: MemoryPlan, rates: Rates, workload: Workload) -> MemoryPlan:
    """The plan with draft tokens, if verifying them takes less time than moving experts.

    There are none where layers have states: a state that has read a wrong one cannot be rolled back.
    """
    if model.state_nbytes:
        return plan
    experts = model.geometry.num_experts, model.geometry.top_k
    draft_tokens = max_draft_tokens(DRAFT_TOKENS, plan.batch, *experts)
    is_sweep = activated_share(plan.batch, *experts) >= SWEEP_SHARE
    prefill_rows = steady_prefill_rows(plan, workload) if is_sweep else 0
    decode_rows = plan.batch * (1 + draft_tokens)
    roofline = step_roofline(model, plan, rates, decode_rows, prefill_rows, workload.mean_context_tokens)
    return plan._replace(draft_tokens=draft_tokens if roofline.compute_s < roofline.move_s else 0)
