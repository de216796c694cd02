"""Open an engine: load the dense part, split the device memory, start the rotors.

Knows defaults and which part goes with which; the arithmetic is in model/budget.py.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

import torch
from safetensors import safe_open

from rotary_batch.config import cache_dir
from rotary_batch.engine.attention_choice import attention_for
from rotary_batch.engine.device import device_memory_nbytes, device_named
from rotary_batch.engine.engine import RotaryEngine
from rotary_batch.engine.experts import Placement, open_experts, open_tier
from rotary_batch.engine.kv import KvArena
from rotary_batch.engine.memory import keep_freed_memory
from rotary_batch.engine.mixtral import Mixtral
from rotary_batch.engine.numerics import Numerics
from rotary_batch.engine.pack import pack_into_cache
from rotary_batch.engine.quant import Int8Matrix, Matrix
from rotary_batch.engine.trace import Trace
from rotary_batch.errors import ModelError
from rotary_batch.model.budget import (
    DEFAULT_BATCH,
    LONGEST_TOKENS,
    MEMORY_SHARE,
    MIN_SLOTS,
    Budget,
    fits_in_ram,
    host_room_nbytes,
    plan_memory,
)
from rotary_batch.model.footprint import Workload, footprint
from rotary_batch.model.manifest import DENSE_NAME, MANIFEST_NAME, Manifest
from rotary_batch.model.rates import cached_rates
from rotary_batch.model.tokens import Tokenizer

# What sequences are expected to need when nothing is known of the queue.
PROMPT_TOKENS, NEW_TOKENS = 900, 124


def open_engine(  # noqa: PLR0913 - every one is a measurable choice that tests and benchmarks vary
    model_dir: Path | str, *, device: str = "cpu", device_memory: int | None = None, numerics: str | None = None,
    max_batch: int | None = None, ring_slots: int | None = None, resident_share: float | None = None,
    tier: str | None = None, host_memory: int | None = None, rotor: bool = True, prefill_span: int | None = None,
    kv: str = "bf16", experts: str | None = None, draft_tokens: int | None = None, share_prefixes: bool = True,
    host_kv_tokens: int | None = None, workload: Workload | None = None, least_batch: int = 1, timeline: bool = False,
    routing: bool = False,
) -> RotaryEngine:  # fmt: skip
    """Open a pack, or a checkpoint, which is packed into the cache first.

    `device_memory` bytes cap everything that the engine keeps there; how they are used is the budget planner's choice,
    for `workload`, with the machine's cached rates; a batch of `least_batch` is kept room for, where it fits, even when
    a smaller one pays more.  `ring_slots` and `resident_share` (0 to 1), `draft_tokens`,
    `prefill_span` (prompt tokens of one sequence in one revolution) and `host_kv_tokens` (how many tokens' keys lie in
    host memory) override it.  `host_memory` bytes decide whether slabs are kept in RAM, and keys beside them (CUDA
    only).  `kv` is bf16 (as computed) or int8.  `experts` asks for that quantisation.
    Raises ModelError, UnavailableError (no such device, or a cap too small, with the minimum).
    """
    pack_dir = _pack_dir(Path(model_dir), experts or "bf16")
    target = device_named(device)
    manifest, tokenizer = Manifest.load(pack_dir), Tokenizer.load(pack_dir)
    if experts is not None and experts != manifest.experts:
        raise ModelError(f"{pack_dir}: its experts are {manifest.experts}, not {experts}; pack the checkpoint again")
    if target.type == "cpu":
        keep_freed_memory()
    elif device_memory is not None:
        torch.cuda.set_per_process_memory_fraction(min(1.0, device_memory / device_memory_nbytes(target)), target)
    trace = Trace(timeline=timeline, routing=routing, on_cuda=target.type == "cuda")
    arithmetic = Numerics(numerics or manifest.default_numerics, target)
    model = footprint(manifest, kv, arithmetic.kept.itemsize, arithmetic.dtype.itemsize, device)
    batch = max_batch or DEFAULT_BATCH
    memory = device_memory or int(device_memory_nbytes(target) * MEMORY_SHARE[target.type])
    rates = cached_rates(device, cache_dir(os.environ))
    kind = tier or ("ram" if target.type == "cuda" and fits_in_ram(manifest, host_memory) else "disk")
    host_nbytes = host_room_nbytes(manifest, host_memory, in_ram=kind == "ram") if target.type == "cuda" else 0
    planned = plan_memory(model, memory, batch, workload or _unknown(manifest, batch), rates, host_nbytes, least_batch)
    placement = _placement(planned, manifest, ring_slots, resident_share)
    budget = planned._replace(
        batch=batch,
        num_residents=placement.num_residents,
        num_slots=placement.num_slots,
        host_kv_tokens=planned.host_kv_tokens if host_kv_tokens is None else host_kv_tokens,
        draft_tokens=planned.draft_tokens if draft_tokens is None else draft_tokens,
    )
    geometry = manifest.geometry
    with ExitStack() as opened:  # and closed again when the rest fails
        dense = _load_dense(pack_dir, manifest, arithmetic, target)
        source = open_tier(manifest, pack_dir, target, kind, trace)
        opened.callback(source.close)
        sources = open_experts(manifest, source, placement, target, trace, rotor=rotor)
        opened.callback(sources.close)
        arena = KvArena(geometry, budget.kv_tokens, kv, arithmetic.kept, target, budget.host_kv_tokens)
        opened.callback(arena.close)
        attention = attention_for(geometry, arithmetic, arena)
        engine = RotaryEngine(
            manifest=manifest,
            decoder=Mixtral(geometry, dense, sources, attention, arithmetic, manifest.context_tokens, trace),
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


def _pack_dir(model_dir: Path, experts: str) -> Path:
    if (model_dir / MANIFEST_NAME).is_file():
        return model_dir
    return pack_into_cache(model_dir, cache_dir(os.environ) / "packs", experts=experts)


def _load_dense(pack_dir: Path, manifest: Manifest, numerics: Numerics, device: torch.device) -> dict[str, Matrix]:
    """One tensor at a time, so that the peak is the sum and not twice the sum; int8 stays int8."""
    path, geometry = pack_dir / DENSE_NAME, manifest.geometry
    try:
        with safe_open(str(path), framework="pt") as file:
            names = set(file.keys())
            if missing := geometry.dense_shapes().keys() - names:
                raise ModelError(f"{path}: lacks {min(missing)}; pack the model again")
            dense: dict[str, Matrix] = {}
            for name, shape in geometry.dense_shapes().items():
                # a copy: the reader maps the file, unaligned (torch's int8 operator crashes on that) and evictable
                tensor = file.get_tensor(name).clone().to(device)
                if tuple(tensor.shape) != shape:
                    raise ModelError(f"{path}: {name} is {list(tensor.shape)}, not {list(shape)}; pack the model again")
                if manifest.dense == "int8" and geometry.is_quantisable(name):
                    dense[name] = Int8Matrix(tensor, file.get_tensor(name + ".scale").to(device))
                else:
                    dense[name] = tensor.to(numerics.kept)
            return dense
    except OSError as error:
        raise ModelError(f"{path}: {error}; see `model verify`") from error


def _placement(budget: Budget, manifest: Manifest, slots: int | None, share: float | None) -> Placement:
    if slots is None and share is None:
        return Placement(budget.num_residents, budget.num_slots)
    residents = round(len(manifest.slabs) * (share or 0.0))
    return Placement(residents, slots or max(MIN_SLOTS, budget.num_slots))
