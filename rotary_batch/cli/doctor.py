"""`doctor`."""

from __future__ import annotations

from collections.abc import Sequence

import typer

from rotary_batch import commands, console
from rotary_batch.cli.answers import print_answer
from rotary_batch.cli.options import Config, Db, Json
from rotary_batch.cli.settings import command_settings


def doctor(db: Db = None, config: Config = None, json: Json = False) -> None:
    """Check what is installed, and say what is missing.

    Examples:
        rotary-batch doctor
    """
    checks = commands.models.doctor(command_settings(config, [], db=db))
    rows = [{"what": what, "ok": is_ok, "fact": fact} for what, is_ok, fact in checks]
    print_answer(rows, json, lambda: print_checks(checks))
    raise typer.Exit(0 if all(is_ok for _, is_ok, _ in checks) else 69)


def print_checks(checks: Sequence[tuple[str, bool, str]]) -> None:
    """One line for each part."""
    for what, is_ok, fact in checks:
        console.out(f"{'ok     ' if is_ok else 'MISSING'} {what}: {fact}")
