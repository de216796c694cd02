"""`bench`: measure the machine, or an engine against its roofline."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rotary_batch.commands.engines import engine_options
from rotary_batch.commands.packs import find_pack
from rotary_batch.config import Settings, cache_dir
from rotary_batch.errors import UnavailableError, UsageError
from rotary_batch.log import event
from rotary_batch.model.engine_options import EngineOptions
from rotary_batch.model.footprint import Workload
from rotary_batch.model.format_shares import formats_of
from rotary_batch.model.manifest import Manifest
from rotary_batch.model.memory_plan import DEFAULT_BATCH
from rotary_batch.model.rates import Rates, cached_rates, rates_path, save_rates
from rotary_batch.model.shapes import shape

if TYPE_CHECKING:
    from rotary_batch.engine.engine import RotaryEngine

Progress = Callable[[int, int], None]


def machine(settings: Settings) -> Rates:
    """Measure the machine and store the rates for `plan`, `run` and `bench`."""
    from rotary_batch.engine.measuring.measure import measure_machine

    cache = cache_dir(os.environ)
    rates = measure_machine(settings.device, cache)
    save_rates(rates, rates_path(settings.device, cache))
    return rates


def pack_for(settings: Settings, shape_name: str | None, dense: str, progress: Progress) -> Path:
    """The pack to measure: the settings' model, or random weights of a named shape, written once into the cache."""
    if shape_name is None:
        return find_pack(settings)
    if settings.model is not None:
        raise UsageError("bench: --shape and --model exclude each other")
    from rotary_batch.engine.packs.synthetic import synthetic_pack

    experts = settings.experts or "bf16"
    in_ram = settings.device != "cpu"  # the 72 GB of 8x22B need no disk space when they are copied from RAM
    name = f"{shape_name}-{experts}-{dense}{'-repeated' if in_ram else ''}"
    folder = cache_dir(os.environ) / "bench" / name
    return synthetic_pack(folder, shape_name, shape(shape_name), experts, dense, progress, repeated=in_ram)


class BenchOptions(NamedTuple):
    """What a run of `bench` does."""

    sequences: int | None  # None = as planned
    lengths: tuple[int, int]  # prompt and new tokens
    timeline: Path | None  # where to write it: a picture, or trace events if the name ends in .json
    routing: Path | None  # where to record it
    drafts: bool  # random weights repeat themselves: with them the success of drafts means nothing
    prefetch: bool
    prefill_revolutions: int | None  # after which the rest of the prompts is skipped; None = read all
    decode_revolutions: int | None  # to stop after; None = the whole length


def bench(settings: Settings, pack: Path, options: BenchOptions) -> dict[str, Any]:
    """The figures of one run, and the roofline.  Raises UnavailableError when `options.sequences` do not fit."""
    if options.sequences is not None and options.sequences > (settings.max_batch or options.sequences):
        raise UsageError(f"bench: --sequences {options.sequences} is more than --max-batch {settings.max_batch}")
    from rotary_batch.engine import build
    from rotary_batch.engine.measuring import bench as measuring

    rates = _rates(settings, Manifest.load(pack))
    engine = build.open_engine(pack, _engine_options(settings, options))
    try:
        prompt, new = options.lengths
        load = measuring.BenchLoad(
            sequences=_fitting_sequences(engine, options),
            prompt_tokens=prompt,
            new_tokens=new,
            prefill_steps=options.prefill_revolutions,
            decode_steps=options.decode_revolutions,
        )
        result = measuring.measure_engine(engine, pack, rates, load)
        if options.timeline is not None:
            from rotary_batch.engine.measuring.timeline import save_timeline

            save_timeline(engine.trace.timeline, options.timeline)
        if options.routing is not None:
            measuring.save_routing(engine.trace.routing, engine.manifest.geometry, options.routing)
    finally:
        engine.close()
    event("bench", **result.as_dict())
    return result.as_dict()


def _rates(settings: Settings, manifest: Manifest) -> Rates:
    """The stored rates, or new ones; formats of this model that they lack are measured and stored."""
    from rotary_batch.engine.measuring.measure import with_formats

    cache = cache_dir(os.environ)
    stored = cached_rates(settings.device, cache) or machine(settings)
    rates = with_formats(stored, formats_of(manifest))
    if rates is not stored:
        save_rates(rates, rates_path(settings.device, cache))
    return rates


def _engine_options(settings: Settings, options: BenchOptions) -> EngineOptions:
    prompt, new = options.lengths
    batch = options.sequences or settings.max_batch or DEFAULT_BATCH
    return replace(
        engine_options(settings, Workload(batch, prompt, new, prompt + new)),
        numerics=settings.numerics or "fast",
        max_batch=batch,
        least_batch=options.sequences or 1,
        draft_tokens=None if options.drafts else 0,
        prefetch=options.prefetch,
        timeline=options.timeline is not None,
        routing=options.routing is not None,
    )


def _fitting_sequences(engine: RotaryEngine, options: BenchOptions) -> int:
    """How many sequences run at once.  Raises UnavailableError when that is fewer than were asked for."""
    prompt, new = options.lengths
    fitting = min(engine.memory_plan.batch, engine.num_fitting(prompt + new - 1))
    if options.sequences is not None and fitting < options.sequences:
        raise UnavailableError(f"bench: {fitting} sequences of {prompt} + {new} tokens fit, not {options.sequences}")
    return fitting


def parse_lengths(text: str) -> tuple[int, int]:
    """Prompt and new tokens from `short`, `job` or PROMPT+NEW.  Raises UsageError."""
    from rotary_batch.engine.measuring.bench import LENGTHS

    if text in LENGTHS:
        return LENGTHS[text]
    prompt, _, new = text.partition("+")
    if not (prompt.isdigit() and new.isdigit() and int(prompt) > 0 and int(new) > 1):
        raise UsageError(
            f"--lengths: {text!r} is not a pair of lengths; write short, job, or prompt and new tokens like 600+100, "
            "with at least 2 new tokens"
        )
    return int(prompt), int(new)
