"""`bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rotary_batch import commands, console
from rotary_batch.cli.answers import print_answer
from rotary_batch.cli.help import MACHINE, OUTPUT, WHAT, WHEN
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
    number,
)
from rotary_batch.cli.progress import counting
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
    sequences: Annotated[
        int | None, number(help="Work on N sequences at once.", group=WHAT, default="as planned")
    ] = None,
    lengths: Annotated[
        str,
        typer.Option(
            metavar="[short|job|N+N]",
            help="Prompt and new tokens of a sequence; short is 64+32, job is 600+100.",
            rich_help_panel=WHAT,
        ),
    ] = "short",
    drafts: Annotated[
        bool,
        typer.Option(
            help="Draft tokens by looking them up; always off with --shape.",
            show_default="on",
            rich_help_panel=WHAT,
        ),
    ] = True,
    prefetch: Annotated[
        bool,
        typer.Option(help="Load experts before the router chooses them.", show_default="on", rich_help_panel=WHAT),
    ] = True,
    prefill_revolutions: Annotated[
        int | None, number(help="Skip the rest of the prompts after N revolutions.", group=WHEN)
    ] = None,
    decode_revolutions: Annotated[
        int | None, number(help="Stop after N revolutions without prompts.", group=WHEN, least=2)
    ] = None,
    machine: Annotated[
        bool,
        typer.Option(
            "--machine", help="Measure only the machine, and store its rates for plan.", rich_help_panel=MACHINE
        ),
    ] = False,
    timeline: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Draw reads and compute (.svg), or write trace events for Perfetto (.json).",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Record what the routers choose (.jsonl).", rich_help_panel=OUTPUT),
    ] = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Measure the machine, or an engine versus its bound.

    The bound, or roofline, is the least time that the measured rates of the machine allow.

    Examples:
        rotary-batch bench --machine --device cuda
        rotary-batch bench --model ~/models/mixtral-int4 --lengths job
        rotary-batch bench --shape small --experts int4 --sequences 32
    """
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
        with counting("writing experts") as progress:
            pack = commands.bench.pack_for(settings, shape, dense, progress)
        result = commands.bench.bench(settings, pack, options)
    facts = {name: value for name, value in result.items() if name != "weight_s"}
    print_answer(result, json, lambda: console.print_facts(facts))
