"""`doctor`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from rotary_batch import commands, console
from rotary_batch.cli.answers import print_answer
from rotary_batch.cli.help import OUTPUT
from rotary_batch.cli.options import Config, Db, Device, Json, Model
from rotary_batch.cli.settings import command_settings
from rotary_batch.errors import UnavailableError

if TYPE_CHECKING:
    from rotary_batch.commands.doctor import Check

Verbose = Annotated[bool, typer.Option("--verbose", help="List every grammar.", rich_help_panel=OUTPUT)]


def doctor(
    model: Model = None,
    device: Device = None,
    db: Db = None,
    config: Config = None,
    verbose: Verbose = False,
    json: Json = False,
) -> None:
    """Check what is installed, and say what is missing.

    It exits with 69 when something essential is missing.

    Examples:
        rotary-batch doctor
        rotary-batch doctor --model ~/models/mixtral-int4 --device cuda
    """
    settings = command_settings(config, [], model=model, device=device, db=db)
    checks = commands.doctor.doctor(settings, commands.configuration.settings_files(config))
    print_answer([check.as_dict() for check in checks], json, lambda: print_checks(checks, verbose=verbose))
    raise typer.Exit(UnavailableError.exit_code if any(not check.ok and check.essential for check in checks) else 0)


def print_checks(checks: Sequence[Check], *, verbose: bool = False) -> None:
    """One line or two for each check, and whether the program can run."""
    console.checklist(_rows(checks, verbose=verbose))
    lacks = [check.what for check in checks if not check.ok and check.essential]
    notes = sum(not check.ok and not check.essential for check in checks)
    better = f" {notes} {'thing' if notes == 1 else 'things'} could be better, see `note`." if notes else ""
    console.out(f"\nrotary-batch cannot run here: {', '.join(lacks)}." if lacks else f"\nrotary-batch can run.{better}")


def _rows(checks: Sequence[Check], *, verbose: bool) -> Iterator[tuple[str, str, str, str]]:
    for check in checks:
        mark = "ok" if check.ok else "error" if check.essential else "note"
        yield mark, check.what, check.fact, check.advice
        if verbose:
            yield from _rows(check.details, verbose=True)
