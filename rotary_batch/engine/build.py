"""Open an engine: plan its memory, load the dense weights, start the prefetchers.

The defaults are here; the arithmetic is in model/memory_plan.py.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import torch

from rotary_batch.config import cache_dir
from rotary_batch.engine.attention.base import Attention
from rotary_batch.engine.attention.select import attention_for
from rotary_batch.engine.attention.triton import TritonAttention
from rotary_batch.engine.decoder import Decoder
from rotary_batch.engine.delta.states import StateArena
from rotary_batch.engine.engine import LoadedModel, RotaryEngine
from rotary_batch.engine.graphs import DecodeGraphs
from rotary_batch.engine.kernels import cpu
from rotary_batch.engine.kernels.cuda import HAS_TRITON
from rotary_batch.engine.kernels.grouped import GroupedKernels
from rotary_batch.engine.kernels.numerics import Numerics
from rotary_batch.engine.kvcache.arena import KvArena
from rotary_batch.engine.offload.source import Placement, open_experts, open_tier
from rotary_batch.engine.packs.contents import check_dense
from rotary_batch.engine.packs.dense import load_dense
from rotary_batch.engine.packs.pack import pack_into_cache
from rotary_batch.engine.runtime.device import device_memory_nbytes, resolve_device
from rotary_batch.engine.runtime.memory import tune_malloc
from rotary_batch.engine.runtime.trace import Trace
from rotary_batch.engine.self_check import self_check
from rotary_batch.engine.weights import Weights
from rotary_batch.errors import DeviceMemoryError, ModelError
from rotary_batch.model.engine_options import EngineOptions
from rotary_batch.model.footprint import Footprint, Workload, footprint
from rotary_batch.model.host import free_nbytes
from rotary_batch.model.manifest import MANIFEST_NAME, Manifest
from rotary_batch.model.memory_plan import (
    DEFAULT_BATCH,
    LONGEST_TOKENS,
    MEMORY_SHARE,
    MIN_SLOTS,
    MemoryPlan,
    host_nbytes_for,
    with_host_slabs,
)
from rotary_batch.model.memory_planner import plan_memory
from rotary_batch.model.rates import Rates, cached_rates
from rotary_batch.model.tokens import Tokenizer

# What a sequence is expected to need when nothing is known of the queue.
PROMPT_TOKENS, NEW_TOKENS = 900, 124


def open_engine(model_dir: Path | str, options: EngineOptions) -> RotaryEngine:
    """Open a pack, or a checkpoint, which is packed into the cache first.

    Raises ModelError, ConfigError, UnavailableError when the device does not exist or has too little memory, and
    DeviceMemoryError when too little of it is free now.
    """
    pack_dir, manifest = _open_pack(Path(model_dir), options.experts)
    device = resolve_device(options.device)
    _configure_allocator(device, options.device_memory)
    kernels = cpu.default(options.max_isa) if device.type == "cpu" else None
    numerics = Numerics(options.numerics or manifest.default_numerics, device, kernels)
    model = footprint(manifest, options.kv, numerics.storage_dtype.itemsize, numerics.dtype.itemsize, options.device)
    rates = cached_rates(options.device, cache_dir(os.environ))
    memory_plan = _plan(manifest, model, rates, options)
    check_dense(pack_dir, manifest)  # before anything is allocated
    trace = Trace(timeline=options.timeline, routing=options.routing, on_cuda=device.type == "cuda")
    try:
        loaded = _load(pack_dir, manifest, model, memory_plan, numerics, trace, options)
    except torch.OutOfMemoryError as error:
        raise DeviceMemoryError(f"--device {options.device}: {error}; give a smaller --device-memory") from error
    # rates are of fast numerics: exact ones have no roofline
    return RotaryEngine(loaded, memory_plan, None if numerics.exact else rates, options, trace)


def _load(
    pack_dir: Path,
    manifest: Manifest,
    model: Footprint,
    memory_plan: MemoryPlan,
    numerics: Numerics,
    trace: Trace,
    options: EngineOptions,
) -> LoadedModel:
    device, geometry = resolve_device(options.device), manifest.geometry
    placement = Placement(memory_plan.num_residents, memory_plan.num_slots, memory_plan.num_host_slabs)
    tokenizer = Tokenizer.load(pack_dir)
    with ExitStack() as opened:  # closes what is open when the rest fails
        dense = load_dense(pack_dir, manifest, numerics, device)
        tier = open_tier(manifest, pack_dir, placement, device, trace)
        opened.callback(tier.close)
        experts = open_experts(manifest, tier, placement, device, trace, prefetch=options.prefetch)
        opened.callback(experts.close)
        kv = KvArena(
            geometry, memory_plan.kv_tokens, options.kv, numerics.storage_dtype, device, memory_plan.host_kv_tokens
        )
        opened.callback(kv.close)
        states = None
        if geometry.delta is not None:
            states = StateArena(geometry.delta, len(geometry.delta_layers), memory_plan.num_states, device)
        windows = {geometry.window(layer) for layer in geometry.kv_layers}
        attentions = {window: attention_for(geometry.with_window(window), numerics, kv) for window in windows}
        grouped = GroupedKernels(manifest) if computes_groups(numerics, device) else None
        longest = min(manifest.context_tokens, kv.max_range_tokens)  # a context of 10^7 is not paid for in angles
        decoder = Decoder(Weights(geometry, dense, numerics), experts, attentions, longest, trace, states, grouped)
        loaded = LoadedModel(
            manifest=manifest,
            footprint=model,
            decoder=decoder,
            experts=experts,
            tier=tier,
            kv=kv,
            states=states,
            graphs=None if options.timeline or states else decode_graphs(decoder, kv, list(attentions.values())),
            stop_ids=tokenizer.stop_ids | frozenset(geometry.eos_ids),
            answers=tokenizer.answers,
        )
        opened.pop_all()
    return loaded


def decode_graphs(decoder: Decoder, kv: KvArena, attentions: Sequence[Attention]) -> DecodeGraphs | None:
    """The graphs of decode steps, where such a step can be recorded."""
    by_kernel = [one for one in attentions if isinstance(one, TritonAttention) and one.takes_decode_rows]
    if kv.host_tokens or len(by_kernel) < len(attentions):
        return None
    return DecodeGraphs(decoder, kv, by_kernel)


def computes_groups(numerics: Numerics, device: torch.device) -> bool:
    """Whether the experts of a layer are computed together: fast numerics on CUDA with Triton."""
    return device.type == "cuda" and HAS_TRITON and not numerics.exact


def _open_pack(model_dir: Path, experts: str | None) -> tuple[Path, Manifest]:
    if not (model_dir / MANIFEST_NAME).is_file():
        model_dir = pack_into_cache(model_dir, cache_dir(os.environ) / "packs", self_check, experts)
    manifest = Manifest.load(model_dir)
    if experts is not None and experts != manifest.experts:
        raise ModelError(f"{model_dir}: its experts are {manifest.experts}, not {experts}; pack the checkpoint again")
    return model_dir, manifest


def _configure_allocator(device: torch.device, device_memory: int | None) -> None:
    if device.type == "cpu":
        tune_malloc()
    elif device_memory is not None:
        torch.cuda.set_per_process_memory_fraction(min(1.0, device_memory / device_memory_nbytes(device)), device)


def _plan(manifest: Manifest, model: Footprint, rates: Rates | None, options: EngineOptions) -> MemoryPlan:
    """The planner's choice for the workload, and what the options say instead."""
    batch, device = options.max_batch or DEFAULT_BATCH, resolve_device(options.device)
    memory_nbytes = options.device_memory or int(device_memory_nbytes(device) * MEMORY_SHARE[device.type])
    host_nbytes = host_nbytes_for(device.type, options.host_memory, free_nbytes(), model.slab_nbytes)
    planned = plan_memory(
        model,
        memory_nbytes,
        batch,
        options.workload or _unknown_workload(manifest, batch),
        rates,
        host_nbytes,
        options.least_batch,
    )
    return _overridden(planned._replace(batch=batch), options, model, host_nbytes)


def _unknown_workload(manifest: Manifest, batch: int) -> Workload:
    """A queue of which nothing is known."""
    longest = min(manifest.context_tokens, LONGEST_TOKENS)
    prompt = min(PROMPT_TOKENS, longest * 7 // 8)
    return Workload(batch, prompt, min(NEW_TOKENS, longest - prompt), longest)


def _overridden(planned: MemoryPlan, options: EngineOptions, model: Footprint, host_nbytes: int) -> MemoryPlan:
    memory_plan = planned
    if options.host_kv_tokens is not None:
        memory_plan = memory_plan._replace(host_kv_tokens=options.host_kv_tokens)
    if options.draft_tokens is not None:
        memory_plan = memory_plan._replace(draft_tokens=options.draft_tokens)
    if options.ring_slots is not None or options.resident_share is not None:
        memory_plan = memory_plan._replace(
            num_residents=round(model.num_slabs * (options.resident_share or 0.0)),
            num_slots=options.ring_slots or max(MIN_SLOTS, planned.num_slots),
        )
    everything = sys.maxsize if options.host_memory is None else options.host_memory
    return with_host_slabs(model, memory_plan, {None: host_nbytes, "disk": 0, "ram": everything}[options.tier])
