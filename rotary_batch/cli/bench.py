"""`bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rotary_batch import commands, console
from rotary_batch.cli.answers import print_answer
from rotary_batch.cli.options import (
    Config,
    Dense,
    Device,
    DeviceMemory,
    Experts,
    HostMemory,
    Json,
    Kv,
    MaxBatch,
    Model,
    Numerics,
    ShapeName,
)
from rotary_batch.cli.settings import command_settings


def bench(
    model: Model = None,
    shape: ShapeName = None,
    experts: Experts = None,
    dense: Dense = "bf16",
    kv: Kv = None,
    device: Device = None,
    device_memory: DeviceMemory = None,
    host_memory: HostMemory = None,
    max_batch: MaxBatch = None,
    numerics: Numerics = None,
    sequences: Annotated[int | None, typer.Option(min=1, help="Live sequences; default: as planned.")] = None,
    lengths: Annotated[str, typer.Option(help="short (64+32), job (600+100), or PROMPT+NEW tokens.")] = "short",
    drafts: Annotated[bool, typer.Option(help="Draft tokens by looking them up; never with --shape.")] = True,
    prefetch: Annotated[bool, typer.Option(help="Load experts before they are asked for.")] = True,
    prefill_revolutions: Annotated[
        int | None, typer.Option(min=1, help="Skip what is left of the prompts after so many revolutions.")
    ] = None,
    decode_revolutions: Annotated[
        int | None, typer.Option(min=2, help="Stop after so many revolutions of decoding alone; they are alike.")
    ] = None,
    machine: Annotated[bool, typer.Option("--machine", help="Measure the machine only, and keep its rates.")] = False,
    timeline: Annotated[Path | None, typer.Option(metavar="FILE.svg", help="Draw reads and compute.")] = None,
    trace: Annotated[Path | None, typer.Option(metavar="FILE.jsonl", help="Record what routers chose.")] = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Measure the machine, or an engine against its bound."""
    settings = command_settings(
        config,
        [],
        model=model,
        experts=experts,
        kv=kv,
        device=device,
        device_memory=device_memory,
        host_memory=host_memory,
        max_batch=max_batch,
        numerics=numerics,
    )
    if machine:
        result = commands.bench.machine(settings).as_dict()
    else:
        with console.progress_bar("experts written") as progress:
            pack = commands.bench.pack_for(settings, shape, dense, progress)
        options = commands.bench.BenchOptions(
            sequences=sequences,
            lengths=commands.bench.parse_lengths(lengths),
            timeline=timeline,
            routing=trace,
            drafts=drafts and shape is None,
            prefetch=prefetch,
            prefill_revolutions=prefill_revolutions,
            decode_revolutions=decode_revolutions,
        )
        result = commands.bench.bench(settings, pack, options)
    facts = {name: value for name, value in result.items() if name != "weight_s"}
    print_answer(result, json, lambda: console.print_facts(facts))
