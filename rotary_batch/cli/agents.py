"""`agents`."""

from __future__ import annotations

from typing import Annotated

import typer

from rotary_batch import commands, console
from rotary_batch.cli.answers import print_answer
from rotary_batch.cli.help import WHAT
from rotary_batch.cli.options import Config, Json, OneRepo, Out
from rotary_batch.cli.settings import whole_settings


def agents(
    repo: OneRepo = None,
    remove: Annotated[bool, typer.Option("--remove", help="Take the block out again.", rich_help_panel=WHAT)] = False,
    out: Out = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Tell coding agents about the docs, in AGENTS.md.

    The text is a block between two markers; nothing outside it changes.

    Examples:
        rotary-batch agents ~/src/app
        rotary-batch agents ~/src/app --remove
    """
    root, settings = whole_settings(config, commands.repositories.repository_root(repo), "described", out=out)
    answer = commands.agents.agents(settings, root, remove=remove)
    if not remove and not (root / settings.out).is_dir():
        console.note(f"there are no docs yet; `rotary-batch run {root}` writes them")
    what = "changed" if answer["changed"] else "unchanged"
    print_answer(answer, json, lambda: console.out(f"{answer['file']}: {what}"))
