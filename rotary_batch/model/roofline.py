"""The roofline: how long a step takes at least, which resource limits it, how long a run takes.

It is computed from byte counts and measured rates.  A step moves every expert that is not resident (a step of few
rows only those that the router chooses) and computes all rows.  Moving and computing overlap, so a step takes at
least the longer of the two:

    T = max(streamed bytes / rate of the link, those from disk / rate of the disk,
            compute of N decode rows and F prompt rows)

    decode tokens per second = N / T, prompt tokens per second = F / T

Compute is the sum of the matrices (measured seconds per weight at this number of rows), the KV cache and the states
that decode rows read, and the head.  Sources: the rooflines of MoE-Lightning (arXiv 2411.11217), the overlap of FlexGen
(arXiv 2303.06865).
"""

from __future__ import annotations

import math
from typing import NamedTuple

from rotary_batch.model.footprint import Footprint, Workload
from rotary_batch.model.memory_plan import MemoryPlan
from rotary_batch.model.rates import Rates

# From this share of a layer's experts on, loading all of them in order beats guessing: 5 rows of top 2 of 8.
SWEEP_SHARE = 0.75


class Roofline(NamedTuple):
    """The least time that a step can take."""

    move_s: float  # of the slower of link and disk; both work at once
    compute_s: float
    is_disk_slower: bool = False

    @property
    def step_s(self) -> float:
        """Moving and computing overlap."""
        return max(self.move_s, self.compute_s)

    @property
    def binding(self) -> str:
        """What to make faster."""
        if self.move_s <= self.compute_s:
            return "compute"
        return "reading the disk" if self.is_disk_slower else "moving experts"


def activated_share(num_rows: float, num_experts: int, top_k: int) -> float:
    """The share of a layer's experts that `num_rows` rows choose under uniform routing."""
    return 1 - math.pow(1 - top_k / num_experts, num_rows)


def step_roofline(
    model: Footprint, memory_plan: MemoryPlan, rates: Rates, decode_rows: float, prefill_rows: float, context: float
) -> Roofline:
    """The roofline of a step; for each decode row the KV cache of `context` tokens is read, on average.

    A sweep moves every expert that is not resident.  Few rows move those that they choose, under uniform routing, and
    that are in no slot.  KV cache in host memory moves in every step.
    """
    geometry, rows = model.geometry, decode_rows + prefill_rows
    share = activated_share(rows, geometry.num_experts, geometry.top_k)
    activated = geometry.num_experts * share
    expert_rows = rows * geometry.top_k / max(activated, 1e-9)
    layers = len(geometry.moe_layers)
    experts_s = layers * activated * geometry.expert_params * rates.mixed_weights_s(model.expert_shares, expert_rows)
    dense_s = geometry.dense_matmul_params * rates.mixed_weights_s(model.dense_shares, rows)
    head_params = geometry.vocab_size * geometry.hidden_size
    head_s = head_params * rates.weights_s(model.head_format, decode_rows) if decode_rows else 0
    kv_s = decode_rows * context * model.kv_token_nbytes / rates.attention_nbytes_per_s[model.kv]
    kv_s += decode_rows * 2 * model.state_nbytes / rates.memory_nbytes_per_s  # states are read and written
    streamed_nbytes, moved_share = memory_plan.streamed_nbytes(model), 1.0
    if share < SWEEP_SHARE:  # what slots still hold need not move
        kept_nbytes = memory_plan.num_slots * model.slab_nbytes
        moved_share = share * max(0.0, 1 - kept_nbytes / max(1, streamed_nbytes))
    reserved = min(decode_rows, memory_plan.batch) * memory_plan.sequence_kv_tokens  # whole ranges travel, full or not
    visiting = min(memory_plan.host_kv_tokens, max(0.0, reserved - memory_plan.kv_tokens))
    link_s = (moved_share * streamed_nbytes + visiting * model.kv_token_nbytes) / rates.move_nbytes_per_s
    disk_s = moved_share * memory_plan.disk_nbytes(model) / rates.disk_nbytes_per_s
    return Roofline(max(link_s, disk_s), experts_s + dense_s + head_s + kv_s, disk_s > link_s)


def max_draft_tokens(limit: int, num_rows: int, num_experts: int, top_k: int) -> int:
    """The most draft tokens that do not turn a step of few rows into a sweep, which moves every expert."""
    if activated_share(num_rows, num_experts, top_k) >= SWEEP_SHARE:
        return limit
    fitting = (n for n in range(limit, 0, -1) if activated_share(num_rows * (1 + n), num_experts, top_k) < SWEEP_SHARE)
    return next(fitting, 0)


def steady_prefill_rows(memory_plan: MemoryPlan, workload: Workload) -> float:
    """Prompt tokens of a step when as many sequences begin as end."""
    return min(memory_plan.prefill_tokens, memory_plan.batch * workload.prefill_tokens / max(1.0, workload.new_tokens))


def tokens_per_s(model: Footprint, memory_plan: MemoryPlan, rates: Rates, workload: Workload) -> float:
    """New tokens per second with a full batch, while prompts are computed in the same steps."""
    return memory_plan.batch / steady_step_s(model, memory_plan, rates, workload)


def steady_step_s(model: Footprint, memory_plan: MemoryPlan, rates: Rates, workload: Workload) -> float:
    """The roofline of a step in mid-run; the prompts of few sequences are sweeps of their own."""
    if activated_share(memory_plan.batch, model.geometry.num_experts, model.geometry.top_k) < SWEEP_SHARE:
        alone = step_roofline(model, memory_plan, rates, memory_plan.batch, 0, workload.mean_context_tokens).step_s
        span = min(memory_plan.prefill_tokens, workload.prefill_tokens)
        sweeps = memory_plan.batch / max(1.0, workload.new_tokens) * math.ceil(workload.prefill_tokens / span)
        return alone + sweeps * step_roofline(model, memory_plan, rates, 0, span, 0).step_s
    prefill = steady_prefill_rows(memory_plan, workload)
    riding = step_roofline(model, memory_plan, rates, memory_plan.batch, prefill, workload.mean_context_tokens)
    unserved = memory_plan.batch * workload.prefill_tokens / max(1.0, workload.new_tokens) / max(1.0, prefill)
    return riding.step_s * max(1.0, unserved)


def drain_s(model: Footprint, memory_plan: MemoryPlan, rates: Rates, workload: Workload) -> float:
    """Seconds for the whole workload at the roofline: prompts of the first batch, then steady steps."""
    batch = max(1, min(memory_plan.batch, workload.num_items))
    full = memory_plan._replace(batch=batch)
    first = step_roofline(model, full, rates, 0, min(memory_plan.prefill_tokens, batch * workload.prefill_tokens), 0)
    ramp = first.step_s * batch * workload.prefill_tokens / memory_plan.prefill_tokens
    return ramp + workload.num_items * workload.new_tokens / tokens_per_s(model, full, rates, workload)
