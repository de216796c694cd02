"""`model calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rotary_batch import commands, console
from rotary_batch.cli.answers import print_answer
from rotary_batch.cli.help import WHAT
from rotary_batch.cli.options import Config, Device, DeviceMemory, JobName, Json, MaxBatch, Numerics, OneRepo, number
from rotary_batch.cli.progress import shown_progress
from rotary_batch.cli.settings import command_settings
from rotary_batch.window import Window, stop_on_signals

if TYPE_CHECKING:
    from rotary_batch.commands.calibrate import Calibrated

NumSymbols = Annotated[int, number("--symbols", help="Ask about N documented symbols.", group=WHAT, least=40)]
Target = Annotated[
    int,
    number(
        "--target",
        help="Show answers of which N in 100 are like what the authors say.",
        group=WHAT,
        least=1,
        most=99,
    ),
]


def calibrate(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A pack, a checkpoint, or a GGUF file.")],
    repo: OneRepo = None,
    num_symbols: NumSymbols = 200,
    target: Target = 50,
    job: JobName = None,
    device: Device = None,
    device_memory: DeviceMemory = None,
    max_batch: MaxBatch = None,
    numerics: Numerics = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Learn from documented symbols how sure a model must be.

    Their docstrings are hidden in a copy, and the model is asked for them. The threshold is stored next to the pack.
    The next `index` and `drain` judge stored answers by it; nothing is asked again but what reads other texts then.

    Examples:
        rotary-batch model calibrate ~/models/mixtral-int4 ~/src/app
        rotary-batch model calibrate ~/models/mixtral-int4 --symbols 500 --target 60
    """
    root = commands.repositories.repository_root(repo)
    settings = command_settings(
        config,
        [root],
        model=model,
        job=job,
        device=device,
        device_memory=device_memory,
        max_batch=max_batch,
        numerics=numerics,
    )
    window = Window()
    with stop_on_signals(window), shown_progress("reading files") as display:
        found = commands.calibrate.calibrate(
            commands.calibrate.CalibrateRequest(
                settings=settings,
                root=root,
                num_symbols=num_symbols,
                target=target / 100,
                window=window,
                open_engine=commands.engines.open_engine,
                progress=display.count_in,
            )
        )
    print_answer(found.as_dict(), json, lambda: _print(found))


def _print(found: Calibrated) -> None:
    title = f"{found.model} on {found.asked} documented symbols of {found.repository}"
    table = console.Table(title, "mean log-probability", "shown", "of all", "like the author's")
    for row in found.table:
        shown, right = (f"{100 * row[name]:.0f} %" for name in ("shown", "right"))
        table.row(f"{row['threshold']:.3f}", int(row["answers"]), shown, right)
    table.print()
    if found.threshold is None:
        console.paragraph(
            f"No threshold lets answers through of which {100 * found.target:.0f} in 100 are surely like the author's; "
            f"the model keeps its own ({_text(found.before)}). Try a lower --target, or another model."
        )
        return
    console.paragraph(f"From now on answers below {found.threshold:.3f} are not shown (before: {_text(found.before)}).")
    console.paragraph("`rotary-batch index REPO` and `drain` judge stored answers by it.")
    console.paths("Stored in: ", [Path(found.file or "")])


def _text(threshold: float | None) -> str:
    return "all are shown" if threshold is None else f"{threshold:.3f}"
