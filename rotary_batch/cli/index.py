"""`index`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rotary_batch import commands, console
from rotary_batch.cli.answers import exit_with, print_answer, print_failures
from rotary_batch.cli.docs import print_page_problems
from rotary_batch.cli.dry_run import dry_run as print_dry_run
from rotary_batch.cli.options import (
    Config,
    Db,
    DryRun,
    Experts,
    JobName,
    Json,
    Kv,
    LinkTemplate,
    Log,
    Model,
    Numerics,
    Out,
    Quiet,
    Repos,
    Verbose,
    Worktree,
)
from rotary_batch.cli.progress import Display, shown_progress
from rotary_batch.cli.settings import start_log, user_settings
from rotary_batch.commands.configuration import UserSettings
from rotary_batch.commands.database import writing
from rotary_batch.commands.isolation import Failure, failures
from rotary_batch.commands.repositories import missing_folders, repository_root
from rotary_batch.window import Window, stop_on_signals
from rotary_batch.work.store import WorkStore

if TYPE_CHECKING:
    from rotary_batch.commands.index import IndexOutcome
    from rotary_batch.sync import IndexViews

DEMONSTRATION = (
    "Model: the demonstration model. It shows how everything works; do not rely on its sentences. "
    "Name a real one with --model."
)


def index(
    repos: Repos = None,
    dry_run: DryRun = False,
    model: Model = None,
    worktree: Worktree = None,
    out: Out = None,
    job: JobName = None,
    link_template: LinkTemplate = None,
    numerics: Numerics = None,
    kv: Kv = None,
    experts: Experts = None,
    db: Db = None,
    config: Config = None,
    log: Log = None,
    json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Read the code, write the structural pages, queue the work.

    Run it again after a change: only what changed is read and queued.

    Examples:
        rotary-batch index ~/src/app
        rotary-batch index ~/src/app --model ~/models/mixtral-int4
        rotary-batch index --worktree --out docs/api
    """
    console.be_quiet(wanted=quiet)
    user = user_settings(
        config,
        repos,
        model=model,
        worktree=worktree,
        out=out,
        job=job,
        link_template=link_template,
        numerics=numerics,
        kv=kv,
        experts=experts,
        db=db,
    )
    window = Window()
    if dry_run:
        print_dry_run(repos, user, None, answers=False, json=json)
    start_log(log)
    with stop_on_signals(window), writing(user.for_command().settings, should_stop=window.is_closed) as store:
        outcomes = index_all(store, repos, user, window, commands.index.index_views(store), quiet=quiet)
    print_failures(failures(outcomes))
    indexed = [] if quiet else indexed_of(outcomes)
    print_answer([one.as_dict() for one in outcomes], json, lambda: print_index(indexed, verbose=verbose))
    exit_with([], [failure.exit_code for failure in failures(outcomes)])


def index_all(
    store: WorkStore,
    repos: list[Path] | None,
    user: UserSettings,
    window: Window,
    views: IndexViews,
    on_indexed: Callable[[Display, IndexOutcome], None] = lambda _display, _outcome: None,
    *,
    quiet: bool = False,
) -> list[IndexOutcome | Failure]:
    """Index every repository, with a progress bar."""
    named = repos or [repository_root(None)]
    if not any(repo.is_dir() for repo in named):  # refused before anything is said to begin
        return missing_folders(named)
    with shown_progress("reading files", quiet=quiet) as display:
        request = commands.index.IndexRequest(
            store=store,
            settings_of=user.for_repository,
            window=window,
            views=views,
            progress=display.count_in,
            on_indexed=lambda outcome: on_indexed(display, outcome),
        )
        return commands.index.index(request, named)


def tell_pages(display: Display, outcome: IndexOutcome) -> None:
    """Say where the pages are, as soon as they are there."""
    display.tell(f"The pages can be read already: {outcome.docs / 'index.md'}")


def indexed_of(outcomes: Sequence[IndexOutcome | Failure]) -> list[IndexOutcome]:
    """The repositories that were indexed."""
    return [outcome for outcome in outcomes if isinstance(outcome, commands.index.IndexOutcome)]


def print_index(outcomes: Sequence[IndexOutcome], *, verbose: bool = False) -> None:
    """What was indexed, in a few lines."""
    for outcome in outcomes:
        if len(outcomes) > 1:
            console.paragraph(f"{outcome.indexed.repository.root}:")
        if verbose:
            _print_counts(outcome)
        print_read(outcome)
        console.paragraph(commands.index_words.next_step(outcome))
        console.paths("Pages: ", [outcome.docs / "index.md"])


def print_read(outcome: IndexOutcome, *, to_stderr: bool = False) -> None:
    """What was read, and what was not; of a repository without changes, only what a person must know."""
    words, pages = commands.index_words, outcome.sync_result
    if not (to_stderr and words.did_nothing(outcome)):
        for line in filter(None, (words.headline(outcome), words.not_read(outcome))):
            console.paragraph(line, to_stderr=to_stderr)
    if outcome.demonstration and not words.did_nothing(outcome):
        hint = commands.default_model.install_hint()
        console.paragraph(f"{DEMONSTRATION} {hint}".rstrip(), to_stderr=to_stderr)
    for note in outcome.notes:
        console.paragraph(f"note: {note}", to_stderr=to_stderr)
    print_page_problems(pages.conflicts, pages.failed, console.err if to_stderr else console.out)


def _print_counts(outcome: IndexOutcome) -> None:
    indexed, counts = outcome.indexed, outcome.indexed.counts
    table = console.Table(f"Indexed {indexed.repository.root}", "", "")
    table.row("source files", indexed.files.get("source", 0))
    table.row(
        "other files, not documented",
        sum(number for name, number in indexed.files.items() if name not in {"source", "docs"}),
    )
    table.row("parsed", indexed.parsed)
    table.row("symbols", indexed.symbols)
    table.row("chunks", indexed.chunks)
    table.row("items queued", counts.queued)
    table.row("items removed", counts.removed)
    table.row("pages written", len(outcome.sync_result.written))
    table.print()
