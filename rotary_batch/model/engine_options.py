"""Every option of an engine, with its meaning and default."""

from __future__ import annotations

from dataclasses import dataclass

from rotary_batch.model.footprint import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """How an engine is opened.  None = the memory planner, the pack or the machine decides."""

    device: str = "cpu"  # cpu, cuda or cuda:N
    device_memory: int | None = None  # bytes; a cap on everything that the engine keeps on the device
    host_memory: int | None = None  # bytes of host memory next to a CUDA device, for slabs and KV cache
    numerics: str | None = None  # exact or fast
    kv: str = "bf16"  # format of the KV cache: bf16 (as computed) or int8
    experts: str | None = None  # bf16, int8 or int4: what a checkpoint is packed as, and what a pack must be
    workload: Workload | None = None  # what the queue holds; memory is planned for it
    max_batch: int | None = None  # live sequences
    least_batch: int = 1  # sequences that get room where they fit, even when a smaller batch pays more
    ring_slots: int | None = None  # slots of the ring
    resident_share: float | None = None  # share of the experts that stay in device memory, 0 to 1
    tier: str | None = None  # disk or ram: no or every slab that is not resident is kept in host memory
    prefetch: bool = True  # load experts before the router asks; False = when it asks
    prefill_span: int | None = None  # prompt tokens of one sequence in one step
    draft_tokens: int | None = None  # tokens drafted per sequence and step; 0 = none
    share_prefixes: bool = True  # compute the common beginning of prompts once
    host_kv_tokens: int | None = None  # tokens whose KV cache is kept in host memory
    timeline: bool = False  # record when slabs are read, copied and used
    routing: bool = False  # record what routers choose
    max_isa: str | None = None  # caps the CPU instructions that kernels use, as ROTARY_BATCH_MAX_ISA does
