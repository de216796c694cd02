"""Measure an engine, and compare it with the roofline that is computed from the rates of the machine.

Rates are measured before and stored.  The rates of the disk and of the link are measured again just before and just
after the run, because shared disks drift.
"""

from __future__ import annotations

import json
import random
import resource
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from rotary_batch.core import Request, StepReport
from rotary_batch.engine.engine import RotaryEngine
from rotary_batch.engine.measuring.measure import disk_nbytes_per_s, link_nbytes_per_s
from rotary_batch.engine.runtime.trace import Routing
from rotary_batch.errors import UsageError
from rotary_batch.model.geometry import Geometry
from rotary_batch.model.manifest import EXPERTS_NAME
from rotary_batch.model.rates import Rates
from rotary_batch.model.roofline import step_roofline

SAMPLE_NBYTES = 10**9  # of a pack's file that are read to measure the disk
LENGTHS = {"short": (64, 32), "job": (600, 100)}  # prompt and new tokens
WARM_UP_BATCHES = {"cpu": (16,), "cuda": (2, 16, 25, 40, 80, 160)}


class BenchLoad(NamedTuple):
    """What the engine is given to do."""

    sequences: int
    prompt_tokens: int  # of each sequence
    new_tokens: int
    prefill_steps: int | None = None  # after which the rest of the prompts is skipped; None = nothing is skipped
    decode_steps: int | None = None  # to stop after; None = all


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchSetup:
    """What was measured, on what."""

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
    in_host_memory: int  # experts; those that are neither there nor resident come from disk
    prefetch: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchSpeed:
    """How fast it was, and how fast the roofline allows it to be."""

    prefill_tokens_per_s: float
    bound_prefill_tokens_per_s: float
    decode_tokens_per_s: float
    decode_spread_s: tuple[float, float]  # fastest and slowest step
    bound_decode_tokens_per_s: float
    share_of_bound: float  # roofline of a decode step over its median time
    binding: str
    move_s: float  # of the roofline of a decode step
    compute_s: float
    link_bytes_per_s: float  # measured around the run
    moved_bytes_per_s: float  # in decode
    copying_bytes_per_s: float  # while a copy was in flight; 0 = copies were not timed


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchUsage:
    """Memory that it took, and what became of the slabs and drafts."""

    stall_s: float
    peak_device_bytes: int
    peak_host_bytes: int
    ring_hits: int  # slabs that were in a slot when the compute needed them
    late_prefetches: int  # that were being loaded
    fetches: int  # that were not
    wasted_prefetch_bytes: int
    bytes_to_host: int
    drafted_tokens: int
    accepted_tokens: int
    predicted_recall: float  # of the experts that the next layer needed; 0 = nothing was predicted


class BenchResult(NamedTuple):
    """All figures of one run."""

    setup: BenchSetup
    speed: BenchSpeed
    usage: BenchUsage

    def as_dict(self) -> dict[str, Any]:
        """Every figure by its name."""
        return asdict(self.setup) | asdict(self.speed) | asdict(self.usage)


def measure_engine(engine: RotaryEngine, pack_dir: Path, rates: Rates, load: BenchLoad) -> BenchResult:
    """Warm the engine up, run the load, and compare it with the roofline.

    Raises UsageError when no step decoded all sequences.
    """
    warm_up(engine)
    before, rates_before = engine.trace.totals(), rates_now(engine, pack_dir, rates)
    reports = run(engine, **load._asdict())
    rates = _mean(rates_before, rates_now(engine, pack_dir, rates))
    counters = {name: total - before[name] for name, total in reports[-1].counters.items()}
    return BenchResult(_setup(engine, load, rates), _speed(engine, load, reports, rates), _usage(engine, counters))


def warm_up(engine: RotaryEngine) -> None:
    """Load every slab once, which checks its digest, and let operators choose their algorithms.

    On CUDA kernels are compiled for numbers of rows: 8 prompt tokens each give an expert 4 to 320 of them.
    """
    engine.stop_ids = frozenset()
    vocabulary = engine.manifest.geometry.vocab_size
    for count in {min(count, engine.memory_plan.batch) for count in WARM_UP_BATCHES[engine.device.type]}:
        engine.generate([[(7 * n + i) % vocabulary for i in range(8)] for n in range(count)], 2)


