"""The options that several commands share, each spelt and explained once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from rotary_batch.config import EXPERT_FORMATS

_formats = ", ".join(EXPERT_FORMATS)
Repos = Annotated[
    list[Path] | None,
    typer.Argument(metavar="[REPO...]", help="Folders to read; default: the repository around this folder."),
]
IndexedRepos = Annotated[
    list[Path] | None, typer.Argument(metavar="[REPO...]", help="Indexed repositories; default: all of them.")
]
OneRepo = Annotated[Path | None, typer.Argument(metavar="[REPO]", help="Default: the repository around this folder.")]
Config = Annotated[Path | None, typer.Option(help="Read this settings file instead of ./rotary.toml.")]
Db = Annotated[Path | None, typer.Option(help="The database file.")]
Model = Annotated[
    Path | None,
    typer.Option(help="A pack or a Hugging Face checkpoint; default: the embedded demonstration model."),
]
JobName = Annotated[str | None, typer.Option("--job", help="The job to run; default: summarize.")]
Out = Annotated[str | None, typer.Option(help="The docs folder inside the repository; default: rotary-docs.")]
Worktree = Annotated[bool | None, typer.Option("--worktree", help="Read the working tree instead of the last commit.")]
LinkTemplate = Annotated[str | None, typer.Option(help="URL of source lines, with {path}, {start} and {end}.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON to stdout.")]
Log = Annotated[Path | None, typer.Option(help="Append a log in JSON lines to this file.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda or cuda:N.")]
DeviceMemory = Annotated[str | None, typer.Option(help="Cap on all memory that is used on the device, e.g. 22GB.")]
HostMemory = Annotated[
    str | None,
    typer.Option(help="With a GPU: host memory for experts and KV cache, e.g. 48GB; default: 80 % of what is free."),
]
MaxBatch = Annotated[int | None, typer.Option(min=1, help="Work on at most N sequences at once.")]
Numerics = Annotated[str | None, typer.Option(help="exact or fast.")]
Kv = Annotated[str | None, typer.Option(help="Format of the KV cache: bf16 (as computed) or int8.")]
Experts = Annotated[
    str | None,
    typer.Option(help=f"Format of the experts: {_formats}. A checkpoint is packed in it; a pack must have it."),
]
ShapeName = Annotated[
    str | None,
    typer.Option(
        "--shape", help="Use random weights: small, medium, fine, mixtral-8x7b, mixtral-8x22b or qwen3-30b-a3b."
    ),
]
Dense = Annotated[Literal["bf16", "int8"], typer.Option(help="Format of attention, embeddings and head.")]
Until = Annotated[str | None, typer.Option(help="Stop at this time of day, e.g. 07:00.")]
For = Annotated[str | None, typer.Option("--for", help="Stop after this time, e.g. 30m.")]
PackPath = Annotated[Path | None, typer.Argument(help="Default: the embedded model.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Work on at most N items.")]
