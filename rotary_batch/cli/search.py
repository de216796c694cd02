"""`search`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from rotary_batch import commands, console
from rotary_batch.cli.answers import NOTHING_INDEXED, print_answer
from rotary_batch.cli.help import OUTPUT, WHAT
from rotary_batch.cli.options import Config, Db, Json, number
from rotary_batch.cli.settings import command_settings
from rotary_batch.commands.database import reading


def search(
    text: Annotated[list[str], typer.Argument(metavar="TEXT...", help="Words, names, or their beginnings.")],
    repos: Annotated[
        list[Path] | None,
        typer.Option(
            "--repo",
            metavar="REPO",
            help="Search this repository only; may be given several times.",
            rich_help_panel=WHAT,
        ),
    ] = None,
    limit: Annotated[int, number(help="Print at most N results.", group=OUTPUT, most=1000)] = 20,
    db: Db = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Find symbols, files, folders and answers by name or text.

    Results contain all the words, or any of them when nothing has all.

    Examples:
        rotary-batch search parse config
        rotary-batch search retry --repo ~/src/app --limit 5
    """
    with reading(command_settings(config, repos, db=db)) as store:
        is_any_indexed = bool(commands.repositories.select_repositories(store, []))
        results = commands.search.search(store, " ".join(text), repos or [], limit)
        for row in commands.repositories.without_index(store, repos or []):
            console.err(f"note: {row.root}: not indexed by this version; run `rotary-batch index {row.root}`")
    print_answer(results, json, lambda: print_results(results))
    if not results and not json:
        console.err("Nothing matches." if is_any_indexed else NOTHING_INDEXED)


def print_results(results: Sequence[Mapping[str, Any]]) -> None:
    """Each result with its place, its page and its summary."""
    has_several = len({result["repository"] for result in results}) > 1
    for result in results:
        above = f"{result['repository']}/" if has_several else ""
        console.out(f"{result['kind']} {result['qualified_name']}  {above}{result['path']}:{result['line']}")
        for line in (result["summary"], result["page"]):
            if line:
                console.out(f"    {line}")