def rates_now(engine: RotaryEngine, pack_dir: Path, rates: Rates) -> Rates:
    """The rates with those of the disk and of a CUDA device's link as they are this minute."""
    manifest, on_cpu = engine.manifest, rates.device == "cpu"
    if not on_cpu:
        rates = replace(rates, move_nbytes_per_s=link_nbytes_per_s(torch.device(rates.device)))
        if not engine.memory_plan.disk_nbytes(engine.footprint):
            return rates
    places = sorted(manifest.slabs.values())[: max(1, SAMPLE_NBYTES // manifest.slab_nbytes)]
    disk = disk_nbytes_per_s(pack_dir / EXPERTS_NAME, [(place.offset, place.nbytes) for place in places])
    return replace(rates, disk_nbytes_per_s=disk, move_nbytes_per_s=disk if on_cpu else rates.move_nbytes_per_s)


def _mean(one: Rates, other: Rates) -> Rates:
    return replace(
        one,
        move_nbytes_per_s=(one.move_nbytes_per_s + other.move_nbytes_per_s) / 2,
        disk_nbytes_per_s=(one.disk_nbytes_per_s + other.disk_nbytes_per_s) / 2,
    )


def run(
    engine: RotaryEngine,
    *,
    sequences: int,
    prompt_tokens: int,
    new_tokens: int,
    prefill_steps: int | None = None,
    decode_steps: int | None = None,
) -> list[StepReport]:
    """Take the sequences from prompt to end, all of them live at once; the reports of all steps.

    After `prefill_steps` the rest of the prompts is skipped: reading a KV cache takes the same time whatever it holds.
    The step that chooses the first tokens then is like no other and is not reported.  The run ends early after
    `decode_steps` steps without prompt tokens.
    """
    engine.stop_ids = frozenset()  # random weights stop at random
    draw = random.Random(0)
    vocabulary = engine.manifest.geometry.vocab_size
    for number in range(sequences):
        prompt = tuple(draw.randrange(vocabulary) for _ in range(prompt_tokens))
        engine.admit(Request(request_id=number, prompt_ids=prompt, max_new_tokens=new_tokens))
    reports: list[StepReport] = []
    while engine.num_live:
        if len(reports) == prefill_steps and engine.skip_prompts():
            engine.step()
        reports.append(engine.step())
        if decode_steps is not None and sum(not report.prefill_tokens for report in reports) >= decode_steps:
            break
    return reports


def _setup(engine: RotaryEngine, load: BenchLoad, rates: Rates) -> BenchSetup:
    manifest, memory_plan, options = engine.manifest, engine.memory_plan, engine.options
    return BenchSetup(
        shape=manifest.name,
        experts=manifest.experts,
        dense=manifest.dense,
        kv=options.kv,
        numerics=engine.numerics_mode,
        device=rates.device,
        device_memory=options.device_memory,
        tier=engine.tier_name,
        machine=rates.machine,
        prompt_tokens=load.prompt_tokens,
        new_tokens=load.new_tokens,
        sequences=load.sequences,
        residents=memory_plan.num_residents,
        ring_slots=memory_plan.num_slots,
        in_host_memory=memory_plan.num_host_slabs,
        prefetch=options.prefetch,
    )


def _speed(engine: RotaryEngine, load: BenchLoad, reports: Sequence[StepReport], rates: Rates) -> BenchSpeed:
    sequences, model, memory_plan = load.sequences, engine.footprint, engine.memory_plan
    prefill = [report for report in reports if report.prefill_tokens]
    decode = [report for report in reports if not report.prefill_tokens and len(report.new_tokens) == sequences]
    if not decode:
        raise UsageError(f"bench: no revolution decoded all {sequences} sequences; give more new tokens in --lengths")
    decode_rows, context = sequences * (1 + memory_plan.draft_tokens), load.prompt_tokens + load.new_tokens / 2
    decode_roofline = step_roofline(model, memory_plan, rates, decode_rows, 0, context)
    prefill_rows = min(memory_plan.prefill_tokens, sequences * load.prompt_tokens)
    prefill_roofline = step_roofline(model, memory_plan, rates, 0, prefill_rows, 0)
    step_s = statistics.median(report.step_s for report in decode)
    moved_nbytes = decode[-1].counters["bytes_moved"] - decode[0].counters["bytes_moved"]
    copies_s = [one.end_s - one.start_s for one in engine.trace.timeline if one.kind == "copy"]
    return BenchSpeed(
        prefill_tokens_per_s=sum(one.prefill_tokens for one in prefill) / sum(one.step_s for one in prefill),
        bound_prefill_tokens_per_s=prefill_rows / prefill_roofline.step_s,
        decode_tokens_per_s=statistics.mean(one.decode_tokens for one in decode) / step_s,
        decode_spread_s=(min(one.step_s for one in decode), max(one.step_s for one in decode)),
        bound_decode_tokens_per_s=sequences / decode_roofline.step_s,
        share_of_bound=decode_roofline.step_s / step_s,
        binding=decode_roofline.binding,
        move_s=decode_roofline.move_s,
        compute_s=decode_roofline.compute_s,
        link_bytes_per_s=rates.move_nbytes_per_s,
        moved_bytes_per_s=moved_nbytes / max(1e-9, sum(one.step_s for one in decode[1:])),
        copying_bytes_per_s=model.slab_nbytes / statistics.median(copies_s) if copies_s else 0.0,
    )


def _usage(engine: RotaryEngine, counters: Mapping[str, float]) -> BenchUsage:
    return BenchUsage(
        stall_s=counters["stall_s"],
        peak_device_bytes=peak_device_nbytes(engine),
        peak_host_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        ring_hits=int(counters["ring_hits"]),
        late_prefetches=int(counters["late_prefetches"]),
        fetches=int(counters["fetches"]),
        wasted_prefetch_bytes=int(counters["wasted_prefetches"]) * engine.footprint.slab_nbytes,
        bytes_to_host=int(counters["bytes_to_host"]),
        drafted_tokens=int(counters["drafted_tokens"]),
        accepted_tokens=int(counters["accepted_tokens"]),
        predicted_recall=counters["guessed_right"] / max(1, counters["asked_after_guess"]),
    )


def peak_device_nbytes(engine: RotaryEngine) -> int:
    """The peak of CUDA's allocator; on a CPU the sum of what the engine keeps: dense part, KV cache, slabs."""
    if engine.device.type == "cuda":
        return torch.cuda.max_memory_allocated(engine.device)
    model, memory_plan = engine.footprint, engine.memory_plan
    residents_nbytes = model.experts_nbytes - memory_plan.streamed_nbytes(model)
    return model.dense_nbytes + engine.kv_nbytes + residents_nbytes + memory_plan.num_slots * model.slab_nbytes


def save_routing(routing: Sequence[Routing], geometry: Geometry, path: Path) -> None:
    """One JSON line with the shape, then one for each layer of each step; benchmarks/cache_sim replays them."""
    head = {"layers": geometry.num_layers, "experts": geometry.num_experts, "top_k": geometry.top_k}
    lines = [json.dumps(head), *(json.dumps(step._asdict()) for step in routing)]
    path.write_text("\n".join(lines) + "\n")
