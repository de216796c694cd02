"""`status`: where everything stands."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from rotary_batch import commands, console
from rotary_batch.cli.answers import NOTHING_INDEXED, print_answer
from rotary_batch.cli.options import Config, Db, IndexedRepos, Json
from rotary_batch.cli.progress import items, percent, reading_text
from rotary_batch.cli.settings import command_settings
from rotary_batch.commands.database import reading
from rotary_batch.commands.meter import Reading
from rotary_batch.commands.node_words import node_lines
from rotary_batch.commands.watching import pace_words
from rotary_batch.config import Settings
from rotary_batch.errors import StoppedError, UsageError
from rotary_batch.window import Window, stop_on_signals

WATCH_EVERY_S = 2.0
MAX_PARKED = 50  # that are printed
UNITS = {
    "chunk": "chunks of code",
    "symbol": "symbols",
    "detail": "parameters, results and exceptions",
    "file": "files",
    "directory": "folders",
    "repository": "the repository",
}


def status(
    repos: IndexedRepos = None,
    watch: Annotated[bool, typer.Option("--watch", help="Show it again every 2 seconds until Ctrl-C.")] = False,
    parked: Annotated[bool, typer.Option("--parked", help="Show the items that failed, and why.")] = False,
    db: Db = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Show how far each repository is, and if a drain is running.

    Examples:
        rotary-batch status
        rotary-batch status --watch
        rotary-batch status --parked
        rotary-batch status ~/src/app --json
    """
    settings = command_settings(config, repos, db=db)
    if watch and parked:
        raise UsageError("--parked shows what runs have left behind; leave out --watch")
    if parked:
        _show_parked(settings, repos or [], json)
    elif watch:
        _watch(settings, repos or [], json)
    else:
        _show_status(settings, repos or [], json)


def _watch(settings: Settings, repos: Sequence[Path], json: bool) -> None:
    if json or not sys.stdout.isatty():
        raise UsageError(
            "--watch needs a terminal and no --json; run `rotary-batch status --json` again and again instead"
        )
    with suppress(StoppedError), stop_on_signals(Window()):
        while True:
            console.clear()
            _show_status(settings, repos, json)
            time.sleep(WATCH_EVERY_S)


def _show_parked(settings: Settings, repos: Sequence[Path], json: bool) -> None:
    with reading(settings) as store:
        answer = commands.status.parked(store, repos)
    print_answer(answer, json, lambda: print_parked(answer))


def _show_status(settings: Settings, repos: Sequence[Path], json: bool) -> None:
    with reading(settings) as store:
        answer = commands.status.status(store, settings, repos)
    print_answer(answer, json, lambda: print_status(answer))


def print_status(answer: Mapping[str, Any]) -> None:
    """How far every repository is, what runs now and how the last run ended."""
    for repository in answer["repositories"]:
        console.out(f"{repository['root']} (model {repository['model']})")
        if repository["model_problem"]:
            console.paragraph(repository["model_problem"])
        if not repository["all"]:
            console.out("  There is nothing to answer.")
            continue
        table = console.Table("", "", "done", "all", "share", "parked")
        for unit, name in UNITS.items():
            by_state = repository["items"].get(unit, {})
            _add_row(table, name, by_state.get("done", 0), by_state.get("parked", 0), sum(by_state.values()))
        _add_row(table, "all", repository["done"], repository["parked"], repository["all"])
        table.print()
    if not answer["repositories"]:
        console.out(NOTHING_INDEXED)
    console.out(_what_runs(answer))
    if (running := answer["running"]) and running["nodes"]:
        for line in node_lines(running["nodes"], running["drain_s"]):
            console.paragraph(line, indent="  ")
    if (run := answer["last_run"]) and not answer["running"]:
        console.out(f"Last run: {run['outcome']}, started {local_time(run['started_at'])}.")
        if run["reason"]:
            console.paragraph(f"Reason: {run['reason']}")


def print_parked(answer: Mapping[str, Any]) -> None:
    """The first parked items, and what to do with them."""
    if not answer["parked"]:
        console.out("No item is parked.")
        return
    table = console.Table("", "what is to blame", "items")
    for error_class, count in answer["by_class"].items():
        table.row(error_class, count)
    table.print()
    for one in answer["parked"][:MAX_PARKED]:
        place = f"{one['repository']}: {one['unit']} {one['subject']}".rstrip()
        console.paragraph(f"{place} ({one['error_class']}, attempts: {one['attempts']}): {one['error']}")
    if (more := len(answer["parked"]) - MAX_PARKED) > 0:
        console.out(f"{more:,} more; --json has all.")
    console.out("`rotary-batch retry` queues them again, `rotary-batch retry --class CLASS` those of one class.")


def _add_row(table: console.Table, name: str, done: int, parked: int, num_items: int) -> None:
    if num_items:
        table.row(name, done, num_items, percent((done + parked) / num_items), parked)


def _what_runs(answer: Mapping[str, Any]) -> str:
    """One line: `A drain is running (process 17, since 19:53): 38 % 269/718, 1,240 tok/s, 6 min left`."""
    pid, running = answer["driver_pid"], answer["running"]
    if pid is None:
        return "No drain is running." + (" The next one starts paused." if answer["paused"] else "")
    place = f"process {pid}" if pid else "a process in another container or on another machine"
    if running is None:
        return f"Another command is at work, or a drain that has not begun yet ({place})."
    begun = f"A drain is running ({place}, since {local_time(running['started_at'])})"
    activity, progress = running["activity"], running["progress"]
    if activity is not None:
        words = pace_words(activity["state"], activity["share"], activity["why"])
        return f"{begun}: {words}." if progress is None else f"{begun}: {words}; {items(Reading(**progress))}."
    if progress is None:
        return f"{begun}; it opens the model."
    return f"{begun}: {reading_text(Reading(**progress))}."


def local_time(at: str) -> str:
    """A time of the database, on the clock of this machine."""
    return f"{datetime.fromisoformat(at).astimezone():%a %d %b %H:%M}"
