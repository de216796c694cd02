"""Open an engine: load the dense part, split the device memory, start the rotors.

Knows defaults and which part goes with which; the arithmetic is in model/memory_plan.py.
"""

from __future__ import annotations

import hashlib
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open

from rotary_batch.config import cache_dir
from rotary_batch.engine.attention.select import attention_for
from rotary_batch.engine.decoder import Mixtral
from rotary_batch.engine.engine import RotaryEngine
from rotary_batch.engine.kernels import cpu
from rotary_batch.engine.kernels.numerics import Numerics
from rotary_batch.engine.kernels.quant import Int8Matrix, Matrix
from rotary_batch.engine.kvcache.arena import KvArena
from rotary_batch.engine.offload.source import Placement, open_experts, open_tier
from rotary_batch.engine.packs.checkpoint import read_header
from rotary_batch.engine.packs.pack import pack_into_cache
from rotary_batch.engine.runtime.buffers import copy_to_pages
from rotary_batch.engine.runtime.device import device_memory_nbytes, resolve_device
from rotary_batch.engine.runtime.memory import tune_malloc
from rotary_batch.engine.runtime.trace import Trace
from rotary_batch.errors import ModelError
from rotary_batch.model.footprint import Footprint, Workload, footprint
from rotary_batch.model.geometry import DTYPE_NBYTES
from rotary_batch.model.host import free_nbytes
from rotary_batch.model.manifest import DENSE_NAME, MANIFEST_NAME, Manifest
from rotary_batch.model.memory_plan import (
    DEFAULT_BATCH,
    LONGEST_TOKENS,
    MEMORY_SHARE,
    MIN_SLOTS,
    host_nbytes_for,
    plan_memory,
    with_hosted,
)
from rotary_batch.model.rates import cached_rates
from rotary_batch.model.roofline import MemoryPlan
from rotary_batch.model.tokens import Tokenizer

# What sequences are expected to need when nothing is known of the queue.
PROMPT_TOKENS, NEW_TOKENS = 900, 124


def open_engine(  # noqa: PLR0913 - every one is a measurable choice that tests and benchmarks vary
    model_dir: Path | str,
    *,
    device: str = "cpu",
    device_memory: int | None = None,
    numerics: str | None = None,
    max_batch: int | None = None,
    ring_slots: int | None = None,
    resident_share: float | None = None,
    tier: str | None = None,
    host_memory: int | None = None,
    rotor: bool = True,
    prefill_span: int | None = None,
    kv: str = "bf16",
    experts: str | None = None,
    draft_tokens: int | None = None,
    share_prefixes: bool = True,
    host_kv_tokens: int | None = None,
    workload: Workload | None = None,
    least_batch: int = 1,
    timeline: bool = False,
    routing: bool = False,
    max_isa: str | None = None,
) -> RotaryEngine:
    """Open a pack, or a checkpoint, which is packed into the cache first.

    `device_memory` bytes cap everything that the engine keeps there; how they are used is the budget planner's choice,
    for `workload`, with the machine's cached rates; a batch of `least_batch` is kept room for, where it fits, even when
    a smaller one pays more.  `ring_slots` and `resident_share` (0 to 1), `draft_tokens`, `prefill_span` (prompt tokens
    of one sequence in one revolution) and `host_kv_tokens` (how many tokens' keys lie in host memory) override it.
    `host_memory` bytes beside a CUDA device are for slabs and for keys; what revolves and has no room there comes from
    disk; `tier` disk or ram puts none or all of it there.  `kv` is bf16 (as computed) or int8.  `experts` asks for that
    quantisation.  `max_isa` caps the instructions that kernels use on a processor, as ROTARY_BATCH_MAX_ISA does.
    Raises ModelError, ConfigError, UnavailableError (no such device, or a cap too small, with the minimum).
    """
    pack_dir, manifest = _open_pack(Path(model_dir), experts)
    target, tokenizer = resolve_device(device), Tokenizer.load(pack_dir)
    if target.type == "cpu":
        tune_malloc()
    elif device_memory is not None:
        torch.cuda.set_per_process_memory_fraction(min(1.0, device_memory / device_memory_nbytes(target)), target)
    trace = Trace(timeline=timeline, routing=routing, on_cuda=target.type == "cuda")
    kernels = cpu.default(max_isa) if target.type == "cpu" else None
    arithmetic = Numerics(numerics or manifest.default_numerics, target, kernels)
    model = footprint(manifest, kv, arithmetic.storage_dtype.itemsize, arithmetic.dtype.itemsize, device)
    batch = max_batch or DEFAULT_BATCH
    memory = device_memory or int(device_memory_nbytes(target) * MEMORY_SHARE[target.type])
    rates = cached_rates(device, cache_dir(os.environ))
    host_nbytes = host_nbytes_for(target.type, host_memory, free_nbytes(), model.slab_nbytes)
    planned = plan_memory(model, memory, batch, workload or _unknown(manifest, batch), rates, host_nbytes, least_batch)
    given = Overrides(ring_slots, resident_share, draft_tokens, host_kv_tokens, tier, host_memory)
    budget = _overridden(planned._replace(batch=batch), given, model, host_nbytes)
    placement = Placement(budget.num_residents, budget.num_slots, budget.num_hosted)
    geometry = manifest.geometry
    _check_dense(pack_dir, manifest)  # before anything is allocated
    with ExitStack() as opened:  # and closed again when the rest fails
        dense = _load_dense(pack_dir, manifest, arithmetic, target)
        source = open_tier(manifest, pack_dir, placement, target, trace)
        opened.callback(source.close)
        sources = open_experts(manifest, source, placement, target, trace, rotor=rotor)
        opened.callback(sources.close)
        arena = KvArena(geometry, budget.kv_tokens, kv, arithmetic.storage_dtype, target, budget.host_kv_tokens)
        opened.callback(arena.close)
        attention = attention_for(geometry, arithmetic, arena)
        longest = min(manifest.context_tokens, arena.max_range_tokens)  # a context of 10^7 is not paid for in angles
        engine = RotaryEngine(
            manifest=manifest,
            decoder=Mixtral(geometry, dense, sources, attention, arithmetic, longest, trace),
            experts=sources,
            tier=source,
            kv=arena,
            trace=trace,
            stop_ids=tokenizer.stop_ids | frozenset(geometry.eos_ids),
            pieces=tokenizer.pieces(),
            budget=budget,
            footprint=model,
            rates=None if arithmetic.exact else rates,  # they are of fast numerics: no bound for exact ones
            span_tokens=prefill_span,
            share_prefixes=share_prefixes,
        )
        opened.pop_all()
    return engine


