"""`export`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.models import OptionInfo

from rotary_batch import commands, console
from rotary_batch.cli.answers import print_answer
from rotary_batch.cli.help import OUTPUT
from rotary_batch.cli.options import Config, Db, IndexedRepos, Json, number
from rotary_batch.cli.settings import command_settings
from rotary_batch.commands.database import reading
from rotary_batch.errors import UsageError
from rotary_batch.sizes import count

PRIVATE_MODE = "600"


def _file(name: str, text: str) -> OptionInfo:
    option: OptionInfo = typer.Option(name, metavar="FILE", help=text, rich_help_panel=OUTPUT)
    return option


def export(
    repos: IndexedRepos = None,
    sqlite: Annotated[Path | None, _file("--sqlite", "A SQLite file of index and answers, for Datasette.")] = None,
    requests: Annotated[
        Path | None, _file("--requests", "A JSONL file of the prompts without an answer, for other runners.")
    ] = None,
    answers: Annotated[
        Path | None, _file("--answers", "A JSONL file of all answers, for `import` into another database.")
    ] = None,
    shards: Annotated[int, number("--shards", help="Cut --requests into N files of equal work.", group=OUTPUT)] = 1,
    mode: Annotated[
        str, typer.Option(metavar="MODE", help="Permissions of the file, in octal.", rich_help_panel=OUTPUT)
    ] = PRIVATE_MODE,
    db: Db = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Write the index, the questions or the answers to a file.

    --sqlite has the index and its answers, without the queue. --requests has what is still asked, in the form of
    OpenAI's batch API, with the token ids of each prompt: `generate` answers them, and so does a server that takes
    token ids. `import` takes the results. All of it works while a drain is running.

    Examples:
        rotary-batch export --sqlite docs.db
        rotary-batch export ~/src/app --sqlite docs.db --mode 644
        rotary-batch export --requests requests.jsonl --shards 4
        rotary-batch export --answers answers.jsonl
    """
    permissions = _octal(mode)
    if sum(one is not None for one in (sqlite, requests, answers)) != 1:
        raise UsageError("name one file to write: --sqlite FILE, --requests FILE or --answers FILE")
    if shards > 1 and requests is None:
        raise UsageError("--shards is for --requests alone")
    with reading(command_settings(config, repos, db=db)) as store:
        if sqlite is not None:
            answer = commands.export.export_sqlite(store, sqlite, repos or [], permissions)
        elif requests is not None:
            answer = commands.export_jsonl.export_requests(store, requests, repos or [], permissions, shards)
        else:
            assert answers is not None
            answer = commands.export_jsonl.export_answers(store, answers, repos or [], permissions)
    print_answer(answer, json, lambda: _print_sqlite(answer) if sqlite else _print_jsonl(answer))


def _print_sqlite(answer: Mapping[str, Any]) -> None:
    console.out(f"{answer['file']}: {console.nbytes(answer['nbytes'])}, {', '.join(answer['repositories'])}")


def _print_jsonl(answer: Mapping[str, Any]) -> None:
    for one in answer["files"]:
        tokens = f", {one['prompt_tokens']:,} prompt tokens" if "prompt_tokens" in one else ""
        console.out(f"{one['file']}: {count(one['lines'], 'line')}{tokens}")
    if not answer["files"]:
        console.out("There is nothing to write.")


def _octal(mode: str) -> int:
    """Raises UsageError for what is no mode of a file that its owner can read."""
    if not (mode.isascii() and mode.isdigit() and set(mode) <= set("01234567") and 0o400 <= int(mode, 8) <= 0o777):
        raise UsageError(f"--mode {mode!r}: write permissions in octal, as 600 or 644")
    return int(mode, 8)
