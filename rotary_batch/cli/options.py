"""The options that several commands share, each spelt and explained once.

Knows how they are typed; knows nothing of what commands do with them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Repos = Annotated[
    list[Path] | None,
    typer.Argument(metavar="[REPO...]", help="Folders to read; default: the repository around this folder."),
]
IndexedRepos = Annotated[
    list[Path] | None, typer.Argument(metavar="[REPO...]", help="Indexed repositories; default: all of them.")
]
OneRepo = Annotated[Path | None, typer.Argument(metavar="[REPO]", help="Default: the repository around this folder.")]
Config = Annotated[Path | None, typer.Option(help="A settings file instead of ./rotary.toml.")]
Db = Annotated[Path | None, typer.Option(help="The database file.")]
Model = Annotated[
    Path | None,
    typer.Option(help="A pack or a Hugging Face checkpoint; default: the embedded demonstration model."),
]
JobName = Annotated[str | None, typer.Option("--job", help="The job to run; default: summarize.")]
Out = Annotated[str | None, typer.Option(help="The docs folder inside the repository; default: rotary-docs.")]
Worktree = Annotated[bool | None, typer.Option("--worktree", help="Read files as they are, not as committed.")]
LinkTemplate = Annotated[str | None, typer.Option(help="Link to source lines, with {path}, {start} and {end}.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON to stdout.")]
Log = Annotated[Path | None, typer.Option(help="Append JSON lines to this file.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda or cuda:N.")]
DeviceMemory = Annotated[str | None, typer.Option(help="Cap for everything on the device, e.g. 22GB.")]
HostMemory = Annotated[
    str | None,
    typer.Option(help="RAM beside a GPU for experts and keys, e.g. 48GB; default: 80 % of what is free."),
]
MaxBatch = Annotated[int | None, typer.Option(min=1, help="The most live sequences.")]
Numerics = Annotated[str | None, typer.Option(help="exact or fast.")]
Kv = Annotated[str | None, typer.Option(help="How keys and values are kept: bf16 (as computed) or int8.")]
Experts = Annotated[
    str | None, typer.Option(help="bf16, int8 or int4: what a checkpoint is packed as, what a pack must be.")
]
ShapeName = Annotated[
    str | None, typer.Option("--shape", help="Random weights: small, medium, fine, mixtral-8x7b or mixtral-8x22b.")
]
Dense = Annotated[Literal["bf16", "int8"], typer.Option(help="Attention, embeddings and head.")]
Until = Annotated[str | None, typer.Option(help="Stop at this time of day, e.g. 07:00.")]
For = Annotated[str | None, typer.Option("--for", help="Stop after this long, e.g. 30m.")]
PackPath = Annotated[Path | None, typer.Argument(help="Default: the embedded model.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Take up at most N items.")]
