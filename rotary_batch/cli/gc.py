"""`gc`: delete what nothing needs any more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from rotary_batch import commands, console
from rotary_batch.cli.answers import print_answer
from rotary_batch.cli.help import WHEN
from rotary_batch.cli.options import Config, Db, DryRun, Json
from rotary_batch.cli.settings import command_settings
from rotary_batch.commands.database import reading, writing
from rotary_batch.errors import StoppedError
from rotary_batch.sizes import size_text
from rotary_batch.window import open_window, stop_on_signals

if TYPE_CHECKING:
    from rotary_batch.commands.cleaning import Cleaned


def gc(
    duration: Annotated[
        str,
        typer.Option("--for", metavar="DURATION", help="Stop after this long, for example 5m.", rich_help_panel=WHEN),
    ] = "10s",
    dry_run: DryRun = False,
    db: Db = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Delete what nothing needs any more, within a few seconds.

    Answers that no item has used for 30 days, copies of the database from upgrades 30 days ago, records and reports of
    all but the last 365 runs, and what interrupted commands left. Then the database file is made smaller, if a quarter
    of it is free and time and disk allow it. No page changes, and nothing is asked again.

    Examples:
        rotary-batch gc --dry-run
        rotary-batch gc --for 5m
    """
    settings, window = command_settings(config, None, db=db), open_window(until=None, duration=duration)
    if dry_run:
        with reading(settings) as store:
            cleaned = commands.cleaning.would_free(store)
    else:
        with (
            stop_on_signals(window),
            window.finishing("stopping; what is deleted so far stays deleted"),
            writing(settings, create=False, should_stop=window.is_closed) as store,
        ):
            cleaned = commands.cleaning.clean(store, window)
    print_answer(cleaned.as_dict(), json, lambda: _print(cleaned, is_dry=dry_run))
    if not dry_run and not cleaned.is_complete:
        raise typer.Exit(StoppedError.exit_code)


def _print(cleaned: Cleaned, *, is_dry: bool) -> None:
    if is_dry:
        console.out("Dry run: nothing is deleted.")
    freed = [each for each in cleaned.freed if each.number]
    for each in freed:
        console.out(f"{each.what}: {each.number:,}, {_nbytes(each.nbytes)}")
    if not freed:
        console.out("Nothing to delete." if is_dry or cleaned.is_complete else "Nothing was deleted.")
    before = cleaned.database_nbytes_before
    was = f", {_nbytes(before)} before" if before != cleaned.database_nbytes else ""
    console.out(
        f"{cleaned.database}: {_nbytes(cleaned.database_nbytes)}{was}, of which {_nbytes(cleaned.free_nbytes)} are free"
    )
    if not is_dry and not cleaned.is_complete:
        console.out("Out of time before all was deleted; run it again, or with a longer --for.")


def _nbytes(nbytes: int) -> str:
    return size_text(nbytes) if nbytes >= 10**6 else f"{nbytes:,} bytes"
