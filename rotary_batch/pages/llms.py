"""llms.txt and llms-full.txt (https://llmstxt.org): the site as text for language models."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice

from rotary_batch.core import TOPICS_PAGE
from rotary_batch.pages.front import HTML_COMMENT, sign
from rotary_batch.pages.home import project_words
from rotary_batch.pages.onboarding import TITLE
from rotary_batch.pages.outline import is_test_file
from rotary_batch.pages.page import IndexView, file_summary, folder_summary
from rotary_batch.pages.page_paths import LLMS_NAME
from rotary_batch.pages.sanitise import inline, one_line, path_link

MAX_LLMS_CHARACTERS = 200  # of a line
MAX_FULL_NBYTES = 500_000  # about 150,000 tokens
MAX_FULL_PAGES = 300
MAX_MISFITS = 3  # pages that are too long for the room that is left; after them it is full


def llms(view: IndexView) -> bytes:
    """A title, a quotation, lists of links with one line each."""
    words = project_words(view)
    summary = words[0] if words else _line(folder_summary("", view).text)
    lines = [f"# {inline(view.name)}", "", f"> {summary}"]
    # Not which topics it has: this file is made anew only when a summary changes.
    lines += ["", f"## {TITLE}", "", f"- [{TITLE}]({path_link(view.paths[TOPICS_PAGE])}): for people who are new to it"]
    for folder in ["", *view.folders]:
        if files := view.inside[folder].files:
            lines += ["", f"## {inline(folder) or '(top)'}", ""]
            lines += [
                f"- [{inline(f)}]({path_link(view.paths[f])}): {_line(file_summary(f, view).text)}" for f in files
            ]
    return sign([*lines, ""], HTML_COMMENT)


def llms_full(view: IndexView, page_of_thing: Callable[[str], bytes]) -> bytes:
    """The pages of what is used most, whole, as many as fit."""
    parts, nbytes, misfits = [], 0, 0
    for thing in islice(dict.fromkeys(_candidates(view)), MAX_FULL_PAGES):
        if misfits == MAX_MISFITS:
            break
        body = page_of_thing(thing).decode().partition("\n---\n\n")[2]
        part = f"(Page {path_link(view.paths[thing])}; its links are relative to it.)\n\n{body}"
        if nbytes + len(part.encode()) <= MAX_FULL_NBYTES:
            parts.append(part)
            nbytes += len(part.encode())
        else:
            misfits += 1
    total = 2 + len(view.sources)
    head = f"{len(parts)} of {total} pages, those of what is used most first. {LLMS_NAME} lists every page."
    return sign(["\n".join([f"{head}\n", *parts])], HTML_COMMENT)


def _candidates(view: IndexView) -> Iterator[str]:
    yield from ("/", TOPICS_PAGE)
    yield from (path for path in view.overview().most_used_files if path in view.sources and not is_test_file(path))
    yield from (path for path in view.sources if not is_test_file(path))


def _line(text: str) -> str:
    return inline(one_line(text, MAX_LLMS_CHARACTERS))
