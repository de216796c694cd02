"""`agents`."""

from __future__ import annotations

from typing import Annotated

import typer

from rotary_batch import commands, console
from rotary_batch.cli.answers import print_answer
from rotary_batch.cli.options import Config, Json, OneRepo, Out
from rotary_batch.cli.settings import command_settings


def agents(
    repo: OneRepo = None,
    remove: Annotated[bool, typer.Option("--remove", help="Take the block out.")] = False,
    out: Out = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Tell coding agents of the docs, in a block of AGENTS.md between two markers.

    Nothing outside the markers changes.
    """
    root = commands.repositories.repository_root(repo)
    answer = commands.agents.agents(command_settings(config, [root], out=out), root, remove=remove)
    what = "changed" if answer["changed"] else "unchanged"
    print_answer(answer, json, lambda: console.out(f"{answer['file']}: {what}"))
