"""`docstrings`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from rotary_batch import commands, console
from rotary_batch.cli.answers import print_answer
from rotary_batch.cli.help import OUTPUT
from rotary_batch.cli.options import Config, Db, Json, OneRepo
from rotary_batch.cli.settings import command_settings
from rotary_batch.commands.database import reading
from rotary_batch.sizes import count


def docstrings(
    repo: OneRepo = None,
    apply: Annotated[
        bool, typer.Option("--apply", help="Write into the sources. Needs a clean tree.", rich_help_panel=OUTPUT)
    ] = False,
    db: Db = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Turn answers about symbols into docstrings, as a patch.

    The patch is patches/docstrings.patch in the docs folder. It has what pages show of answers about symbols that have
    no words of their author, as docstrings or as comments, by the custom of the language. The changed sources were
    parsed again: apart from docstrings and comments their code is the same.

    Examples:
        rotary-batch docstrings ~/src/app
        rotary-batch docstrings ~/src/app --apply
    """
    root = commands.repositories.repository_root(repo)
    settings = command_settings(config, [root], db=db)
    with reading(settings) as store:
        made = commands.docstrings.docstrings(store, root, apply=apply)
    print_answer(made, json, lambda: _print(root, made))


def _print(root: Path, made: Mapping[str, Any]) -> None:
    if not made["answers"]:
        console.paragraph(f"There are no answers about symbols yet; `rotary-batch run {root}` asks for them.")
    elif not made["files"]:
        console.paragraph("No answer became a docstring: symbols have their author's words, or no place for them.")
    else:
        docs, files = count(made["symbols"], "docstring"), count(len(made["files"]), "file")
        where = "written into" if made["applied"] else "for"
        console.paragraph(f"{docs} {where} {files}, of {count(made['answers'], 'answer')} about symbols.")
    if made["patch"]:
        console.paths("Patch: ", [Path(made["patch"])])
        console.paragraph(
            f"Apply it with `git -C {root} apply {made['patch']}`, or with `rotary-batch docstrings --apply`."
        )
