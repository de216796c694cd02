"""`retry`."""

from __future__ import annotations

from rotary_batch import console
from rotary_batch.cli.answers import print_answer
from rotary_batch.cli.options import Config, Db, IndexedRepos, Json
from rotary_batch.cli.settings import command_settings
from rotary_batch.commands.database import writing
from rotary_batch.commands.repositories import select_repositories
from rotary_batch.work.items import ask_again


def retry(repos: IndexedRepos = None, db: Db = None, config: Config = None, json: Json = False) -> None:
    """Requeue failed items and everything that depends on them.

    An item is parked when every attempt at it failed.

    Examples:
        rotary-batch retry
        rotary-batch retry ~/src/app
    """
    with writing(command_settings(config, repos, db=db), create=False) as store:
        count = ask_again(store, [row.id for row in select_repositories(store, repos or [])])
    print_answer({"retried": count}, json, lambda: console.out(_said(count)))


def _said(count: int) -> str:
    if not count:
        return "Nothing to do; no item is parked."
    return f"{count:,} parked {'item is' if count == 1 else 'items are'} back in the queue."
