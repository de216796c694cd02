"""`render` and `check`: the docs folder versus the database, or versus the sources."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from rotary_batch import commands, console
from rotary_batch.cli.answers import print_answer
from rotary_batch.cli.help import WHAT
from rotary_batch.cli.options import Config, Db, Json, OneRepo, Out, Worktree
from rotary_batch.cli.settings import command_settings, whole_settings
from rotary_batch.commands.database import writing
from rotary_batch.commands.page_notes import text_notes
from rotary_batch.errors import UsageError
from rotary_batch.sizes import count
from rotary_batch.window import Window, stop_on_signals

if TYPE_CHECKING:
    from rotary_batch.pages.drift import Drift
    from rotary_batch.pages.files import PageFailure, SyncResult


def render(
    repo: OneRepo = None,
    accept: Annotated[
        tuple[str, str] | None,
        typer.Option(
            metavar="[ours|theirs] PAGE",
            help="Settle a page that a person edited: ours writes the new page, theirs keeps the edited one.",
            rich_help_panel=WHAT,
        ),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Also replace pages with a model's text that the database does not have.",
            rich_help_panel=WHAT,
        ),
    ] = False,
    db: Db = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Write the pages from the database; no model is needed.

    The database may come from another machine, where the repository lay elsewhere: it is known by its commits and
    files.

    Examples:
        rotary-batch render ~/src/app
        rotary-batch render ~/src/app --accept theirs pkg/a.py.md
    """
    root = commands.repositories.repository_root(repo)
    settings, window = command_settings(config, [root], db=db), Window()
    with stop_on_signals(window), writing(settings, create=False, should_stop=window.is_closed) as store:
        if note := commands.moved.follow_move(store, root):
            console.note(note)
        if accept:
            whose, page = accept
            if whose not in {"ours", "theirs"}:
                raise UsageError(f"--accept: {whose!r} is not one of ours, theirs; write --accept [ours|theirs] PAGE")
            commands.docs.accept_page(store, root, page, whose)
        sync_result = commands.docs.render(store, root, window, overwrite=overwrite)
    print_answer(asdict(sync_result), json, lambda: print_sync_result(sync_result))


def check(
    repo: OneRepo = None, worktree: Worktree = None, out: Out = None, config: Config = None, json: Json = False
) -> None:
    """Check that the docs match the code (exit 4 if not).

    It names pages that are stale, missing, edited or orphaned. It needs neither a model nor the database, so it
    also runs in CI.

    Examples:
        rotary-batch check
        rotary-batch check ~/src/app --worktree
    """
    named = commands.repositories.repository_root(repo)
    root, settings = whole_settings(config, named, "checked", worktree=worktree, out=out)
    drift = commands.docs.check(settings, root)
    print_answer(asdict(drift), json, lambda: print_drift(drift))
    raise typer.Exit(4 if drift.num_found else 0)


def print_sync_result(sync_result: SyncResult) -> None:
    """How many pages `render` wrote."""
    console.out(
        f"{count(len(sync_result.written), 'page')} written, {sync_result.unchanged} unchanged, "
        f"{len(sync_result.removed)} removed"
    )
    for note in text_notes(sync_result):
        console.out(f"note: {note}")
    print_page_problems(sync_result.conflicts, sync_result.failed)


def print_page_problems(
    conflicts: Sequence[str], failed: Sequence[PageFailure], out: Callable[[str], None] = console.out
) -> None:
    """The pages that were not written, and why."""
    for page in conflicts:
        out(f"edited by a person, left alone: {page} (the new page is next to it; settle it with render --accept)")
    for page, reason in failed:
        out(f"not written: {page}: {reason}")


def print_drift(drift: Drift) -> None:
    """The pages that do not match the sources."""
    for kind in ("stale", "missing", "edited", "orphaned", "blocked"):
        for page in getattr(drift, kind):
            console.out(f"{kind}: {page}")
    console.out(
        "The docs match the code."
        if not drift.num_found
        else f"{count(drift.num_found, 'page does', 'pages do')} not match the code; `rotary-batch run` fixes that"
        + (", `render --accept ours|theirs PAGE` settles edited pages" if drift.edited else "")
        + (", something else is in the place of blocked pages: move it away" if drift.blocked else "")
    )
