"""`inspect` and `explain`: what the index holds, and why."""

from __future__ import annotations

from typing import Annotated

import typer

from rotary_batch import commands, console
from rotary_batch.cli.answers import print_answer, to_json
from rotary_batch.cli.options import Config, Db, Json, OneRepo, Out, Worktree
from rotary_batch.cli.settings import command_settings
from rotary_batch.commands.database import reading
from rotary_batch.errors import UsageError


def inspect(
    kind: Annotated[str, typer.Argument(help="files, symbols, chunks, items or graph")],
    repo: OneRepo = None,
    jsonl: Annotated[bool, typer.Option("--jsonl", help="One JSON object a line (the default).")] = True,
    format_: Annotated[str, typer.Option("--format", help="Of graph: jsonl, graphml, mermaid or dot.")] = "jsonl",
    db: Db = None,
    config: Config = None,
) -> None:
    """Print what the index holds, one JSON object a line.

    The graph has one line for each caller and what it calls; --format draws it.
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
    path: Annotated[str, typer.Argument(help="A path in this folder or in the repository.")],
    repo: OneRepo = None,
    worktree: Worktree = None,
    out: Out = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Show why a file is read or not, and what to do."""
    root = commands.explain.root_for(path, repo)
    settings = command_settings(config, [root], worktree=worktree, out=out)
    answer = commands.explain.explain(settings, root, path, from_root=repo is not None)
    print_answer(answer, json, lambda: console.print_facts(answer))
