"""`plan`: what is left to do, how long it takes at the bound, what would help most.

Knows which alternatives are worth naming; the arithmetic is in model/roofline.py.  Needs no torch: the machine's rates
are read from the cache that `bench --machine` fills.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from rotary_batch.commands.database import chosen
from rotary_batch.commands.groups import SettingsOf, by_engine
from rotary_batch.commands.inputs import load_job_named
from rotary_batch.commands.isolation import Failure, isolated
from rotary_batch.config import Settings, cache_dir
from rotary_batch.errors import UnavailableError
from rotary_batch.model.footprint import Footprint, Workload, footprint
from rotary_batch.model.host import allowed_nbytes, physical_nbytes
from rotary_batch.model.manifest import Manifest
from rotary_batch.model.memory_plan import DEFAULT_BATCH, HOST_MEMORY_SHARE, MEMORY_SHARE, host_nbytes_for, plan_memory
from rotary_batch.model.rates import Rates, cached_rates
from rotary_batch.model.roofline import drain_s, steady_prefill_rows, step_roofline, tokens_per_s
from rotary_batch.model.slabs import slab_layout
from rotary_batch.work import counts
from rotary_batch.work.rows import Speed
from rotary_batch.work.store import WorkStore

NIGHT_S = 8 * 3600
MIN_GAIN = 1.05  # an alternative that helps less is not named


class Limits(NamedTuple):
    """What a plan may use."""

    device_nbytes: int
    batch: int
    host_nbytes: int


def plan(
    store: WorkStore, settings_of: SettingsOf, roots: Sequence[Path], window_s: float | None, failed: list[Failure]
) -> dict[str, Any]:
    """What is left, in items and tokens; with measured rates also in hours.  `window_s` = until the deadline.

    Repositories are grouped as `drain` does; one that cannot be planned is noted in `failed`.
    """
    rows = chosen(store, roots)
    groups, models = by_engine(rows, settings_of, failed), []
    for group in groups:
        with isolated([row.root for row in group.rows], failed):
            manifest, settings = Manifest.load(group.pack), group.settings
            longest = load_job_named(settings).longest_rollup_tokens(manifest.context_tokens)
            workload = counts.workload(store, [row.id for row in group.rows], longest)
            if workload is not None:
                speed = counts.last_speed(store, manifest.name, settings.device)
                models.append(forecast(manifest, settings, workload, window_s) | as_last_run(speed, workload))
    return {
        "repositories": [
            {"root": row.root, "model": row.model_name, "open": counts.open_tokens(store, row.id)} for row in rows
        ],
        "models": models,
        "notes": [note for group in groups for note in group.notes],
        "failures": [failure.as_dict() for failure in failed],
    }


def as_last_run(speed: Speed | None, workload: Workload) -> dict[str, Any]:
    """How long it takes at the speed of the last run of this model; nothing when there was none."""
    if speed is None:
        return {}
    tokens = workload.num_items * (workload.prompt_tokens + workload.new_tokens)
    return {
        "last_run": speed.at,
        "last_run_tokens_per_s": speed.tokens_per_s,
        "hours_as_last_run": tokens / speed.tokens_per_s / 3600,
    }


def forecast(manifest: Manifest, settings: Settings, workload: Workload, window_s: float | None) -> dict[str, Any]:
    """How one model takes the work; without rates only that it fits."""
    rates = cached_rates(settings.device, cache_dir(os.environ))
    found: dict[str, Any] = {
        "model": manifest.name,
        "experts": manifest.experts,
        "device": settings.device,
        "items": workload.num_items,
    }
    if rates is None:
        return found | {"needs": f"bench --machine --device {settings.device}"}
    exact = (settings.numerics or manifest.default_numerics) == "exact"
    model = footprint(manifest, settings.kv, *(4, 4) if exact else (2, rates.activation_nbytes), settings.device)
    limits = _limits(settings, rates, model.slab_nbytes)
    memory_plan = plan_memory(model, limits.device_nbytes, limits.batch, workload, rates, limits.host_nbytes)
    rows = steady_prefill_rows(memory_plan, workload)
    least = step_roofline(model, memory_plan, rates, memory_plan.batch, rows, workload.mean_context_tokens)
    seconds = drain_s(model, memory_plan, rates, workload)
    return found | {
        "rates": rates.told(),
        "numerics": "exact" if exact else "fast",
        "device_memory": limits.device_nbytes,
        "batch": memory_plan.batch,
        "residents": memory_plan.num_residents,
        "ring_slots": memory_plan.num_slots,
        "in_host_memory": memory_plan.num_hosted,
        "from_disk": memory_plan.disk_nbytes(model) // model.slab_nbytes,
        "device_kv_tokens": memory_plan.kv_tokens,
        "host_kv_tokens": memory_plan.host_kv_tokens,
        "prefill_tokens": memory_plan.prefill_tokens,
        "draft_tokens": memory_plan.draft_tokens,
        "revolution_s": least.step_s,
        "move_s": least.move_s,
        "compute_s": least.compute_s,
        "binding": least.binding,
        "decode_tokens_per_s": tokens_per_s(model, memory_plan, rates, workload),
        "hours": seconds / 3600,
        "nights": seconds / NIGHT_S,
        "items_by_deadline": None if window_s is None else int(workload.num_items * min(1.0, window_s / seconds)),
        "best_next": best_next(model, manifest, settings, limits, workload, rates, seconds),
    }


def _limits(settings: Settings, rates: Rates, slab_nbytes: int) -> Limits:
    """The settings', or as an engine would choose on this machine when nothing else runs there."""
    kind, free = settings.device.partition(":")[0], allowed_nbytes()
    memory = settings.device_memory or int((free if kind == "cpu" else rates.device_memory_nbytes) * MEMORY_SHARE[kind])
    host = host_nbytes_for(kind, settings.host_memory, free, slab_nbytes)
    return Limits(memory, settings.max_batch or DEFAULT_BATCH, host)


