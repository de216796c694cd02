"""`pause` and `unpause`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Any

import typer

from rotary_batch import commands, console
from rotary_batch.cli.answers import print_answer
from rotary_batch.cli.help import WHEN
from rotary_batch.cli.options import Config, Db, Json
from rotary_batch.cli.settings import command_settings
from rotary_batch.errors import StoppedError
from rotary_batch.window import Window, deadlines, stop_on_signals

PATIENCE_S = 600.0  # a step of a large model takes a minute


def pause(
    until: Annotated[
        str | None, typer.Option(metavar="HH:MM", help="End the pause at this time of day.", rich_help_panel=WHEN)
    ] = None,
    for_: Annotated[
        str | None,
        typer.Option("--for", metavar="DURATION", help="End the pause after this long.", rich_help_panel=WHEN),
    ] = None,
    db: Db = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Stop the drain that runs, and free its memory, until `unpause`.

    It finishes its step first, and this command waits for that. What is done is kept. A drain that starts later waits
    too. With --until or --for the pause ends by itself.

    Examples:
        rotary-batch pause
        rotary-batch pause --for 2h
    """
    settings = command_settings(config, None, db=db)
    left = [deadline.seconds_left for deadline in deadlines(until=until, duration=for_)]
    end = time.time() + min(left) if left else None
    answer: dict[str, Any] | None = None
    with suppress(StoppedError), stop_on_signals(Window()):
        answer = commands.pause.pause(settings, end, PATIENCE_S, time.sleep)
    if answer is None:  # Ctrl-C: the pause holds, nobody waits for the answer
        answer = commands.pause.pause(settings, end, 0.0, time.sleep)
    print_answer(answer, json, lambda: console.out(_said(answer)))


def _said(answer: Mapping[str, Any]) -> str:
    place = f"process {answer['driver_pid']}"
    if answer["driver_pid"] is None:
        return "Paused. No drain is running; the next one waits until `rotary-batch unpause`."
    if answer["is_free"]:
        return f"Paused. The drain ({place}) has freed its memory; `rotary-batch unpause` continues."
    return f"Paused. The drain ({place}) has not answered yet: it finishes what it began, then frees its memory."


def unpause(db: Db = None, config: Config = None, json: Json = False) -> None:
    """Let a paused drain go on.

    Examples:
        rotary-batch unpause
    """
    answer = commands.pause.unpause(command_settings(config, None, db=db))
    print_answer(answer, json, lambda: console.out(_went_on(answer)))


def _went_on(answer: Mapping[str, Any]) -> str:
    if not answer["was_paused"]:
        return "Nothing to do; it was not paused."
    return "No longer paused." if answer["driver_pid"] is None else f"Process {answer['driver_pid']} continues."
