"""`export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rotary_batch import commands, console
from rotary_batch.cli.answers import print_answer
from rotary_batch.cli.help import OUTPUT
from rotary_batch.cli.options import Config, Db, IndexedRepos, Json
from rotary_batch.cli.settings import command_settings
from rotary_batch.commands.database import reading
from rotary_batch.errors import UsageError

PRIVATE_MODE = "600"


def export(
    sqlite: Annotated[
        Path,
        typer.Option(
            "--sqlite", metavar="FILE", help="The SQLite file to write; Datasette opens it.", rich_help_panel=OUTPUT
        ),
    ],
    repos: IndexedRepos = None,
    mode: Annotated[
        str, typer.Option(metavar="MODE", help="Permissions of the file, in octal.", rich_help_panel=OUTPUT)
    ] = PRIVATE_MODE,
    db: Db = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Write the index and its answers to a SQLite file.

    The queue is left out. It also works while a drain is running.

    Examples:
        rotary-batch export --sqlite docs.db
        rotary-batch export ~/src/app --sqlite docs.db --mode 644
    """
    permissions = _octal(mode)
    with reading(command_settings(config, repos, db=db)) as store:
        answer = commands.export.export_sqlite(store, sqlite, repos or [], permissions)
    size = console.nbytes(answer["nbytes"])
    print_answer(answer, json, lambda: console.out(f"{answer['file']}: {size}, {', '.join(answer['repositories'])}"))


def _octal(mode: str) -> int:
    """Raises UsageError for what is no mode of a file that its owner can read."""
    if not (mode.isascii() and mode.isdigit() and set(mode) <= set("01234567") and 0o400 <= int(mode, 8) <= 0o777):
        raise UsageError(f"--mode {mode!r}: write permissions in octal, as 600 or 644")
    return int(mode, 8)
