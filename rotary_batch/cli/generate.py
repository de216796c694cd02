"""`generate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rotary_batch import commands, console
from rotary_batch.cli.answers import print_answer
from rotary_batch.cli.help import OUTPUT
from rotary_batch.cli.options import Config, Device, DeviceMemory, Json, Kv, MaxBatch, Model, Numerics
from rotary_batch.cli.progress import counting
from rotary_batch.cli.settings import command_settings
from rotary_batch.sizes import count


def generate(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="Requests in the format of OpenAI's batch API.")],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Append the results to this JSONL file.", rich_help_panel=OUTPUT
        ),
    ],
    model: Model = None,
    device: Device = None,
    device_memory: DeviceMemory = None,
    max_batch: MaxBatch = None,
    numerics: Numerics = None,
    kv: Kv = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Answer a JSONL file of requests; rerun to resume.

    It uses the engine alone, without a repository or the database.

    Examples:
        rotary-batch generate in.jsonl -o out.jsonl
        rotary-batch generate in.jsonl -o out.jsonl --device cuda
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
    console.err(f"{count(written, 'result')} written to {output}; {count(failed, 'error')} in all")
    print_answer({"output": str(output), "written": written, "errors": failed}, json, lambda: None)
    raise typer.Exit(5 if failed else 0)
