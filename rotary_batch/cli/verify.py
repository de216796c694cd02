"""`verify`: whether database, pages, sources and packs agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import typer

from rotary_batch import commands, console
from rotary_batch.cli.answers import print_answer
from rotary_batch.cli.options import Config, Db, IndexedRepos, Json
from rotary_batch.cli.progress import shown_progress
from rotary_batch.cli.settings import command_settings
from rotary_batch.commands.database import database_path
from rotary_batch.commands.facts import Fact, State, exit_code
from rotary_batch.sizes import count
from rotary_batch.window import Window, stop_on_signals

MAX_LINES = 10  # of a kind, for a person


def verify(repos: IndexedRepos = None, db: Db = None, config: Config = None, json: Json = False) -> None:
    """Check that database, pages, code and models agree.

    It checks the tables, the queue, that every file is as it was indexed, that every page is what the database
    says, and every byte of the models. It writes nothing, and it may be used during a run. Exit 4 when something
    differs, 3 when something is damaged.

    Examples:
        rotary-batch verify
        rotary-batch verify ~/src/app --json
    """
    path, window = database_path(command_settings(config, repos, db=db)), Window()
    with stop_on_signals(window), shown_progress("reading the database") as display:
        facts = list(commands.verify.verify(path, repos or [], window, display.count_in))
    answer = {"database": str(path), "facts": [fact._asdict() for fact in facts]}
    print_answer(answer, json, lambda: _print(facts))
    raise typer.Exit(exit_code(facts))


def _print(facts: Sequence[Fact]) -> None:
    printed: Counter[tuple[str, State, str]] = Counter()
    for fact in facts:
        kind = (fact.about, fact.state, fact.words)
        printed[kind] += 1
        if printed[kind] <= MAX_LINES:
            console.out(_line(fact))
    if more := sum(max(0, number - MAX_LINES) for number in printed.values()):
        console.out(f"and {more:,} more; --json names all")
    wrong = sum(fact.state in {State.DIFFERS, State.DAMAGED} for fact in facts)
    console.out(f"{count(wrong, 'problem')} found." if wrong else "Everything that was judged agrees.")


def _line(fact: Fact) -> str:
    mend = f"; {fact.mend}" if fact.mend else ""
    # One line, whatever a file is called: its name must not look like another fact.
    return f"{fact.state}: {fact.about} {fact.path}: {fact.words}{mend}".replace("\n", "\\n").replace("\r", "\\r")
