"""What a revolution costs at the least, which resource binds, how long a night takes.

Knows byte counts and measured rates; knows nothing of torch, files or clocks.  A revolution moves every expert that
is not resident (one of few rows what they ask for) and computes every row that rides it; the two overlap, so it takes
at least the longer of the two:

    T = max(streamed bytes / rate of the link, those from disk / rate of the disk,
            compute of N decode rows and F prompt rows)

    decode tokens a second = N / T, prompt tokens a second = F / T

Compute is the sum of its matrices (seconds per weight at this number of rows, as measured), the keys and values that
decode rows read, and the head.  Source: the rooflines of MoE-Lightning (arXiv 2411.11217), the overlap of FlexGen
(arXiv 2303.06865).
"""

from __future__ import annotations

import math
from typing import NamedTuple

from rotary_batch.model.footprint import Footprint, Workload
from rotary_batch.model.rates import Rates

# From this share of a layer's experts on, loading all of them in order beats guessing: 5 rows of top 2 of 8.
SWEEP_SHARE = 0.75


class MemoryPlan(NamedTuple):
    """How memory is used."""

    num_residents: int
    num_slots: int  # 0 = nothing revolves
    kv_tokens: int  # in device memory
    host_kv_tokens: int  # in host memory; a layer's keys visit the device when it is at work
    batch: int  # live sequences
    prefill_tokens: int
    draft_tokens: int
    num_hosted: int  # slabs that are not resident and lie in host memory; the others come from disk
    sequence_kv_tokens: int  # that a sequence reserves on average

    def streamed_nbytes(self, model: Footprint) -> int:
        """What one revolution moves into device memory."""
        return (model.num_slabs - self.num_residents) * model.slab_nbytes

    def disk_nbytes(self, model: Footprint) -> int:
        """What of it comes from disk."""
        return self.streamed_nbytes(model) - self.num_hosted * model.slab_nbytes


class Roofline(NamedTuple):
    """The least that a revolution can take."""

    move_s: float  # of the slower of link and disk; both work at once
    compute_s: float
    is_disk_slower: bool = False

    @property
    def revolution_s(self) -> float:
        """Moving and computing overlap."""
        return max(self.move_s, self.compute_s)

    @property
    def binding(self) -> str:
        """What to make faster."""
        if self.move_s <= self.compute_s:
            return "compute"
        return "reading the disk" if self.is_disk_slower else "moving experts"


def touched_share(num_rows: float, num_experts: int, top_k: int) -> float:
    """The share of a layer's experts that so many rows ask for, when routing is uniform."""
    return 1 - math.pow(1 - top_k / num_experts, num_rows)


def bound(
    model: Footprint, budget: MemoryPlan, rates: Rates, decode_rows: float, prefill_rows: float, context: float
) -> Roofline:
    """The bound of a revolution of so many rows; decode rows look at `context` keys on average.

    A sweep moves all that is not resident, few rows what they ask for and no slot holds, as uniform routing would have
    it; keys that lie in host memory move every time.
    """
    geometry, rows = model.geometry, decode_rows + prefill_rows
    share = touched_share(rows, geometry.num_experts, geometry.top_k)
    touched = geometry.num_experts * share
    expert_rows = rows * geometry.top_k / max(touched, 1e-9)
    experts_s = geometry.num_layers * touched * geometry.expert_params * rates.weights_s(model.experts, expert_rows)
    q, kv = geometry.num_heads * geometry.head_dim, geometry.num_kv_heads * geometry.head_dim
    attention_params = geometry.num_layers * geometry.hidden_size * 2 * (q + kv)
    attention_s = attention_params * rates.weights_s(model.dense, rows)
    head_s = (
        geometry.vocab_size * geometry.hidden_size * rates.weights_s(model.dense, decode_rows) if decode_rows else 0
    )
    keys_s = decode_rows * context * model.kv_token_nbytes / rates.attention_nbytes_per_s[model.kv]
    streamed_nbytes, moved_share = budget.streamed_nbytes(model), 1.0
    if share < SWEEP_SHARE:  # what slots still hold need not move
        kept_nbytes = budget.num_slots * model.slab_nbytes
        moved_share = share * max(0.0, 1 - kept_nbytes / max(1, streamed_nbytes))
    reserved = min(decode_rows, budget.batch) * budget.sequence_kv_tokens  # whole ranges travel, full or not
    visiting = min(budget.host_kv_tokens, max(0.0, reserved - budget.kv_tokens))
    link_s = (moved_share * streamed_nbytes + visiting * model.kv_token_nbytes) / rates.move_nbytes_per_s
    disk_s = moved_share * budget.disk_nbytes(model) / rates.disk_nbytes_per_s
    return Roofline(max(link_s, disk_s), experts_s + attention_s + head_s + keys_s, disk_s > link_s)


def drafts_at_most(most: int, num_rows: int, num_experts: int, top_k: int) -> int:
    """Draft tokens of each row that leave few rows few: as a sweep they would move every expert."""
    if touched_share(num_rows, num_experts, top_k) >= SWEEP_SHARE:
        return most
    fitting = (n for n in range(most, 0, -1) if touched_share(num_rows * (1 + n), num_experts, top_k) < SWEEP_SHARE)
    return next(fitting, 0)


def steady_prefill_rows(budget: MemoryPlan, workload: Workload) -> float:
    """Prompt tokens of a revolution when as many sequences begin as end."""
    return min(budget.prefill_tokens, budget.batch * workload.prompt_tokens / max(1.0, workload.new_tokens))


def tokens_per_s(model: Footprint, budget: MemoryPlan, rates: Rates, workload: Workload) -> float:
    """New tokens a second with a full batch, prompts riding along."""
    return budget.batch / steady_revolution_s(model, budget, rates, workload)


def steady_revolution_s(model: Footprint, budget: MemoryPlan, rates: Rates, workload: Workload) -> float:
    """The bound of a revolution in the middle of a night; few sequences get their prompts in sweeps of their own."""
    if touched_share(budget.batch, model.geometry.num_experts, model.geometry.top_k) < SWEEP_SHARE:
        alone = bound(model, budget, rates, budget.batch, 0, workload.mean_context_tokens).revolution_s
        span = min(budget.prefill_tokens, workload.prompt_tokens)
        sweeps = budget.batch / max(1.0, workload.new_tokens) * math.ceil(workload.prompt_tokens / span)
        return alone + sweeps * bound(model, budget, rates, 0, span, 0).revolution_s
    prefill = steady_prefill_rows(budget, workload)
    found = bound(model, budget, rates, budget.batch, prefill, workload.mean_context_tokens)
    unserved = budget.batch * workload.prompt_tokens / max(1.0, workload.new_tokens) / max(1.0, prefill)
    return found.revolution_s * max(1.0, unserved)


def drain_s(model: Footprint, budget: MemoryPlan, rates: Rates, workload: Workload) -> float:
    """Seconds for the whole workload at the bound: prompts of the first batch, then steady revolutions."""
    batch = max(1, min(budget.batch, workload.num_items))
    full = budget._replace(batch=batch)
    first = bound(model, full, rates, 0, min(budget.prefill_tokens, batch * workload.prompt_tokens), 0)
    ramp = first.revolution_s * batch * workload.prompt_tokens / budget.prefill_tokens
    return ramp + workload.num_items * workload.new_tokens / tokens_per_s(model, full, rates, workload)
