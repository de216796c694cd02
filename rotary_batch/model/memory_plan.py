"""How memory is split into KV cache, resident experts, ring slots, host memory and room for prompt tokens.

A plan is chosen in memory_planner.py; roofline.py says how fast it is.
"""

from __future__ import annotations

import sys
from typing import NamedTuple

from rotary_batch.model.footprint import Footprint

MIN_SLOTS = 2
SLOTS = 4  # of a ring, unless memory is short: one in use, two on their way; with 2 a third of the overlap was lost
# Small slabs want more slots: with 30 of 3 MB prompts from disk were 1.3 times as fast as with four, decode 1.0 to 1.4
# times (docs/lab-notes).  Small slabs are copied in batches of up to COPY_BATCH_NBYTES and COPY_BATCH_SLABS, and a ring
# holds SLOTS batches; a longer one is slow to search.
COPY_BATCH_NBYTES, COPY_BATCH_SLABS = 32 * 10**6, 16
# Of the room for KV cache and experts, at most, for slots beyond SLOTS: they take room from residents.
RING_SHARE = 1 / 8
MIN_PREFILL_TOKENS = 64
DEFAULT_BATCH = 128
LONGEST_TOKENS = 4096  # what the longest item may need when that is not known yet
# Of the device's memory, when no cap is given.  On a CPU Python, torch and pieces between tensors need room beside it:
# at 0.75 the resident set was 1,125 to 1,228 MB under a limit of 1,363, and 690 under 786.
MEMORY_SHARE = {"cpu": 0.75, "cuda": 0.9}
HOST_MEMORY_SHARE = 0.8  # of what is free, beside a CUDA device
# However much is allowed: with 100 GB allowed and 90 GB free, the system killed a run while its slabs were loaded.
MAX_HOST_MEMORY_SHARE = 0.95
STAGING_SLABS = 4  # page-locked; torch rounds each up to a power of two


class MemoryPlan(NamedTuple):
    """How the memory of a device and its host is used."""

    num_residents: int
    num_slots: int  # of the ring; 0 = every expert is resident
    kv_tokens: int  # in device memory
    host_kv_tokens: int  # in host memory; they visit the device layer by layer
    batch: int  # live sequences
    prefill_tokens: int
    draft_tokens: int
    num_host_slabs: int  # slabs in host memory; those that are neither there nor resident come from disk
    sequence_kv_tokens: int  # that a sequence reserves on average
    num_states: int = 0  # of layers that have states: of sequences and shared prefixes

    def streamed_nbytes(self, model: Footprint) -> int:
        """What one sweep moves into device memory."""
        return model.experts_nbytes * (model.num_slabs - self.num_residents) // model.num_slabs

    def disk_nbytes(self, model: Footprint) -> int:
        """What of it comes from disk."""
        return self.streamed_nbytes(model) - model.experts_nbytes * self.num_host_slabs // model.num_slabs


def copy_batch_slabs(slab_nbytes: int, num_slots: int) -> int:
    """How many slabs are copied at a time: several when they are small and a ring of `num_slots` has room for that."""
    return max(1, min(COPY_BATCH_SLABS, COPY_BATCH_NBYTES // slab_nbytes, num_slots // SLOTS))


def ring_slots(model: Footprint, room_nbytes: int, fitting: int) -> int:
    """Slots of a sweep's ring, of the `fitting` slabs that fit: SLOTS, and for small slabs as many as batches need.

    At most as many as there are streamed slabs, and a small share of the room.
    """
    batched = SLOTS * copy_batch_slabs(model.slab_nbytes, sys.maxsize)
    affordable = min(int(room_nbytes * RING_SHARE) // model.slab_nbytes, model.num_slabs - fitting)
    return min(fitting, max(SLOTS, min(batched, affordable)))


def host_nbytes_for(device: str, host_memory: int | None, free_nbytes: int, slab_nbytes: int) -> int:
    """Host memory for slabs and KV cache: what is allowed and free, or most of what is free; on a CPU, none."""
    if device == "cpu":
        return 0
    default, most = int(free_nbytes * HOST_MEMORY_SHARE), int(free_nbytes * MAX_HOST_MEMORY_SHARE)
    return max(
        0,
        (default if host_memory is None else min(host_memory, most))
        - (STAGING_SLABS << (slab_nbytes - 1).bit_length()),
    )


def with_host_slabs(model: Footprint, memory_plan: MemoryPlan, host_nbytes: int) -> MemoryPlan:
    """The plan with as many streamed slabs in host memory as its KV cache leaves room for."""
    room = host_nbytes - memory_plan.host_kv_tokens * model.kv_token_nbytes
    streamed = model.num_slabs - memory_plan.num_residents
    return memory_plan._replace(num_host_slabs=min(streamed, model.slabs_within(room)))


def minimum_nbytes(model: Footprint, longest_tokens: int) -> int:
    """The least device memory that a model runs in: dense part, two slots, the longest item's cache, workspace."""
    rows_nbytes = MIN_PREFILL_TOKENS * model.row_nbytes() + model.batch_nbytes(1)
    return fixed_nbytes(model) + rows_nbytes + MIN_SLOTS * model.slab_nbytes + longest_tokens * model.kv_token_nbytes


def fixed_nbytes(model: Footprint) -> int:
    """Device memory that every plan needs, whatever the batch."""
    return model.dense_nbytes + model.scratch_nbytes() + model.library_nbytes
