"""`retry`."""

from __future__ import annotations

from typing import Annotated

import typer

from rotary_batch import console
from rotary_batch.cli.answers import print_answer
from rotary_batch.cli.options import Config, Db, IndexedRepos, Json
from rotary_batch.cli.settings import command_settings
from rotary_batch.commands.database import writing
from rotary_batch.commands.repositories import select_repositories
from rotary_batch.core import ErrorClass
from rotary_batch.work.items import ask_again


def retry(
    repos: IndexedRepos = None,
    class_: Annotated[
        ErrorClass | None,
        typer.Option(
            "--class",
            metavar="CLASS",
            help="Only those for which this is to blame: temporary, bad-item, bad-model or bad-machine.",
        ),
    ] = None,
    db: Db = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Requeue failed items and everything that depends on them.

    An item is parked when every attempt at it failed. `status --parked` shows why.

    Examples:
        rotary-batch retry
        rotary-batch retry ~/src/app
        rotary-batch retry --class temporary
    """
    with writing(command_settings(config, repos, db=db), create=False) as store:
        count = ask_again(store, [row.id for row in select_repositories(store, repos or [])], class_)
    print_answer({"retried": count}, json, lambda: console.out(_said(count, class_)))


def _said(count: int, class_: ErrorClass | None) -> str:
    if not count:
        return f"Nothing to do; no item is parked{f' as {class_}' if class_ else ''}."
    return f"{count:,} parked {'item is' if count == 1 else 'items are'} back in the queue."
