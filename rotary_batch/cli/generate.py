"""`generate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rotary_batch import commands, console
from rotary_batch.cli.options import Config, Device, DeviceMemory, Kv, MaxBatch, Model, Numerics
from rotary_batch.cli.progress import counting
from rotary_batch.cli.settings import command_settings


def generate(
    source: Annotated[Path, typer.Argument(metavar="IN.jsonl", help="OpenAI-batch requests.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="OUT.jsonl", help="Results are appended here.")],
    model: Model = None,
    device: Device = None,
    device_memory: DeviceMemory = None,
    max_batch: MaxBatch = None,
    numerics: Numerics = None,
    kv: Kv = None,
    config: Config = None,
) -> None:
    """Answer a file of requests with the engine alone.

    Run it again to resume.
    """
    settings = command_settings(
        config,
        [],
        model=model,
        device=device,
        device_memory=device_memory,
        max_batch=max_batch,
        numerics=numerics,
        kv=kv,
    )
    pack = commands.packs.find_pack(settings)
    from rotary_batch.model.tokens import Tokenizer

    tokenizer, options = Tokenizer.load(pack), commands.engines.engine_options(settings)
    with counting("answering") as progress:
        written, failed = commands.generate.generate(
            source, output, tokenizer, lambda: commands.engines.open_engine(pack, options), progress
        )
    console.err(f"{written} results written to {output}; {failed} errors in all")
    raise typer.Exit(5 if failed else 0)
