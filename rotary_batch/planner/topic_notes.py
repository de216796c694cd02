"""What a prompt on a topic tells: facts of the index as notes, the most useful first.

The page shows the same facts.  Where an author said nothing, a note has the summary of the model, if it may be shown.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping

from rotary_batch.core import FactKind, Subject, Topic, Unit
from rotary_batch.pages.commands import MAX_COMMANDS, commands_by_file
from rotary_batch.pages.entry_points import files_of, words_on
from rotary_batch.pages.maps import folder_map, mapped_folder
from rotary_batch.pages.onboarding import languages, main_summary, shown_folders, start_files
from rotary_batch.pages.page import IndexView, Summary, SummarySource, brief, file_summary, folder_summary
from rotary_batch.pages.sanitise import one_line
from rotary_batch.planner.prompt_builder import Note
from rotary_batch.readme import readme_of
from rotary_batch.work.rows import Answer

Answers = Mapping[Subject, Answer]


def topic_notes(topic: Topic, view: IndexView, answers: Answers) -> list[Note]:
    """The notes on one topic; `answers` are those that it waited for."""
    told = {
        Topic.OVERVIEW: _overview,
        Topic.ARCHITECTURE: _architecture,
        Topic.ENTRY_POINTS: _entry_points,
        Topic.BUILD: _build,
        Topic.START: _start,
    }[topic](view, answers)
    return [Note(one_line(label), one_line(text)) for label, text in told if text]


def _overview(view: IndexView, answers: Answers) -> Iterator[Note]:
    readme = readme_of(list(view.docstrings))
    yield Note("its README", view.docstrings[readme] if readme else "")
    answer = answers.get(Subject(Unit.REPOSITORY, ""))
    yield Note("a summary of its files", (answer.shown_text or "") if answer else "")
    yield Note("its code", main_summary(view).text)
    yield Note("written in", languages(view).partition(": ")[2])


def _architecture(view: IndexView, answers: Answers) -> Iterator[Note]:
    for folder in shown_folders(view.folders):
        yield Note(f"`{folder}/`", _said(answers, Subject(Unit.DIRECTORY, folder), folder_summary(folder, view)))
    mapped = mapped_folder(view, "")
    graph = None if mapped is None else folder_map(view, mapped)
    used: dict[int, list[str]] = defaultdict(list)
    for user, target in graph.edges if graph else ():
        used[user].append(f"`{graph.labels[target]}`" if graph else "")
    for user, targets in used.items():
        yield Note(f"`{graph.labels[user]}` uses" if graph else "", ", ".join(targets))


def _entry_points(view: IndexView, answers: Answers) -> Iterator[Note]:
    facts = view.overview().facts
    for path, programs in commands_by_file(facts, FactKind.ENTRY).items():
        for program in programs[:MAX_COMMANDS]:
            yield Note(f"program `{program.name}`", f"runs `{program.code}`, says {path}")
    mains = {symbol.path: symbol for symbol in view.overview().main_functions}
    for path in files_of(view):
        words = words_on(path, mains.get(path), view)
        answer = answers.get(Subject(Unit.FILE, path))
        begins = f"begins at `{mains[path].name}`" if path in mains else "is run as a script"
        told = words or (answer.shown_text if answer else "")
        yield Note(f"`{path}`", f"{begins}. {told}" if told else begins)


def _build(view: IndexView, _answers: Answers) -> Iterator[Note]:
    for kind, by in ((FactKind.COMMAND, "in {}"), (FactKind.CI, "run by {}")):
        for path, commands in commands_by_file(view.overview().facts, kind).items():
            for command in commands[:MAX_COMMANDS]:
                does = command.words or (f"it runs `{command.code}`" if command.code else "")
                yield Note(f"`{command.name}`", f"{by.format(path)}: {does}" if does else by.format(path))


def _start(view: IndexView, answers: Answers) -> Iterator[Note]:
    for path in start_files(view.overview().central_files):
        yield Note(f"`{path}`", _said(answers, Subject(Unit.FILE, path), file_summary(path, view)))


def _said(answers: Answers, subject: Subject, summary: Summary) -> str:
    """One sentence on a file or folder: the author's, else the model's, else the structure's."""
    answer = answers.get(subject)
    if summary.source is SummarySource.STRUCTURE and answer and answer.shown_text:
        return brief(answer.shown_text)
    return brief(summary.text)