def best_next(
    model: Footprint,
    manifest: Manifest,
    settings: Settings,
    limits: Limits,
    workload: Workload,
    rates: Rates,
    seconds: float,
) -> str | None:
    """The change that shortens the night most; None when none is worth its name."""
    gains = []
    for name, other, given in _alternatives(model, manifest, settings, limits, rates):
        try:
            memory_plan = plan_memory(other, given.device_nbytes, given.batch, workload, rates, given.host_nbytes)
        except UnavailableError:
            continue
        gains.append((seconds / drain_s(other, memory_plan, rates, workload), name))
    gain, name = max(gains, default=(1.0, ""))
    return f"{name}: {gain:.1f}x" if gain >= MIN_GAIN else None


def _alternatives(
    model: Footprint, manifest: Manifest, settings: Settings, limits: Limits, rates: Rates
) -> Iterator[tuple[str, Footprint, Limits]]:
    geometry = manifest.geometry
    for experts in ("int8", "int4"):
        if model.slab_nbytes > (nbytes := slab_layout(geometry, experts).nbytes):
            yield f"{experts} experts", replace(model, experts=experts, slab_nbytes=nbytes), limits
    if settings.kv == "bf16":
        small = footprint(
            manifest, "int8", model.number_nbytes, model.activation_nbytes, settings.device
        ).kv_token_nbytes
        yield "--kv int8", replace(model, kv="int8", kv_token_nbytes=small), limits
    if model.number_nbytes == 4:
        yield "--numerics fast", footprint(manifest, settings.kv, 2, rates.activation_nbytes, settings.device), limits
    yield f"--max-batch {2 * limits.batch}", model, limits._replace(batch=2 * limits.batch)
    device, host = 2 * limits.device_nbytes, 2 * limits.host_nbytes
    yield f"--device-memory {device / 1e9:.0f}GB", model, limits._replace(device_nbytes=device)
    if host <= physical_nbytes() * HOST_MEMORY_SHARE:
        yield f"--host-memory {host / 1e9:.0f}GB", model, limits._replace(host_nbytes=host)