def _unknown(manifest: Manifest, batch: int) -> Workload:
    """A queue of which nothing is known."""
    longest = min(manifest.context_tokens, LONGEST_TOKENS)
    prompt = min(PROMPT_TOKENS, longest * 7 // 8)
    return Workload(batch, prompt, min(NEW_TOKENS, longest - prompt), longest)


def _open_pack(model_dir: Path, experts: str | None) -> tuple[Path, Manifest]:
    if not (model_dir / MANIFEST_NAME).is_file():
        model_dir = pack_into_cache(model_dir, cache_dir(os.environ) / "packs", experts=experts or "bf16")
    manifest = Manifest.load(model_dir)
    if experts is not None and experts != manifest.experts:
        raise ModelError(f"{model_dir}: its experts are {manifest.experts}, not {experts}; pack the checkpoint again")
    return model_dir, manifest


def _check_dense(pack_dir: Path, manifest: Manifest) -> None:
    """Every tensor is there, of the right type and shape.  Raises ModelError."""
    path, geometry = pack_dir / DENSE_NAME, manifest.geometry
    found = read_header(path)
    for name, shape in geometry.dense_shapes().items():
        is_int8 = manifest.dense == "int8" and geometry.is_quantisable(name)
        wanted = {name: (shape, {"I8"} if is_int8 else DTYPE_NBYTES.keys())}
        if is_int8:
            wanted[name + ".scale"] = (shape[:1], {"F32"})
        for part, (part_shape, dtypes) in wanted.items():
            place = found.get(part)
            if place is None:
                raise ModelError(f"{path}: lacks {part}; pack the model again")
            if place.shape != part_shape or place.dtype not in dtypes:
                raise ModelError(
                    f"{path}: {part} is {list(place.shape)} of {place.dtype}, not {list(part_shape)} of "
                    f"{' or '.join(dtypes)}; pack the model again"
                )


def _load_dense(pack_dir: Path, manifest: Manifest, numerics: Numerics, device: torch.device) -> dict[str, Matrix]:
    """One tensor at a time, so that the peak is the sum and not twice the sum; int8 stays int8."""
    path, geometry = pack_dir / DENSE_NAME, manifest.geometry
    try:
        with path.open("rb") as raw:  # 1 to 2 GB/s; a flipped bit on disk must not become prose
            if hashlib.file_digest(raw, "sha256").hexdigest() != manifest.dense_sha256:
                raise ModelError(f"{path}: damaged (its digest differs); pack the model again")
        with safe_open(str(path), framework="pt") as file:
            dense: dict[str, Matrix] = {}
            for name in geometry.dense_shapes():
                stored = file.get_tensor(name)
                is_int8 = manifest.dense == "int8" and geometry.is_quantisable(name)
                # a copy: the reader maps the file, unaligned (torch's int8 operator crashes on that) and evictable
                tensor = copy_to_pages(stored, stored.dtype if is_int8 else numerics.storage_dtype).to(device)
                dense[name] = Int8Matrix(tensor, file.get_tensor(name + ".scale").to(device)) if is_int8 else tensor
            return dense
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path}: {error}; see `model verify`") from error


class Overrides(NamedTuple):
    """What was asked for, whatever the planner found; None = as planned."""

    ring_slots: int | None
    resident_share: float | None
    draft_tokens: int | None
    host_kv_tokens: int | None
    tier: str | None
    host_memory: int | None


def _overridden(planned: MemoryPlan, given: Overrides, model: Footprint, host_nbytes: int) -> MemoryPlan:
    budget = planned._replace(
        host_kv_tokens=planned.host_kv_tokens if given.host_kv_tokens is None else given.host_kv_tokens,
        draft_tokens=planned.draft_tokens if given.draft_tokens is None else given.draft_tokens,
    )
    if given.ring_slots is not None or given.resident_share is not None:
        budget = budget._replace(
            num_residents=round(model.num_slabs * (given.resident_share or 0.0)),
            num_slots=given.ring_slots or max(MIN_SLOTS, planned.num_slots),
        )
    everything = sys.maxsize if given.host_memory is None else given.host_memory
    return with_hosted(model, budget, {None: host_nbytes, "disk": 0, "ram": everything}[given.tier])
