"""`model pack`, `model info` and `model verify`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from rotary_batch import commands, console
from rotary_batch.cli.answers import print_answer
from rotary_batch.cli.help import MODEL
from rotary_batch.cli.options import Dense, Json, ModelPath, PackPath, choice
from rotary_batch.cli.progress import counting
from rotary_batch.config import EXPERT_FORMATS, ExpertFormat, Settings
from rotary_batch.errors import ModelError
from rotary_batch.sizes import count, size_text


def pack(
    src: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="The folder of a Hugging Face checkpoint, or a GGUF file.")
    ],
    dst: Annotated[Path, typer.Argument(metavar="PACK", help="The folder to write.")],
    experts: Annotated[
        ExpertFormat | None,
        choice(EXPERT_FORMATS, help="Format of the experts.", group=MODEL, default="the checkpoint's own"),
    ] = None,
    dense: Dense = "bf16",
    adapter: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Merge a LoRA adapter that PEFT saved.", rich_help_panel=MODEL),
    ] = None,
    json: Json = False,
) -> None:
    """Turn a checkpoint into a pack; rerun to resume.

    Examples:
        rotary-batch model pack ~/models/Mixtral-8x7B ~/models/int4 --experts int4
        rotary-batch model pack base.gguf mine --adapter my-lora
    """
    from rotary_batch.engine.packs.adapter import Adapted
    from rotary_batch.engine.packs.pack import pack
    from rotary_batch.engine.self_check import self_check

    src = commands.packs.model_folder(src)
    model = src if adapter is None else Adapted(src, adapter)
    with counting("packing the model") as progress:
        pack(model, dst, experts=experts, dense=dense, progress=progress, check=self_check)
    _print_info(dst, json)


def info(path: ModelPath = None, json: Json = False) -> None:
    """Show what a pack holds, or what the pack of a checkpoint or GGUF file would hold.

    Examples:
        rotary-batch model info ~/models/mixtral-int4
        rotary-batch model info ~/models/SmolLM2-135M-Instruct.Q4_1.gguf
    """
    _print_info(path and commands.packs.model_folder(path), json)


def _print_info(model: Path | None, json: bool) -> None:
    facts = commands.models.info(model)
    print_answer(facts, json, lambda: _print_facts(facts))


def _print_facts(facts: Mapping[str, Any]) -> None:
    console.print_facts({name: value for name, value in facts.items() if name not in {"formats", "notes"}})
    table = console.Table("How matrices are stored", "matrix", "stored as", "layers", "size")
    for row in facts["formats"]:
        table.row(row["matrix"], row["stored_as"], row["layers"], size_text(row["nbytes"]))
    table.print()
    for note in facts["notes"]:
        console.paragraph(note)


def verify(path: PackPath = None, json: Json = False) -> None:
    """Read every byte of a pack and compare its digests.

    Examples:
        rotary-batch model verify ~/models/mixtral-int4
    """
    from rotary_batch.engine.packs.pack import verify

    pack_dir = commands.packs.model_folder(path) if path else commands.packs.pack_folder(Settings())
    commands.models.require_pack(pack_dir)
    with counting("reading the model") as progress:
        damaged = verify(pack_dir, progress)
    for name in damaged:
        console.err(f"damaged: {name}")
    answer = {"path": str(pack_dir), "damaged": damaged}
    print_answer(answer, json, lambda: None if damaged else console.out("All digests match."))
    if damaged:
        raise ModelError(f"{pack_dir}: {count(len(damaged), 'part is', 'parts are')} damaged; pack the model again")
