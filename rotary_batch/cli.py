"""The commands as they are typed: parse, call one function, print.

Knows options, exit codes and which printer belongs to which answer; everything else is below.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="rotary-batch",
    help="Document whole codebases overnight with a Mixture-of-Experts model larger than the GPU.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
)
model_app = typer.Typer(help="Prepare a model and look at it.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(model_app, name="model")

Repos = Annotated[
    list[Path] | None,
    typer.Argument(metavar="[REPO...]", help="Folders to read; default: the repository around this folder."),
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
HostMemory = Annotated[str | None, typer.Option(help="RAM for expert weights, e.g. 64GB.")]
MaxBatch = Annotated[int | None, typer.Option(min=1, help="The most live sequences.")]
Numerics = Annotated[str | None, typer.Option(help="exact or fast.")]
Kv = Annotated[str | None, typer.Option(help="Type of the KV cache: bf16.")]
Until = Annotated[str | None, typer.Option(help="Stop at this time of day, e.g. 07:00.")]
For = Annotated[str | None, typer.Option("--for", help="Stop after this long, e.g. 30m.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Take up at most so many items.")]
