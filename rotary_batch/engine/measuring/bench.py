"""Measure an engine beside the bound that the budget planner computes for it.

Knows phases and clocks; knows nothing of tables or of where a pack came from.  The bound comes from the machine's
rates, measured before, and the model's byte counts; the disk's rate is taken from the pack's own file just before
and just after the run, because disks that are shared drift.
"""

from __future__ import annotations

import json
import random
import resource
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from rotary_batch.core import Request, StepReport
from rotary_batch.engine.engine import RotaryEngine
from rotary_batch.engine.measuring.measure import disk_nbytes_per_s, link_nbytes_per_s
from rotary_batch.engine.runtime.trace import Routing
from rotary_batch.errors import UsageError
from rotary_batch.model.geometry import Geometry
from rotary_batch.model.manifest import EXPERTS_NAME
from rotary_batch.model.rates import Rates
from rotary_batch.model.roofline import bound

SAMPLE_NBYTES = 10**9  # of a pack's file that are read to learn the disk's rate
LENGTHS = {"short": (64, 32), "job": (600, 100)}  # prompt and new tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchResult:
    """What one run showed."""

    shape: str
    experts: str
    dense: str
    kv: str
    numerics: str
    device: str
    device_memory: int | None
    tier: str
    machine: str
    prompt_tokens: int
    new_tokens: int
    sequences: int
    residents: int
    ring_slots: int
    in_host_memory: int  # experts; what is neither there nor resident comes from disk
    prefill_tokens_per_s: float
    bound_prefill_tokens_per_s: float
    decode_tokens_per_s: float
    decode_spread_s: tuple[float, float]  # fastest and slowest revolution
    bound_decode_tokens_per_s: float
    share_of_bound: float  # the least time of a decode revolution over its median time
    binding: str
    move_s: float  # of the decode bound
    compute_s: float
    link_bytes_per_s: float  # measured beside the run
    moved_bytes_per_s: float  # in decode
    copying_bytes_per_s: float  # while a copy was under way; 0 = no timeline of copies was kept
    stall_s: float
    peak_device_bytes: int
    peak_host_bytes: int
    ring_hits: int  # slabs that lay in a slot when they were asked for,
    late_prefetches: int  # that were on their way,
    fetches: int  # and that nobody had sent for
    wasted_prefetch_bytes: int
    bytes_to_host: int
    drafted_tokens: int
    accepted_tokens: int
    predicted_recall: float  # of what the next layer asked for; 0 = nothing was guessed
    prefetch: bool

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def rates_now(engine: RotaryEngine, pack_dir: Path, rates: Rates) -> Rates:
    """The rates with what experts come over as it is this minute: the link of a CUDA device, the disk."""
    manifest, on_cpu = engine.manifest, rates.device == "cpu"
    if not on_cpu:
        rates = replace(rates, move_nbytes_per_s=link_nbytes_per_s(torch.device(rates.device)))
        if not engine.memory_plan.disk_nbytes(engine.footprint):
            return rates
    places = sorted(manifest.slabs.values())[: max(1, SAMPLE_NBYTES // manifest.slab_nbytes)]
    found = disk_nbytes_per_s(pack_dir / EXPERTS_NAME, [(place.offset, place.nbytes) for place in places])
    return replace(rates, disk_nbytes_per_s=found, move_nbytes_per_s=found if on_cpu else rates.move_nbytes_per_s)


def run(
    engine: RotaryEngine,
    *,
    sequences: int,
    prompt_tokens: int,
    new_tokens: int,
    prefill_revolutions: int | None = None,
    decode_revolutions: int | None = None,
) -> list[StepReport]:
    """Take so many sequences from prompt to end, all of them live at once; the reports of all revolutions.

    After `prefill_revolutions` what is left of the prompts is skipped: their keys take the same time to read, whatever
    they hold.  The revolution that chooses the first tokens then is like no other and is not reported.
    After `decode_revolutions` with nothing but decode rows it is cut short.
    """
    engine.stop_ids = frozenset()  # random weights stop at random
    draw = random.Random(0)
    vocabulary = engine.manifest.geometry.vocab_size
    for number in range(sequences):
        prompt = tuple(draw.randrange(vocabulary) for _ in range(prompt_tokens))
        engine.admit(Request(request_id=number, prompt_ids=prompt, max_new_tokens=new_tokens))
    reports: list[StepReport] = []
    while engine.num_live:
        if len(reports) == prefill_revolutions and engine.skip_prompts():
            engine.step()
        reports.append(engine.step())
        if decode_revolutions is not None and sum(not one.prefill_tokens for one in reports) >= decode_revolutions:
            break
    return reports


def figures(  # noqa: PLR0913 - everything that was asked for
    engine: RotaryEngine,
    reports: Sequence[StepReport],
    *,
    before: Rates,
    after: Rates,
    sequences: int,
    prompt_tokens: int,
    new_tokens: int,
    kv: str,
    device_memory: int | None,
    prefetch: bool,
    counters_before: Mapping[str, float],
) -> BenchResult:
    """BenchResult of a run, beside the bound; what was counted before it does not count.

    Raises UsageError when sequences ended before all of them were read.
    """
    model, budget, manifest = engine.footprint, engine.memory_plan, engine.manifest
    rates = replace(
        before,
        move_nbytes_per_s=(before.move_nbytes_per_s + after.move_nbytes_per_s) / 2,
        disk_nbytes_per_s=(before.disk_nbytes_per_s + after.disk_nbytes_per_s) / 2,
    )
    filling = [report for report in reports if report.prefill_tokens]
    decoding = [report for report in reports if not report.prefill_tokens and len(report.new_tokens) == sequences]
    if not decoding:
        raise UsageError(f"bench: no revolution decoded all {sequences} sequences; give more new tokens in --lengths")
    prefill_s = sum(report.step_s for report in filling)
    num_prefill = sum(report.prefill_tokens for report in filling)
    step_s = statistics.median(report.step_s for report in decoding)
    decoded = statistics.mean(report.decode_tokens for report in decoding)
    least = bound(model, budget, rates, sequences * (1 + budget.draft_tokens), 0, prompt_tokens + new_tokens / 2)
    rows = min(budget.prefill_tokens, sequences * prompt_tokens)
    least_prefill = bound(model, budget, rates, 0, rows, 0)
    counters = {name: total - counters_before[name] for name, total in reports[-1].counters.items()}
    moved = decoding[-1].counters["bytes_moved"] - decoding[0].counters["bytes_moved"]
    copies = [one.end_s - one.start_s for one in engine.trace.timeline if one.kind == "copy"]
    return BenchResult(
        shape=manifest.name,
        experts=manifest.experts,
        dense=manifest.dense,
        kv=kv,
        numerics=engine.numerics_mode,
        device=before.device,
        device_memory=device_memory,
        tier=engine.tier_name,
        machine=before.machine,
        prompt_tokens=prompt_tokens,
        new_tokens=new_tokens,
        sequences=sequences,
        residents=budget.num_residents,
        ring_slots=budget.num_slots,
        in_host_memory=budget.num_hosted,
        prefill_tokens_per_s=num_prefill / prefill_s,
        bound_prefill_tokens_per_s=rows / least_prefill.revolution_s,
        decode_tokens_per_s=decoded / step_s,
        decode_spread_s=(min(r.step_s for r in decoding), max(r.step_s for r in decoding)),
        bound_decode_tokens_per_s=sequences / least.revolution_s,
        share_of_bound=least.revolution_s / step_s,
        binding=least.binding,
        move_s=least.move_s,
        compute_s=least.compute_s,
        link_bytes_per_s=rates.move_nbytes_per_s,
        moved_bytes_per_s=moved / max(1e-9, sum(report.step_s for report in decoding[1:])),
        copying_bytes_per_s=manifest.slab_nbytes / statistics.median(copies) if copies else 0.0,
        stall_s=counters["stall_s"],
        peak_device_bytes=peak_device_nbytes(engine),
        peak_host_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        ring_hits=int(counters["ring_hits"]),
        late_prefetches=int(counters["late_prefetches"]),
        fetches=int(counters["fetches"]),
        wasted_prefetch_bytes=int(counters["wasted_prefetches"]) * manifest.slab_nbytes,
        bytes_to_host=int(counters["bytes_to_host"]),
        drafted_tokens=int(counters["drafted_tokens"]),
        accepted_tokens=int(counters["accepted_tokens"]),
        predicted_recall=counters["guessed_right"] / max(1, counters["asked_after_guess"]),
        prefetch=prefetch,
    )


def peak_device_nbytes(engine: RotaryEngine) -> int:
    """What CUDA's allocator saw at most; on a CPU what the engine keeps there: dense part, keys, slots, residents."""
    if engine.device.type == "cuda":
        return torch.cuda.max_memory_allocated(engine.device)
    slots = engine.memory_plan.num_residents + engine.memory_plan.num_slots
    return engine.footprint.dense_nbytes + engine.kv_nbytes + slots * engine.footprint.slab_nbytes


def save_routing(routing: Sequence[Routing], geometry: Geometry, target: Path) -> None:
    """One JSON line for the shape, then one for each layer of each revolution; benchmarks/cache_sim replays them."""
    head = {"layers": geometry.num_layers, "experts": geometry.num_experts, "top_k": geometry.top_k}
    lines = [json.dumps(head), *(json.dumps(step._asdict()) for step in routing)]
    target.write_text("\n".join(lines) + "\n")


def warm_up(engine: RotaryEngine) -> None:
    """Touch every slab once (its digest is checked then) and let operators make their choices.

    On CUDA kernels are compiled for numbers of rows: 8 prompt tokens each give an expert 4 to 160 of them.
    """
    engine.stop_ids = frozenset()
    vocabulary = engine.manifest.geometry.vocab_size
    batch = engine.memory_plan.batch
    for count in {min(count, batch) for count in ((2, 16, 25, 40, 80) if engine.device.type == "cuda" else (16,))}:
        engine.generate([[(7 * n + i) % vocabulary for i in range(8)] for n in range(count)], 2)
