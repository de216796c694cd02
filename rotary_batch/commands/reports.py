"""Reports of runs as files, in the folder of the database: Markdown and a page for a person, JSON for a program."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import chain, count
from pathlib import Path

from rotary_batch import private_file
from rotary_batch.commands import report_words as words
from rotary_batch.commands.report_page import page
from rotary_batch.commands.run_report import RunReport
from rotary_batch.pages.sanitise import inline, path_link
from rotary_batch.work.samples import Sample


def new_path(database: Path, started_at: str) -> Path:
    """Where the Markdown of a new report goes; no report has that name yet."""
    folder = database.parent / "reports"
    moment = datetime.fromisoformat(started_at).astimezone().strftime("%Y-%m-%d-%H%M%S")
    names = chain([moment], (f"{moment}-{number}" for number in count(2)))  # of another run that began in that second
    return next(path for name in names if not (path := folder / f"{name}.md").with_suffix(".json").exists())


def write(report: RunReport, samples: Sequence[Sample] = ()) -> None:
    """Write the files of a report.  Raises OSError."""
    if report.file is not None:
        private_file.write(Path(report.file).with_suffix(".json"), report.as_json() + "\n")
        private_file.write(Path(report.file).with_suffix(".html"), page(report, samples))
        private_file.write(Path(report.file), markdown(report))


def markdown(report: RunReport) -> str:
    """The report as Markdown that has no effect, whatever names and texts of repositories it shows."""
    sentences = (words.headline(report), words.reason(report), words.answers(report), words.forecast(report))
    return "\n".join(
        [
            f"# {inline(words.headline(report).partition('. ')[0].rstrip('.'))}",
            "",
            f"Run {report.run}, `rotary-batch {report.command}`, {words.period(report)}"
            + (f", with {inline(report.model)}." if report.model else "."),
            *chain.from_iterable(["", inline(text)] for text in (*sentences, words.next_step(report)) if text),
            *_sections(report),
            "",
        ]
    )


def _sections(report: RunReport) -> Iterator[str]:
    folder = Path(report.file or "/").parent
    docs = words.Section(
        "Where the docs are", [str(Path(folder) / "index.md") for folder in report.docs], are_paths=True
    )
    for section in (*words.sections(report), docs):
        yield from ["", f"## {section.title}", ""]
        yield from (f"- {_linked(line, folder) if section.are_paths else inline(line)}" for line in section.lines)
        if section.num_more:
            yield f"- and {section.num_more:,} more"
    yield from _table("Answers of this run", words.answer_figures(report))
    yield from _table("The engine", words.engine_figures(report))


def _table(title: str, figures: Sequence[words.Figure]) -> Iterator[str]:
    if figures:
        yield from ["", f"## {title}", "", "| Figure | Value |", "| --- | ---: |"]
        yield from (f"| {inline(figure.name)} | {inline(figure.value)} |" for figure in figures)


def _linked(path: str, folder: Path) -> str:
    """A path that is a link to its file: relative, since many programs follow no other link to a file."""
    return f"[{inline(path)}]({path_link(os.path.relpath(path, folder))})"
