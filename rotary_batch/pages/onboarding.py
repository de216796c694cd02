"""The page for people who are new to a repository, topic by topic.

All facts come from the index, so the page is complete without a model.  Above those on a topic is a paragraph of the
model, if there is one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

from rotary_batch.core import Topic
from rotary_batch.pages.commands import command_blocks
from rotary_batch.pages.entry_points import entry_lines, program_lines
from rotary_batch.pages.home import project_words
from rotary_batch.pages.links import Links
from rotary_batch.pages.maps import map_block, mapped_folder
from rotary_batch.pages.outline import is_test_folder
from rotary_batch.pages.page import IndexView, Prose, Summary, SummarySource, brief, file_summary, folder_summary
from rotary_batch.pages.page_paths import folders_above
from rotary_batch.pages.sanitise import code, inline

TITLE = "Onboarding"
CONTENTS = "overview, architecture, entry points, how to build and test, where to start."
HEADINGS = {
    Topic.OVERVIEW: "Overview",
    Topic.ARCHITECTURE: "Architecture",
    Topic.ENTRY_POINTS: "Entry points",
    Topic.BUILD: "Build and test",
    Topic.START: "Where to start",
}
MAX_FOLDERS = 24
MAX_START_FILES = 8
ProseMap = Mapping[tuple[str, str], Prose]


def topic_blocks(view: IndexView, links: Links, prose: ProseMap, styled: Callable[[str], str]) -> Iterator[str]:
    """The sections of the page; `styled` marks the words of a model."""
    lists = _Lists(view, links, prose, styled)
    facts = {
        Topic.OVERVIEW: [*(project_words(view) or [inline(main_summary(view).text)]), languages(view)],
        Topic.ARCHITECTURE: [lists.folders(), map_block(view, links, "")],
        Topic.ENTRY_POINTS: ["\n".join([*program_lines(view.overview().facts), *entry_lines(view, links)])],
        Topic.BUILD: [*command_blocks(view, links)],
        Topic.START: [lists.start()],
    }
    for topic in Topic:
        said = prose.get(topic.subject.identity)
        words = [styled(said.text)] if said and said.text else []
        if blocks := [*words, *filter(None, facts[topic])]:
            yield from (f"## {HEADINGS[topic]}", *blocks)


def listed_on_topics(view: IndexView) -> list[str]:
    """The folders and files whose summaries the page shows."""
    return [*shown_folders(view.folders), *start_files(view.overview().central_files)]


def asked_on_topics(view: IndexView, prose: ProseMap) -> list[tuple[str, str]]:
    """Whose texts the page may show: the topics, and what it lists without words of an author."""
    folders = [("directory", folder) for folder in shown_folders(view.folders)]
    files = [("file", path) for path in start_files(view.overview().central_files)]
    silent = [key for key in folders if folder_summary(key[1], view).source is SummarySource.STRUCTURE]
    silent += [key for key in files if file_summary(key[1], view).source is SummarySource.STRUCTURE]
    return [key for key in [*(topic.subject.identity for topic in Topic), *silent] if key in prose]


def shown_folders(folders: Sequence[str]) -> list[str]:
    """The folders that the page lists, the outer ones first; of tests no inner ones, and none of settings of tools."""
    return sorted(sorted(_told(folders), key=lambda folder: (folder.count("/"), folder))[:MAX_FOLDERS])


def _told(folders: Sequence[str]) -> list[str]:
    return [one for one in folders if one[0] != "." and not any(map(is_test_folder, folders_above(one)))]


def start_files(central: Sequence[str]) -> Sequence[str]:
    """The files to begin with."""
    return central[:MAX_START_FILES]


def main_summary(view: IndexView) -> Summary:
    """What is known of a repository without a README; its author may speak in the folder with most code."""
    own, main = folder_summary("", view), mapped_folder(view, "")
    inner = folder_summary(main, view) if main else own
    return inner if own.source is SummarySource.STRUCTURE and inner.source is SummarySource.AUTHOR else own


def languages(view: IndexView) -> str:
    """How many files each language has."""
    counts = Counter(str(file.language) for file in view.sources.values())
    order = sorted(counts, key=lambda name: (-counts[name], name))
    return f"Languages, by number of files: {', '.join(f'{name} {counts[name]}' for name in order)}." if order else ""


class _Lists:
    """The lists of folders and files, each with words of its author, else of the model, else its structure."""

    def __init__(self, view: IndexView, links: Links, prose: ProseMap, styled: Callable[[str], str]) -> None:
        self._view, self._links, self._prose, self._styled = view, links, prose, styled

    def folders(self) -> str:
        """A table of the folders."""
        shown = shown_folders(self._view.folders)
        rows = [
            f"| [{code(folder)}]({self._links.page('/', f'{folder}/')}) "
            f"| {self._line(('directory', folder), folder_summary(folder, self._view))} |"
            for folder in shown
        ]
        if more := len(_told(self._view.folders)) - len(shown):
            rows.append(f"| and {more} more |  |")
        return "\n".join(["| Folder | Summary |", "| --- | --- |", *rows]) if shown else ""

    def start(self) -> str:
        """A list of the files that the others use most."""
        lines = [
            f"{number}. [{code(path)}]({self._links.page('/', path)}): "
            f"{self._line(('file', path), file_summary(path, self._view))}"
            for number, path in enumerate(start_files(self._view.overview().central_files), 1)
        ]
        head = "The files that the others use most, directly or through others:"
        return "\n".join([head, "", *lines]) if lines else ""

    def _line(self, key: tuple[str, str], summary: Summary) -> str:
        said = self._prose.get(key)
        if summary.source is SummarySource.STRUCTURE and said and said.text:
            return self._styled(brief(said.text))
        return inline(brief(summary.text))
