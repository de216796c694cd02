"""The options that several commands share, each spelt and explained once.

`rich_help_panel` names the group of an option in `--help`, one of `help.GROUPS`.  A value has a `metavar` that says how
to write it: `[a|b]`, SIZE, HH:MM, DURATION, N, NAME, FILE or DIR.  A default is stated with `show_default`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import typer
from typer.models import OptionInfo

from rotary_batch.cli.help import GENERAL, MACHINE, MODEL, OUTPUT, WHAT, WHEN
from rotary_batch.config import DEFAULT_DOCS_DIR, DEFAULT_JOB, EXPERT_FORMATS, KV_FORMATS, NUMERICS, one_of
from rotary_batch.errors import ConfigError
from rotary_batch.model.shapes import SHAPES

DenseFormat = Literal["bf16", "int8"]
_MAX_FORM = 20  # characters of `[a|b|c]`
_AROUND = "the repository around this folder"


def reads(read: Callable[[str], Any]) -> Callable[[str], Any]:
    """A reader of `config` as the parser of an option."""

    def parse(text: str) -> Any:  # noqa: ANN401 - what the reader returns
        try:
            return read(text)
        except ConfigError as error:
            raise typer.BadParameter(str(error)) from error

    return parse


def choice(choices: Sequence[str], *names: str, help: str, group: str, default: str | None = None) -> OptionInfo:
    """An option that takes one of a few words; shells complete them.  Many words are listed in its text."""
    form = f"[{'|'.join(choices)}]"
    is_long = len(form) > _MAX_FORM
    option: OptionInfo = typer.Option(
        *names,
        help=f"{help} One of {', '.join(choices)}." if is_long else help,
        metavar="NAME" if is_long else form,
        parser=reads(one_of(*choices)),
        autocompletion=lambda: list(choices),
        show_default=default or False,
        rich_help_panel=group,
    )
    return option


def number(
    *names: str,
    help: str,
    group: str,
    least: int = 1,
    most: int | None = None,
    default: str | None = None,
) -> OptionInfo:
    """An option that takes a whole number from `least` to `most`."""
    option: OptionInfo = typer.Option(
        *names,
        help=help,
        metavar="N",
        parser=whole_number(least, most),
        show_default=default or True,
        rich_help_panel=group,
    )
    return option


def whole_number(least: int, most: int | None) -> Callable[[str | int], int]:
    """A parser of whole numbers in a range."""

    def parse(text: str | int) -> int:
        value = int(text) if isinstance(text, int) or (text.isascii() and text.isdigit() and len(text) < 19) else None
        if value is None or value < least or (most is not None and value > most):
            wanted = f"of at least {least}" if most is None else f"from {least} to {most}"
            raise typer.BadParameter(f"{text!r} is not a whole number {wanted}")
        return value

    return parse


Repos = Annotated[
    list[Path] | None,
    typer.Argument(metavar="[REPO...]", help="Repositories or folders to read.", show_default=_AROUND),
]
IndexedRepos = Annotated[
    list[Path] | None, typer.Argument(metavar="[REPO...]", help="Indexed repositories.", show_default="all of them")
]
OneRepo = Annotated[Path | None, typer.Argument(metavar="[REPO]", help="The repository.", show_default=_AROUND)]
JobName = Annotated[
    str | None,
    typer.Option("--job", metavar="NAME", help="The job to run.", show_default=DEFAULT_JOB, rich_help_panel=WHAT),
]
Worktree = Annotated[
    bool | None,
    typer.Option("--worktree", help="Read the working tree instead of the last commit.", rich_help_panel=WHAT),
]
Until = Annotated[
    str | None,
    typer.Option(metavar="HH:MM", help="Stop at this time of day, for example 07:00.", rich_help_panel=WHEN),
]
For = Annotated[
    str | None,
    typer.Option(
        "--for", metavar="DURATION", help="Stop after this long, for example 30m or 1h30m.", rich_help_panel=WHEN
    ),
]
Hours = Annotated[
    str | None,
    typer.Option(
        "--window",
        metavar="HH:MM-HH:MM",
        help="Work only between these times of day, for example 23:00-07:00.",
        rich_help_panel=WHEN,
    ),
]
Limit = Annotated[int | None, number(help="Start at most N items.", group=WHEN)]
Model = Annotated[
    Path | None,
    typer.Option(
        metavar="MODEL",
        help="A pack, a Hugging Face checkpoint, or a GGUF file.",
        show_default="the demonstration model",
        rich_help_panel=MODEL,
    ),
]
PackPath = Annotated[
    Path | None, typer.Argument(metavar="[PACK]", help="The folder of a pack.", show_default="the embedded model")
]
ModelPath = Annotated[
    Path | None,
    typer.Argument(
        metavar="[MODEL]",
        help="The folder of a pack or of a checkpoint, or a GGUF file.",
        show_default="the embedded model",
    ),
]
Numerics = Annotated[
    str | None,
    choice(
        NUMERICS,
        help="exact: answers do not depend on the batch. fast: higher speed.",
        group=MODEL,
        default="exact for plain models up to 1 GB, else fast",
    ),
]
Kv = Annotated[str | None, choice(KV_FORMATS, help="Format of the KV cache.", group=MODEL, default="bf16")]
Experts = Annotated[
    str | None,
    choice(
        EXPERT_FORMATS,
        help="Format of the experts. A checkpoint is packed in it; a pack must have it.",
        group=MODEL,
    ),
]
ShapeName = Annotated[
    str | None,
    choice(tuple(SHAPES), "--shape", help="Use random weights of this shape instead of a model.", group=MODEL),
]
Dense = Annotated[
    DenseFormat,
    choice(get_args(DenseFormat), help="Format of attention, embeddings and head.", group=MODEL, default="bf16"),
]
Device = Annotated[
    str | None,
    typer.Option(
        metavar="[cpu|cuda|cuda:N]",
        help="Where to compute.",
        autocompletion=lambda: ["cpu", "cuda", "cuda:0"],
        show_default="cpu",
        rich_help_panel=MACHINE,
    ),
]
DeviceMemory = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="Use at most this much memory on the device, for example 22GB.",
        show_default="90 % of a GPU's memory, 75 % of the free RAM",
        rich_help_panel=MACHINE,
    ),
]
HostMemory = Annotated[
    str | None,
    typer.Option(
        metavar="SIZE",
        help="With a GPU: RAM for experts and KV cache, for example 48GB.",
        show_default="80 % of the free RAM",
        rich_help_panel=MACHINE,
    ),
]
MaxBatch = Annotated[int | None, number(help="Maximum sequences in flight.", group=MACHINE, default="128")]
Ray = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS", help="Run the engines on a Ray cluster: auto, or HOST:PORT.", rich_help_panel=MACHINE
    ),
]
RayWorkers = Annotated[
    int | None, number(help="Engines on the Ray cluster.", group=MACHINE, default="as many as fit its nodes")
]
RayResource = Annotated[
    str | None,
    typer.Option(
        metavar="NAME[=N]",
        help="What an engine needs of its node, for example GPU=1.",
        show_default="GPU with cuda, else CPU",
        rich_help_panel=MACHINE,
    ),
]
InsecureRay = Annotated[
    bool | None, typer.Option("--insecure-ray", help="Join a Ray cluster without a token.", rich_help_panel=MACHINE)
]
Out = Annotated[
    str | None,
    typer.Option(
        metavar="DIR",
        help="Folder of the docs inside the repository.",
        show_default=DEFAULT_DOCS_DIR,
        rich_help_panel=OUTPUT,
    ),
]
LinkTemplate = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="URL of source lines, with {path}, {start} and {end}.",
        show_default="relative links",
        rich_help_panel=OUTPUT,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON to stdout.", rich_help_panel=OUTPUT)]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Print every figure at the end.", rich_help_panel=OUTPUT)
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.", rich_help_panel=OUTPUT)]
Log = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Append a log in JSON lines to this file.", rich_help_panel=OUTPUT),
]
Prometheus = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Write metrics of the run for Prometheus.", rich_help_panel=OUTPUT),
]
OnFinish = Annotated[
    str | None,
    typer.Option(
        metavar="COMMAND", help="At the end, run this command with the report on stdin.", rich_help_panel=OUTPUT
    ),
]
Db = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="The database.",
        show_default="~/.local/state/rotary-batch/work.db",
        rich_help_panel=GENERAL,
    ),
]
Config = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="The settings file.",
        show_default="./rotary.toml, else ~/.config/rotary-batch/rotary.toml",
        rich_help_panel=GENERAL,
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say what would be done, and write nothing.", rich_help_panel=OUTPUT)
]
