"""`model pack`, `model info` and `model verify`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rotary_batch import commands, console
from rotary_batch.cli.answers import print_answer
from rotary_batch.cli.options import Dense, Json, PackPath
from rotary_batch.cli.progress import counting
from rotary_batch.config import ExpertFormat
from rotary_batch.errors import ModelError


def pack(
    src: Annotated[Path, typer.Argument(help="A Hugging Face checkpoint.")],
    dst: Annotated[Path, typer.Argument(help="The folder to make.")],
    experts: Annotated[ExpertFormat, typer.Option(help="Format of the experts.")] = "bf16",
    dense: Dense = "bf16",
) -> None:
    """Turn a checkpoint into a pack.

    Run it again after a kill to resume.
    """
    from rotary_batch.engine.packs.pack import pack

    with counting("packing the model") as progress:
        pack(src, dst, experts=experts, dense=dense, progress=progress)
    console.print_facts(commands.models.info(dst))


def info(path: PackPath = None, json: Json = False) -> None:
    """Show what a pack holds."""
    facts = commands.models.info(path or commands.packs.EMBEDDED)
    print_answer(facts, json, lambda: console.print_facts(facts))


def verify(path: PackPath = None) -> None:
    """Read every byte of a pack and compare digests."""
    from rotary_batch.engine.packs.pack import verify

    pack_dir = path or commands.packs.EMBEDDED
    with counting("reading the model") as progress:
        damaged = verify(pack_dir, progress)
    for name in damaged:
        console.err(f"damaged: {name}")
    if damaged:
        raise ModelError(f"{pack_dir}: {len(damaged)} parts are damaged; pack the model again")
    console.out("all digests match")
