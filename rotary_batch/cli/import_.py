"""`import`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rotary_batch import commands, console
from rotary_batch.cli.answers import print_answer, print_failures
from rotary_batch.cli.docs import print_page_problems
from rotary_batch.cli.options import Config, Db, Json
from rotary_batch.cli.progress import counting
from rotary_batch.cli.settings import user_settings
from rotary_batch.commands.database import writing
from rotary_batch.commands.isolation import exit_code
from rotary_batch.sizes import count
from rotary_batch.window import Window, stop_on_signals

if TYPE_CHECKING:
    from rotary_batch.commands.import_answers import Imported

_MAX_NAMED = 5  # reasons


def import_(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Results in the form of OpenAI's batch API.")],
    db: Db = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Take the answers that another runner gave, and write pages.

    They are answers to the requests of `export --requests`, or those of `export --answers` from another database.
    Every row is checked before the first is used. Answers are cut, checked and stored as the model's own; what is not
    answered stays in the queue. Roll-ups get their prompts once what they tell of is answered: export again for them.

    Examples:
        rotary-batch import results.jsonl
        rotary-batch import results-1-of-4.jsonl results-2-of-4.jsonl
    """
    user, window = user_settings(config, [], db=db), Window()
    settings = user.for_command().settings
    with (
        stop_on_signals(window),
        writing(settings, create=False, should_stop=window.is_closed) as store,
        counting("importing") as progress,
    ):
        request = commands.import_answers.ImportRequest(
            store=store, settings_of=user.for_indexed, window=window, progress=progress
        )
        rows = commands.repositories.select_repositories(store, [])
        imported = commands.import_answers.import_answers(request, rows, files)
    print_failures(imported.failures)
    print_answer(imported.as_dict(), json, lambda: _print(imported))
    raise typer.Exit(exit_code([*(one.exit_code for one in imported.failures), 5 if imported.num_failed else 0]))


def _print(imported: Imported) -> None:
    new, items = count(imported.stored, "new answer"), count(imported.completed, "item")
    console.paragraph(f"{new}; {items} completed, {imported.shown:,} of them shown on pages.")
    for number, what in ((imported.known, "answered before"), (imported.unknown, "about what is not asked")):
        if number:
            console.out(f"{count(number, 'row')} {what}")
    for why, number in list(imported.failed.items())[:_MAX_NAMED]:
        console.out(f"{count(number, 'row')} without an answer: {why}")
    for note in imported.notes:
        console.note(note)
    print_page_problems(imported.pages.conflicts, imported.pages.failed)
    if imported.asked_now:
        console.paragraph(
            f"{count(imported.asked_now, 'item')} can be asked now: `rotary-batch export --requests FILE` writes them, "
            "`rotary-batch drain` answers them here."
        )
    elif not imported.open:
        console.out("Nothing is left to ask.")
