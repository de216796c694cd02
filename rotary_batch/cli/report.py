"""`report`, and the last lines of a run: the same report, in full and in short."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rotary_batch import commands, console
from rotary_batch.cli.answers import print_answer
from rotary_batch.cli.options import Config, Db, IndexedRepos, Json
from rotary_batch.cli.settings import command_settings
from rotary_batch.commands.database import reading

if TYPE_CHECKING:
    from rotary_batch.commands.report_words import Figure, Section
    from rotary_batch.commands.run_report import RunReport

MAX_FIGURE = 16  # characters; what is longer is text
MAX_PAGES = 10  # in a terminal, where more would push the outcome off the screen; the file lists 50


def report(repos: IndexedRepos = None, db: Db = None, config: Config = None, json: Json = False) -> None:
    """Say how the last run ended, what is left and what failed.

    With repositories, it is about the last run of those.

    Examples:
        rotary-batch report
        rotary-batch report ~/src/app --json
    """
    settings = command_settings(config, repos, db=db)
    with reading(settings) as store:
        answer = commands.report.report(store, settings, repos or [])
    print_answer(answer.as_dict(), json, lambda: print_report(answer))


def print_report(report: RunReport) -> None:
    """All that is known of a run."""
    words = commands.report_words
    model = f", with {report.model}" if report.model else ""
    console.paragraph(f"Run {report.run}: rotary-batch {report.command}, {words.period(report)}{model}")
    _print_sentences(
        words.headline(report),
        words.reason(report),
        words.answers(report),
        words.forecast(report),
        words.next_step(report),
    )
    for section in words.sections(report):
        console.out(f"\n{section.title}")
        _print_lines(section, report.docs)
    print_figures(report)
    console.out("")
    _print_files(report)
    if report.file is not None:
        console.paths("Plots: ", [Path(report.file).with_suffix(".html")])


def _print_lines(section: Section, docs: Sequence[str]) -> None:
    """Pages of a single docs folder are shown from that folder on."""
    lines = section.lines[:MAX_PAGES] if section.are_paths else section.lines
    below = Path(docs[0]).parent if len(docs) == 1 else None
    for line in lines:
        if section.are_paths:
            console.paths("  ", [Path(line)], below=below)
        else:
            console.paragraph(line, indent="  ")
    if num_more := section.num_more + len(section.lines) - len(lines):
        console.out(f"  and {num_more:,} more")


def print_ending(report: RunReport, *, verbose: bool) -> None:
    """At most six lines: what happened, what is shown, what to look at, what to type next, the pages, the report."""
    words = commands.report_words
    if verbose:
        print_figures(report)
        console.out("")
    if report.did_nothing:
        _print_sentences(words.headline(report), words.next_step(report))
        return
    _print_sentences(words.headline(report), words.answers(report), words.problems(report), words.next_step(report))
    _print_files(report)


def print_figures(report: RunReport) -> None:
    """The figures of the answers and the engine."""
    _print_table("Answers of this run", commands.report_words.answer_figures(report))
    _print_table("The engine", commands.report_words.engine_figures(report))


def _print_sentences(*sentences: str) -> None:
    for sentence in filter(None, sentences):
        console.paragraph(sentence)


def _print_table(title: str, figures: Sequence[Figure]) -> None:
    """Figures before their names, since these differ in length; long ones behind."""
    if figures:
        console.out(f"\n{title}")
    short = [figure for figure in figures if len(figure.value) <= MAX_FIGURE]
    width = max((len(figure.value) for figure in short), default=0)
    for figure in short:
        console.paragraph(f"{figure.value:>{width}}  {figure.name}", indent="  ")
    for figure in figures:
        if figure not in short:
            console.paragraph(f"{figure.name}: {figure.value}", indent="  ")


def _print_files(report: RunReport) -> None:
    shown = [Path(folder) / "index.md" for folder in report.docs[: commands.report_words.MAX_NAMED]]
    if shown:
        console.paths("Pages: ", shown)
    if report.file is not None:
        console.paths("Report: ", [Path(report.file)])
