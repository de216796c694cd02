"""`plan`: the work that is left, the time that it takes at the roofline, and the change that would help most.

The roofline is the least time that the measured rates of the machine allow; the arithmetic is in model/roofline.py.
No torch is needed: the rates are read from the cache that `bench --machine` fills.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from rotary_batch.commands.expecting import MIN_GAIN, Bound, expected
from rotary_batch.commands.groups import Group, SettingsOf, by_engine
from rotary_batch.commands.isolation import Failure, isolated
from rotary_batch.commands.jobs import find_job
from rotary_batch.commands.repositories import select_repositories
from rotary_batch.commands.step_costs import Pace
from rotary_batch.config import Settings, cache_dir
from rotary_batch.errors import ModelError, UnavailableError
from rotary_batch.model.footprint import Footprint, Workload, footprint
from rotary_batch.model.host import allowed_nbytes, physical_nbytes
from rotary_batch.model.manifest import ORIGINAL, Manifest
from rotary_batch.model.memory_plan import DEFAULT_BATCH, HOST_MEMORY_SHARE, MEMORY_SHARE, MemoryPlan, host_nbytes_for
from rotary_batch.model.memory_planner import plan_memory
from rotary_batch.model.rates import Rates, cached_rates
from rotary_batch.model.roofline import drain_s, steady_prefill_rows, step_roofline, tokens_per_s
from rotary_batch.model.slabs import uniform_layout
from rotary_batch.work import counts
from rotary_batch.work.rows import RepositoryRow, Speed
from rotary_batch.work.store import WorkStore

NIGHT_S = 8 * 3600


def plan_with(
    store: WorkStore, settings: Settings, manifest: Manifest, roots: Sequence[Path], window_s: float | None
) -> dict[str, Any]:
    """What is left, and how long another model would take for it: the tokens are counted as the indexed model does.

    Raises UnavailableError when the model does not fit.
    """
    rows = select_repositories(store, roots)
    longest = find_job(settings, manifest).longest_rollup_tokens(manifest.context_tokens)
    workload = counts.workload(store, [row.id for row in rows], longest)
    models = [] if workload is None else [forecast(manifest, settings, workload, window_s)]
    return _answer(store, rows, models, (), ())


def plan(
    store: WorkStore, settings_of: SettingsOf, roots: Sequence[Path], window_s: float | None, failures: list[Failure]
) -> dict[str, Any]:
    """What is left, in items and tokens; with measured rates also in hours.  `window_s` is the time to the deadline.

    Repositories are grouped as `drain` does.  One that cannot be planned becomes a Failure in `failures`.
    """
    rows = select_repositories(store, roots)
    groups = by_engine(rows, settings_of, failures)
    models: list[dict[str, Any]] = []
    for group in groups:
        with isolated([row.root for row in group.rows], failures):
            models += plan_group(store, group, window_s)
    return _answer(store, rows, models, [note for group in groups for note in group.notes], failures)


def _answer(
    store: WorkStore,
    rows: Sequence[RepositoryRow],
    models: Sequence[dict[str, Any]],
    notes: Sequence[str],
    failures: Sequence[Failure],
) -> dict[str, Any]:
    return {
        "repositories": [
            {"root": row.root, "model": row.model_name, "open": counts.open_tokens(store, row.id)} for row in rows
        ],
        "models": list(models),
        "notes": list(notes),
        "failures": [failure.as_dict() for failure in failures],
    }


def plan_group(store: WorkStore, group: Group, window_s: float | None) -> list[dict[str, Any]]:
    """The forecast of one model; empty when nothing is left to do."""
    manifest = group.manifest
    longest = find_job(group.settings, manifest).longest_rollup_tokens(manifest.context_tokens)
    workload = counts.workload(store, [row.id for row in group.rows], longest)
    if workload is None:
        return []
    speed = counts.last_speed(store, manifest.name, group.settings.device)
    rates = cached_rates(group.settings.device, cache_dir(os.environ))
    task = None if rates is None else _Task(manifest=manifest, settings=group.settings, workload=workload, rates=rates)
    return [
        forecast(manifest, group.settings, workload, window_s)
        | as_last_run(speed, workload)
        | expected(store, group, window_s, None if task is None else task.at_bound())
    ]


def seconds_for(store: WorkStore, group: Group) -> float | None:
    """About how long a drain of these repositories takes; None when it is not known, or when they do not fit."""
    with suppress(UnavailableError):
        for model in plan_group(store, group, None):
            hours = model.get("hours_as_last_run", model.get("hours"))
            return None if hours is None else 3600 * float(hours)
    return None


def as_last_run(speed: Speed | None, workload: Workload) -> dict[str, Any]:
    """The time that it takes at the speed of the last run of this model; empty when there was none."""
    if speed is None:
        return {}
    tokens = workload.num_items * (workload.prefill_tokens + workload.new_tokens)
    return {
        "last_run": speed.at,
        "last_run_tokens_per_s": speed.tokens_per_s,
        "hours_as_last_run": tokens / speed.tokens_per_s / 3600,
    }


def forecast(manifest: Manifest, settings: Settings, workload: Workload, window_s: float | None) -> dict[str, Any]:
    """How one model takes the work; without rates only the number of items."""
    rates = cached_rates(settings.device, cache_dir(os.environ))
    summary = {
        "model": manifest.name,
        "experts": manifest.experts,
        "device": settings.device,
        "items": workload.num_items,
    }
    if rates is None:
        return summary | {"needs": f"bench --machine --device {settings.device}"}
    task = _Task(manifest=manifest, settings=settings, workload=workload, rates=rates)
    setup = task.setup()
    seconds = task.drain_s(setup)
    return (
        summary
        | {"rates": rates.told(), "numerics": "exact" if task.is_exact else "fast"}
        | task.memory(setup)
        | task.roofline(setup)
        | {
            "hours": seconds / 3600,
            "nights": seconds / NIGHT_S,
            "items_by_deadline": None if window_s is None else int(workload.num_items * min(1.0, window_s / seconds)),
            "best_next": task.best_next(),
        }
    )


class _Setup(NamedTuple):
    """One way to run a model, and what it may use."""

    model: Footprint
    device_nbytes: int
    host_nbytes: int
    batch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task:
    """The work of one model on a machine with measured rates."""

    manifest: Manifest
    settings: Settings
    workload: Workload
    rates: Rates

    @property
    def is_exact(self) -> bool:
        return (self.settings.numerics or self.manifest.default_numerics) == "exact"

    def setup(self) -> _Setup:
        """As the settings say, or as an engine would choose on this machine when nothing else runs there."""
        settings, rates = self.settings, self.rates
        sizes = (4, 4) if self.is_exact else (2, rates.activation_nbytes)
        model = footprint(self.manifest, settings.kv, *sizes, settings.device)
        kind, free = settings.device.partition(":")[0], allowed_nbytes()
        default = int((free if kind == "cpu" else rates.device_memory_nbytes) * MEMORY_SHARE[kind])
        return _Setup(
            model,
            device_nbytes=settings.device_memory or default,
            host_nbytes=host_nbytes_for(kind, settings.host_memory, free, model.slab_nbytes),
            batch=settings.max_batch or DEFAULT_BATCH,
        )

    def memory_plan(self, setup: _Setup) -> MemoryPlan:
        """Raises UnavailableError when the model does not fit."""
        return plan_memory(setup.model, setup.device_nbytes, setup.batch, self.workload, self.rates, setup.host_nbytes)

    def drain_s(self, setup: _Setup) -> float:
        """Seconds for all the work."""
        return drain_s(setup.model, self.memory_plan(setup), self.rates, self.workload)

    def memory(self, setup: _Setup) -> dict[str, Any]:
        """What is kept where."""
        memory_plan = self.memory_plan(setup)
        return {
            "device_memory": setup.device_nbytes,
            "batch": memory_plan.batch,
            "residents": memory_plan.num_residents,
            "ring_slots": memory_plan.num_slots,
            "in_host_memory": memory_plan.num_host_slabs,
            "from_disk": memory_plan.disk_nbytes(setup.model) // setup.model.slab_nbytes,
            "device_kv_tokens": memory_plan.kv_tokens,
            "host_kv_tokens": memory_plan.host_kv_tokens,
            "prefill_tokens": memory_plan.prefill_tokens,
            "draft_tokens": memory_plan.draft_tokens,
        }

    def roofline(self, setup: _Setup) -> dict[str, Any]:
        """The least time of a step in the middle of the run, and the tokens per second that follow from it."""
        memory_plan, workload = self.memory_plan(setup), self.workload
        prefill_rows = steady_prefill_rows(memory_plan, workload)
        step = step_roofline(
            setup.model, memory_plan, self.rates, memory_plan.batch, prefill_rows, workload.mean_context_tokens
        )
        return {
            "revolution_s": step.step_s,
            "move_s": step.move_s,
            "compute_s": step.compute_s,
            "binding": step.binding,
            "decode_tokens_per_s": tokens_per_s(setup.model, memory_plan, self.rates, workload),
        }

    def best_next(self) -> str | None:
        """The change that shortens the run most; None when none helps enough to mention."""
        gain, name = max(self.gains(), default=(1.0, ""))
        return f"{name}: {gain:.1f}x" if gain >= MIN_GAIN else None

    def gains(self) -> list[tuple[float, str]]:
        """How many times as fast each change makes the run."""
        setup, gains = self.setup(), []
        seconds = self.drain_s(setup)
        for name, alternative in self._alternatives(setup):
            with suppress(UnavailableError):
                gains.append((seconds / self.drain_s(alternative), name))
        return gains

    def at_bound(self) -> Bound:
        """The pace of an engine that reaches the roofline: step times on a straight line around a full batch."""
        setup = self.setup()
        memory_plan, context = self.memory_plan(setup), self.workload.mean_context_tokens

        def step_s(decode_rows: float, prefill_rows: float) -> float:
            return step_roofline(setup.model, memory_plan, self.rates, decode_rows, prefill_rows, context).step_s

        batch, most = memory_plan.batch, memory_plan.prefill_tokens
        full_s = step_s(batch, 0)
        generated_s = (full_s - step_s(batch / 2, 0)) / (batch / 2)
        pace = Pace(
            step_s=full_s - batch * generated_s,
            prompt_token_s=(step_s(batch, most) - full_s) / most,
            generated_token_s=generated_s,
            step_tokens=1.0,
            most_prompt_tokens=most,
            read_share=1.0,
            full_batch=batch,
            seconds=0.0,
        )
        return Bound(pace, [] if self.is_exact else self.gains(), is_reachable=not self.is_exact)

    def _alternatives(self, setup: _Setup) -> Iterator[tuple[str, _Setup]]:
        model, settings, manifest = setup.model, self.settings, self.manifest
        for experts in ("int8", "int4") if manifest.experts != ORIGINAL else ():
            with suppress(ModelError):  # rows that the format cannot cut
                if model.slab_nbytes > (nbytes := uniform_layout(manifest.geometry, experts).nbytes):
                    total = nbytes * model.num_slabs
                    smaller = replace(model, experts=experts, slab_nbytes=nbytes, experts_nbytes=total)
                    yield f"{experts} experts", setup._replace(model=smaller)
        if settings.kv == "bf16":
            int8 = footprint(manifest, "int8", model.number_nbytes, model.activation_nbytes, settings.device)
            yield "--kv int8", setup._replace(model=replace(model, kv="int8", kv_token_nbytes=int8.kv_token_nbytes))
        if self.is_exact:
            fast = footprint(manifest, settings.kv, 2, self.rates.activation_nbytes, settings.device)
            yield "--numerics fast", setup._replace(model=fast)
        yield f"--max-batch {2 * setup.batch}", setup._replace(batch=2 * setup.batch)
        device, host = 2 * setup.device_nbytes, 2 * setup.host_nbytes
        yield f"--device-memory {device / 1e9:.0f}GB", setup._replace(device_nbytes=device)
        if host <= physical_nbytes() * HOST_MEMORY_SHARE:
            yield f"--host-memory {host / 1e9:.0f}GB", setup._replace(host_nbytes=host)
