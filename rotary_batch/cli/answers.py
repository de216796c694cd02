"""Print what a command returns, as JSON or for a person, and end with the exit code that fits."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NoReturn

import typer

from rotary_batch import console
from rotary_batch.commands.isolation import Failure, exit_code
from rotary_batch.json_answer import answered, to_json

NOTHING_INDEXED = "Nothing is indexed yet; run `rotary-batch index REPO`."


def print_answer(data: object, as_json: bool, show: Callable[[], None]) -> None:
    """Print `data` as one line of JSON, or call `show` for a person."""
    with console.ignore_broken_pipe():
        if as_json:
            typer.echo(to_json(data))
            answered()
        else:
            show()


def print_failures(failures: Iterable[Failure]) -> None:
    """Each on a line of stderr."""
    for failure in failures:
        console.err(f"rotary-batch: {failure}")


def exit_with(failures: list[Failure], other_codes: Iterable[int] = ()) -> NoReturn:
    """Print the failures to stderr and end with the most telling exit code."""
    print_failures(failures)
    raise typer.Exit(exit_code([*(failure.exit_code for failure in failures), *other_codes]))
