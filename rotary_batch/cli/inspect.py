"""`inspect` and `explain`: what the index holds, and why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Annotated, Any

import typer

from rotary_batch import commands, console
from rotary_batch.cli.answers import print_answer
from rotary_batch.cli.help import OUTPUT, WHAT
from rotary_batch.cli.options import Config, Db, Json, OneRepo, Out, Worktree, choice, reads
from rotary_batch.cli.settings import command_settings, whole_settings
from rotary_batch.commands.database import reading
from rotary_batch.commands.inspect import FORMATS, KINDS, STATES
from rotary_batch.config import one_of
from rotary_batch.errors import UsageError
from rotary_batch.json_answer import to_json

_ROWS_A_TABLE = 1000


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
        typer.Option("--jsonl", help="Print one JSON object a line; this is the default.", rich_help_panel=OUTPUT),
    ] = True,
    format_: Annotated[
        str, choice(FORMATS, "--format", help="Format of the graph.", group=OUTPUT, default="jsonl")
    ] = "jsonl",
    state: Annotated[
        str | None, choice(STATES, "--state", help="Only items that are in this state.", group=WHAT)
    ] = None,
    table: Annotated[bool, typer.Option("--table", help="Print a table for reading.", rich_help_panel=OUTPUT)] = False,
    db: Db = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Print what the index holds, one JSON object a line.

    The graph has one line for each caller and what it calls; --format draws it.

    Examples:
        rotary-batch inspect symbols ~/src/app
        rotary-batch inspect items --state parked --table
        rotary-batch inspect graph --format dot
    """
    root = commands.repositories.repository_root(repo)
    if format_ != "jsonl" and kind != "graph":
        raise UsageError(f"inspect {kind} --format {format_}: only the graph has other formats than jsonl")
    if state is not None and kind != "items":
        raise UsageError(f"inspect {kind} --state {state}: only items have a state")
    if table and (json or format_ != "jsonl"):
        raise UsageError("--table: it has no other format; leave out --json and --format")
    with reading(command_settings(config, [root], db=db)) as store, console.ignore_broken_pipe():
        if table:
            print_tables(commands.inspect.TABLES[kind], commands.inspect.inspect(store, kind, root, state))
        elif format_ == "jsonl":
            for row in commands.inspect.inspect(store, kind, root, state):
                typer.echo(to_json(row))
        else:
            for line in commands.inspect.draw_graph(store, root, format_):
                typer.echo(line)


def print_tables(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """The rows as tables of a bounded length each, as a table is held in memory."""
    left = iter(rows)
    while some := list(islice(left, _ROWS_A_TABLE)):
        table = console.Table("", *(name.replace("_", " ") for name in columns))
        for row in some:
            table.row(*("" if row[name] is None else row[name] for name in columns))
        table.print()


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
