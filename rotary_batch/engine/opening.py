"""Open an engine: load the dense part, split the device memory, start the rotor.

Knows budgets and defaults; knows nothing of a step.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import safe_open

from rotary_batch.config import cache_dir
from rotary_batch.engine.engine import RotaryEngine
from rotary_batch.engine.experts import MIN_SLOTS, Placement, open_experts, open_tier, place
from rotary_batch.engine.kv import KvArena
from rotary_batch.engine.mixtral import Mixtral
from rotary_batch.engine.numerics import Numerics
from rotary_batch.engine.pack import pack_into_cache
from rotary_batch.engine.trace import Trace
from rotary_batch.errors import ModelError, UnavailableError
from rotary_batch.model.geometry import Geometry
from rotary_batch.model.manifest import DENSE_NAME, MANIFEST_NAME, Manifest
from rotary_batch.model.tokens import Tokenizer

DEFAULT_MAX_BATCH = 128
SEQUENCE_TOKENS = 1024  # what a sequence is expected to need at most, when the arena's size is chosen
PREFILL_TOKENS = 2048  # prompt tokens of one revolution: above about 1,000 the disk hides behind them
WORKSPACE_ROW_COPIES = 12  # activations of a row that live at once: about 6 hidden and 3 intermediate vectors
MAX_KV_SHARE = 0.25  # of the machine's memory, when no cap is given on a CPU


class Plan(NamedTuple):
    """How the device memory is split."""

    placement: Placement
    kv_tokens: int
    prefill_tokens: int


def open_engine(  # noqa: PLR0913 - every one is a measurable choice that tests and benchmarks vary
    model_dir: Path | str, *, device: str = "cpu", device_memory: int | None = None, numerics: str | None = None,
    max_batch: int | None = None, ring_slots: int | None = None, resident_share: float | None = None,
    tier: str | None = None, host_memory: int | None = None, rotor: bool = True, prefill_span: int | None = None,
    timeline: bool = False,
) -> RotaryEngine:  # fmt: skip
    """Open a pack, or a checkpoint, which is packed into the cache first.

    `device_memory` bytes cap everything that the engine keeps there.  `ring_slots` and `resident_share` (0 to 1)
    override the split; `host_memory` bytes decide whether slabs are kept in RAM (CUDA only); `prefill_span`
    caps the prompt tokens of one sequence in one revolution.
    Raises ModelError, UnavailableError (no such device, or a cap too small, with the minimum).
    """
    pack_dir = _pack_dir(Path(model_dir))
    target = _device(device)
    manifest, tokenizer, trace = Manifest.load(pack_dir), Tokenizer.load(pack_dir), Trace(timeline=timeline)
    arithmetic = Numerics(numerics or manifest.default_numerics, target)
    dense = _load_dense(pack_dir, manifest.geometry, arithmetic, target)
    batch = max_batch or DEFAULT_MAX_BATCH
    dense_nbytes = sum(tensor.nbytes for tensor in dense.values())
    plan = _plan(manifest, arithmetic, dense_nbytes, device_memory, batch)
    placement = _override(plan.placement, manifest, ring_slots, resident_share)
    fits_in_ram = host_memory is None or host_memory >= manifest.experts_nbytes
    kind = tier or ("ram" if target.type == "cuda" and fits_in_ram else "disk")
    source = open_tier(manifest, pack_dir, target, kind, trace)
    experts = open_experts(manifest, source, placement, target, trace, rotor=rotor)
    return RotaryEngine(
        manifest=manifest,
        decoder=Mixtral(manifest.geometry, dense, experts, arithmetic, manifest.context_tokens, trace),
        experts=experts,
        tier=source,
        kv=KvArena(manifest.geometry, plan.kv_tokens, arithmetic.dtype, target),
        trace=trace,
        stop_ids=tokenizer.stop_ids | frozenset(manifest.geometry.eos_ids),
        max_batch=batch,
        prefill_tokens=plan.prefill_tokens,
        span_tokens=prefill_span,
    )


def _pack_dir(model_dir: Path) -> Path:
    if (model_dir / MANIFEST_NAME).is_file():
        return model_dir
    return pack_into_cache(model_dir, cache_dir(os.environ) / "packs")


def _device(name: str) -> torch.device:
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise UnavailableError(f"--device {name}: torch {torch.__version__} finds no CUDA device; use --device cpu")
    return torch.device(name)


def _load_dense(
    pack_dir: Path, geometry: Geometry, numerics: Numerics, device: torch.device
) -> dict[str, torch.Tensor]:
    """One tensor at a time, so that the peak is the sum and not twice the sum."""
    path = pack_dir / DENSE_NAME
    try:
        with safe_open(str(path), framework="pt") as file:
            names = set(file.keys())
            if missing := geometry.dense_shapes().keys() - names:
                raise ModelError(f"{path}: lacks {min(missing)}; pack the model again")
            return {name: file.get_tensor(name).to(device, numerics.dtype) for name in geometry.dense_shapes()}
    except OSError as error:
        raise ModelError(f"{path}: {error}; see `model verify`") from error


def _plan(manifest: Manifest, numerics: Numerics, dense_nbytes: int, device_memory: int | None, max_batch: int) -> Plan:
    geometry = manifest.geometry
    kv_token_nbytes = geometry.kv_token_params * numerics.dtype.itemsize
    wanted = max_batch * min(manifest.context_tokens, SEQUENCE_TOKENS)
    if device_memory is None:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        fits = max(manifest.context_tokens, int(memory * MAX_KV_SHARE) // kv_token_nbytes)
        return Plan(place(len(manifest.slabs), manifest.slab_nbytes, None), min(wanted, fits), PREFILL_TOKENS)
    row_nbytes = WORKSPACE_ROW_COPIES * (geometry.hidden_size + geometry.intermediate_size) * 4
    scratch_nbytes = geometry.expert_params // 3 * numerics.dtype.itemsize
    prefill = min(PREFILL_TOKENS, max(64, device_memory // 8 // row_nbytes))
    left = device_memory - dense_nbytes - scratch_nbytes - prefill * row_nbytes
    needed = MIN_SLOTS * manifest.slab_nbytes + manifest.context_tokens * kv_token_nbytes
    if left < needed:
        raise UnavailableError(
            f"device memory of {device_memory:,} bytes: {manifest.name} needs {device_memory - left + needed:,} "
            f"(dense part {dense_nbytes:,}, {MIN_SLOTS} slots of {manifest.slab_nbytes:,}, KV of one sequence)"
        )
    # Everything goes to KV first, up to the batch; experts are pinned with what is left (see NOTES.md).
    kv_tokens = min(wanted, (left - MIN_SLOTS * manifest.slab_nbytes) // kv_token_nbytes)
    placement = place(len(manifest.slabs), manifest.slab_nbytes, left - kv_tokens * kv_token_nbytes)
    return Plan(placement, kv_tokens, prefill)


def _override(placement: Placement, manifest: Manifest, slots: int | None, share: float | None) -> Placement:
    if slots is None and share is None:
        return placement
    residents = round(len(manifest.slabs) * (share or 0.0))
    return Placement(residents, slots or max(MIN_SLOTS, placement.num_slots))
