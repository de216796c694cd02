"""`init`."""

from __future__ import annotations

from typing import Annotated

import typer

from rotary_batch import commands, console
from rotary_batch.cli.answers import print_answer
from rotary_batch.cli.help import OUTPUT
from rotary_batch.cli.options import Json


def init(
    user: Annotated[
        bool,
        typer.Option(
            "--user",
            help="Write it to ~/.config/rotary-batch, where it applies in every folder.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Write a commented rotary.toml to start from.

    It has every setting with its default. A file that exists is never overwritten. In a repository it goes to
    ~/.config/rotary-batch, because a rotary.toml inside a repository is not trusted.

    Examples:
        rotary-batch init
        rotary-batch init --user
    """
    answer = commands.settings_file.init(for_user=user)
    if answer["in_repository"]:
        console.err("note: this folder is in a repository, whose rotary.toml is not trusted")
    print_answer(answer, json, lambda: console.out(f"settings: {answer['file']}"))
