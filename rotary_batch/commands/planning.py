"""`plan`: what is left to do, how long it takes at the bound, what would help most.

Knows which alternatives are worth naming; the arithmetic is in model/budget.py.  Needs no torch: the machine's rates
are read from the cache that `bench --machine` fills.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

from rotary_batch.commands.draining import chosen
from rotary_batch.config import Settings, cache_dir
from rotary_batch.errors import UnavailableError
from rotary_batch.model.budget import (
    DEFAULT_BATCH,
    MEMORY_SHARE,
    bound,
    drain_s,
    fits_in_ram,
    host_room_nbytes,
    plan_memory,
    steady_prefill_rows,
    tokens_per_s,
)
from rotary_batch.model.footprint import Footprint, Workload, footprint
from rotary_batch.model.manifest import Manifest
from rotary_batch.model.rates import Rates, cached_rates
from rotary_batch.model.slabs import slab_layout
from rotary_batch.work import counts
from rotary_batch.work.store import WorkStore

NIGHT_S = 8 * 3600
MIN_GAIN = 1.05  # an alternative that helps less is not named


def plan(store: WorkStore, settings: Settings, roots: Sequence[Path], window_s: float | None) -> dict[str, Any]:
    """What is left, in items and tokens; with measured rates also in hours.  `window_s` = until the deadline."""
    rows = chosen(store, roots)
    models = []
    for pack, group in groupby(sorted(rows, key=attrgetter("pack_dir")), key=attrgetter("pack_dir")):
        manifest = Manifest.load(Path(pack))
        workload = counts.workload(store, [row.id for row in group], manifest)
        if workload is not None:
            models.append(forecast(manifest, settings, workload, window_s))
    return {
        "repositories": [
            {"root": row.root, "model": row.model_name, "open": counts.open_tokens(store, row.id)} for row in rows
        ],
        "models": models,
    }


def forecast(manifest: Manifest, settings: Settings, workload: Workload, window_s: float | None) -> dict[str, Any]:
    """How one model takes the work; without rates only that it fits."""
    rates = cached_rates(settings.device, cache_dir(os.environ))
    found: dict[str, Any] = {"model": manifest.name, "experts": manifest.experts, "device": settings.device,
                             "items": workload.num_items}  # fmt: skip
    if rates is None:
        return found | {"needs": f"bench --machine --device {settings.device}"}
    exact = (settings.numerics or manifest.default_numerics) == "exact"
    model = footprint(manifest, settings.kv, *(4, 4) if exact else (2, rates.activation_nbytes), settings.device)
    batch = settings.max_batch or DEFAULT_BATCH
    memory = settings.device_memory or int(rates.device_memory_nbytes * MEMORY_SHARE[settings.device.partition(":")[0]])
    in_ram = fits_in_ram(manifest, settings.host_memory)
    host = 0 if settings.device == "cpu" else host_room_nbytes(manifest, settings.host_memory, in_ram=in_ram)
    budget = plan_memory(model, memory, batch, workload, rates, host)
    rows = steady_prefill_rows(budget, workload)
    least = bound(model, budget, rates, budget.batch, rows, workload.mean_context_tokens)
    seconds = drain_s(model, budget, rates, workload)
    return found | {
        "device_memory": memory,
        "batch": budget.batch,
        "residents": budget.num_residents,
        "ring_slots": budget.num_slots,
        "device_kv_tokens": budget.kv_tokens,
        "host_kv_tokens": budget.host_kv_tokens,
        "prefill_tokens": budget.prefill_tokens,
        "draft_tokens": budget.draft_tokens,
        "revolution_s": least.revolution_s,
        "move_s": least.move_s,
        "compute_s": least.compute_s,
        "binding": least.binding,
        "decode_tokens_per_s": tokens_per_s(model, budget, rates, workload),
        "hours": seconds / 3600,
        "nights": seconds / NIGHT_S,
        "items_by_deadline": None if window_s is None else int(workload.num_items * min(1.0, window_s / seconds)),
        "best_next": best_next(model, manifest, settings, memory, host, batch, workload, rates, seconds),
    }  # fmt: skip


def best_next(  # noqa: PLR0913 - everything that a forecast stands on
    model: Footprint, manifest: Manifest, settings: Settings, memory: int, host: int, batch: int,
    workload: Workload, rates: Rates, seconds: float,
) -> str | None:  # fmt: skip
    """The change that shortens the night most; None when none is worth its name."""
    gains = []
    for name, other, memory_then, batch_then in _alternatives(model, manifest, settings, memory, batch, rates):
        try:
            budget = plan_memory(other, memory_then, batch_then, workload, rates, host)
        except UnavailableError:
            continue
        gains.append((seconds / drain_s(other, budget, rates, workload), name))
    gain, name = max(gains, default=(1.0, ""))
    return f"{name}: {gain:.1f}x" if gain >= MIN_GAIN else None


def _alternatives(
    model: Footprint, manifest: Manifest, settings: Settings, memory: int, batch: int, rates: Rates
) -> Iterator[tuple[str, Footprint, int, int]]:
    geometry = manifest.geometry
    for experts in ("int8", "int4"):
        if model.slab_nbytes > (nbytes := slab_layout(geometry, experts).nbytes):
            yield f"{experts} experts", replace(model, experts=experts, slab_nbytes=nbytes), memory, batch
    if settings.kv == "bf16":
        small = footprint(
            manifest, "int8", model.number_nbytes, model.activation_nbytes, settings.device
        ).kv_token_nbytes
        yield "--kv int8", replace(model, kv="int8", kv_token_nbytes=small), memory, batch
    if model.number_nbytes == 4:
        fast = footprint(manifest, settings.kv, 2, rates.activation_nbytes, settings.device)
        yield "--numerics fast", fast, memory, batch
    yield f"--max-batch {2 * batch}", model, memory, 2 * batch
    yield f"--device-memory {2 * memory / 1e9:.0f}GB", model, 2 * memory, batch
