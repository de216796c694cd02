"""`forget`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rotary_batch import commands, console
from rotary_batch.cli.answers import print_answer
from rotary_batch.cli.options import Config, Db, Json
from rotary_batch.cli.settings import command_settings
from rotary_batch.commands.database import writing


def forget(
    repo: Annotated[Path, typer.Argument(metavar="REPO", help="An indexed repository, even if it no longer exists.")],
    db: Db = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Remove a repository from the database; its pages stay.

    Its queue and its answers are deleted.

    Examples:
        rotary-batch forget ~/src/old-app
    """
    with writing(command_settings(config, [repo], db=db), create=False) as store:
        answer = commands.forget.forget(store, repo)

    def show() -> None:
        console.out(f"forgotten: {answer['repository']}, with {answer['items']:,} items")
        console.out(f"its pages stay: {answer['docs']}")

    print_answer(answer, json, show)
