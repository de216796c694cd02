"""`inspect` and `explain`: what the index holds, and why."""

from __future__ import annotations

from typing import Annotated

import typer

from rotary_batch import commands, console
from rotary_batch.cli.answers import print_answer, to_json
from rotary_batch.cli.help import OUTPUT
from rotary_batch.cli.options import Config, Db, Json, OneRepo, Out, Worktree, choice, reads
from rotary_batch.cli.settings import command_settings, whole_settings
from rotary_batch.commands.database import reading
from rotary_batch.commands.inspect import FORMATS, KINDS
from rotary_batch.config import one_of
from rotary_batch.errors import UsageError


def inspect(
    kind: Annotated[
        str,
        typer.Argument(
            metavar="KIND",
            help=f"What to print: {', '.join(KINDS)}.",
            parser=reads(one_of(*KINDS)),
            autocompletion=lambda: list(KINDS),
        ),
    ],
    repo: OneRepo = None,
    jsonl: Annotated[
        bool,
        typer.Option("--jsonl", help="Print one JSON object a line, as is done in any case.", rich_help_panel=OUTPUT),
    ] = True,
    format_: Annotated[
        str, choice(FORMATS, "--format", help="Format of the graph.", group=OUTPUT, default="jsonl")
    ] = "jsonl",
    db: Db = None,
    config: Config = None,
) -> None:
    """Print what the index holds, one JSON object a line.

    The graph has one line for each caller and what it calls; --format draws it.

    Examples:
        rotary-batch inspect symbols ~/src/app
        rotary-batch inspect items | jq 'select(.error)'
        rotary-batch inspect graph --format dot
    """
    root = commands.repositories.repository_root(repo)
    if format_ != "jsonl" and kind != "graph":
        raise UsageError(f"inspect {kind} --format {format_}: only the graph has other formats than jsonl")
    with reading(command_settings(config, [root], db=db)) as store, console.ignore_broken_pipe():
        if format_ == "jsonl":
            for row in commands.inspect.inspect(store, kind, root):
                typer.echo(to_json(row))
        else:
            for line in commands.inspect.draw_graph(store, root, format_):
                typer.echo(line)


def explain(
    path: Annotated[str, typer.Argument(metavar="PATH", help="A path in this folder or in the repository.")],
    repo: OneRepo = None,
    worktree: Worktree = None,
    out: Out = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Say why a file is read or not, and what to do about it.

    Examples:
        rotary-batch explain src/generated/api.py
        rotary-batch explain lib/util.c ~/src/app
    """
    named = commands.explain.root_for(path, repo)
    root, settings = whole_settings(config, named, "asked", worktree=worktree, out=out)
    answer = commands.explain.explain(settings, root, path, from_root=repo is not None)
    print_answer(answer, json, lambda: console.print_facts(answer))
