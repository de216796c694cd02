"""`status` and `report`: where everything stands, and what the last run did."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rotary_batch import commands, console
from rotary_batch.cli.answers import print_answer
from rotary_batch.cli.options import Config, Db, IndexedRepos, Json
from rotary_batch.cli.settings import command_settings
from rotary_batch.commands.database import reading


def status(repos: IndexedRepos = None, db: Db = None, config: Config = None, json: Json = False) -> None:
    """Show how far every repository is, and whether a drain runs.

    Examples:
        rotary-batch status
        rotary-batch status ~/src/app --json
    """
    settings = command_settings(config, repos, db=db)
    with reading(settings) as store:
        answer = commands.status.status(store, settings, repos or [])
    print_answer(answer, json, lambda: print_status(answer))


def report(repos: IndexedRepos = None, db: Db = None, config: Config = None, json: Json = False) -> None:
    """Show what the last run did.

    With repositories: what the last run of these did.

    Examples:
        rotary-batch report
        rotary-batch report ~/src/app --json
    """
    settings = command_settings(config, repos, db=db)
    with reading(settings) as store:
        answer = commands.status.report(store, settings, repos or [])
    print_answer(answer, json, lambda: print_report(answer))


def print_status(answer: Mapping[str, Any]) -> None:
    """The items of every repository, the driver and the last run."""
    states = ("waiting", "ready", "leased", "done", "parked")
    for repository in answer["repositories"]:
        table = console.Table(f"{repository['root']} ({repository['model']})", "unit", *states)
        for unit, by_state in repository["items"].items():
            table.row(unit, *(by_state.get(state, 0) for state in states))
        table.print()
    if not answer["repositories"]:
        console.out("nothing is indexed yet; run `rotary-batch index REPO`")
    driver = answer["driver_pid"]
    place = f"process {driver}" if driver else "a process in another container or on another machine"
    console.out("driver: none is running" if driver is None else f"driver: {place} is running")
    if run := answer["last_run"]:
        console.out(f"last run: {run['started_at']}, {run['outcome']}")


def print_report(answer: Mapping[str, Any]) -> None:
    """The figures of one run."""
    console.print_facts({name: value for name, value in answer.items() if not isinstance(value, dict | list)})
    for name in ("verdicts", "ended", "engine"):
        if answer.get(name):
            console.out(f"{name}:")
            console.print_facts(answer[name])
