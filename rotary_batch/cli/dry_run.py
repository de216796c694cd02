"""`--dry-run` of `index` and `run`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from rotary_batch import commands, console
from rotary_batch.cli.answers import exit_with, print_answer
from rotary_batch.cli.progress import shown_progress
from rotary_batch.commands.configuration import UserSettings
from rotary_batch.sizes import duration_text
from rotary_batch.window import Window, stop_on_signals

if TYPE_CHECKING:
    from rotary_batch.commands.dry_run import DryRun

MAX_PAGES = 10  # that are named for a person


def dry_run(
    repos: list[Path] | None, user: UserSettings, seconds_left: float | None, *, answers: bool, json: bool
) -> NoReturn:
    """Find out and print what `index`, or with `answers` what `run`, would do; then exit.

    `seconds_left` is the time that the run would have; None = any.
    """
    named, window = repos or [commands.repositories.repository_root(None)], Window()
    with stop_on_signals(window), shown_progress("reading files") as display:
        result = commands.dry_run.dry_run(user, named, display.count_in, window, answers=answers)
    print_answer(result.as_dict(), json, lambda: _print(result, seconds_left, answers=answers))
    exit_with(result.failures)


def _print(result: DryRun, seconds_left: float | None, *, answers: bool) -> None:
    console.out("Dry run: nothing is written.")
    for repository in result.repositories:
        _table(repository, answers=answers).print()
        _print_pages("pages to write", repository["pages_to_write"])
        _print_pages("pages to remove", repository["pages_to_remove"])
        _print_pages("edited pages, which stay as they are", repository["conflicts"])
        for note in repository["notes"]:
            console.out(f"note: {note}")
    if answers and result.repositories:
        console.out(f"time: {_time(result, seconds_left)}")


def _table(repository: Mapping[str, Any], *, answers: bool) -> console.Table:
    table = console.Table(f"{repository['repository']} ({repository['model']})", "", "")
    table.row("source files", repository["source_files"])
    table.row("files to read", repository["files_to_read"])
    table.row("items to queue", repository["items_to_queue"])
    if repository["items_to_remove"]:
        table.row("items to remove", repository["items_to_remove"])
    if answers:
        table.row("items to answer", repository["open_items"])
    table.row("prompt tokens", repository["prompt_tokens"])
    if repository["shared_tokens"]:
        table.row("prompt tokens that are not read again", repository["shared_tokens"])
    if repository["unknown_prompts"]:
        table.row("prompts that depend on other answers", repository["unknown_prompts"])
    return table


def _print_pages(what: str, pages: list[str]) -> None:
    if pages:
        console.out(f"{what}: {len(pages):,}")
    for page in pages[:MAX_PAGES]:
        console.out(f"  {page}")
    if len(pages) > MAX_PAGES:
        console.out(f"  and {len(pages) - MAX_PAGES:,} more; --json names all")


def _time(result: DryRun, seconds_left: float | None) -> str:
    if not result.items:
        return "none; there is nothing to answer"
    if result.seconds is None:
        return f"unknown; run `rotary-batch {result.needs}` once" if result.needs else "unknown"
    known = f"{duration_text(result.seconds)}, by {result.speed}"
    if seconds_left is None or seconds_left >= result.seconds:
        return known
    by_then = int(result.items * seconds_left / result.seconds)
    return f"{known}; until the deadline about {by_then:,} of {result.items:,} items"
