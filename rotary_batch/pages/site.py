"""All the files of a site: every page, the MkDocs navigation and llms.txt."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rotary_batch.core import Subject, Unit
from rotary_batch.pages.front import HTML_COMMENT, YAML_COMMENT, sign
from rotary_batch.pages.markdown import Pages, ProseMap
from rotary_batch.pages.page import IndexView, file_summary, folder_summary
from rotary_batch.pages.page_paths import LLMS_NAME, NAV_NAME, page_paths, parent_of
from rotary_batch.pages.sanitise import inline, one_line, path_link, quoted, title

# Things that are not files or folders of the repository; no path in it begins with a slash.
NAV, LLMS = f"/{NAV_NAME}", f"/{LLMS_NAME}"
MAX_LLMS_CHARACTERS = 200  # of a line


def site_paths(sources: Iterable[str]) -> dict[str, str]:
    """Thing -> path below the docs folder, of everything that is written."""
    return page_paths(sources) | {NAV: NAV_NAME, LLMS: LLMS_NAME}


def page_of(view: IndexView, thing: str) -> str:
    """The path below the docs folder of one thing."""
    return thing[1:] if thing in {NAV, LLMS} else view.paths[thing]


def render(view: IndexView, prose: ProseMap, things: Iterable[str]) -> Iterator[tuple[str, bytes]]:
    """(path below the docs folder, bytes) of each thing, one after the other."""
    pages = Pages(view, prose)
    for thing in things:
        data = _nav(view) if thing == NAV else _llms(view) if thing == LLMS else pages.page(thing)
        yield page_of(view, thing), data


def things_of(subjects: Iterable[Subject]) -> list[str]:
    """The things whose pages show the given subjects: their own and the one above that lists them."""
    things: dict[str, None] = {}
    for subject in subjects:
        unit, path = subject.unit, subject.path
        own = path if unit in {Unit.CHUNK, Unit.FILE} else f"{path}/" if path else "/"
        things |= {own: None}
        if unit is not Unit.CHUNK and own != "/":
            above = parent_of(path)
            things |= {f"{above}/" if above else "/": None}
    return list(things)


def _nav(view: IndexView) -> bytes:
    """An MkDocs configuration beside the pages; Zensical reads it too."""
    lines = [
        "# Build with `mkdocs build -f .mkdocs/mkdocs.yml`.",
        f"site_name: {quoted(title(view.name))}",
        "docs_dir: ..",
        "site_dir: ../../site",
        "nav:",
        *_nav_lines(view),
    ]
    return sign(lines, YAML_COMMENT)


def _nav_lines(view: IndexView) -> Iterator[str]:
    """Folders before files, each folder's own page first.  A list, not recursion: folders may be nested deep."""
    waiting: list[tuple[str, str]] = [("", "  ")]
    while waiting:
        thing, indent = waiting.pop()
        name = quoted(title(thing.removesuffix("/").rpartition("/")[2] + ("/" if thing.endswith("/") else "")))
        if thing and not thing.endswith("/"):
            yield f"{indent}- {name}: {quoted(view.paths[thing])}"
            continue
        if thing:
            yield f"{indent}- {name}:"
            indent += "    "
        yield f'{indent}- "Overview": {quoted(view.paths[thing or "/"])}'
        inside = view.inside[thing.removesuffix("/")]
        waiting += [(path, indent) for path in reversed(inside.files)]
        waiting += [(f"{folder}/", indent) for folder in reversed(inside.folders)]


def _llms(view: IndexView) -> bytes:
    """https://llmstxt.org: a title, a quotation, lists of links with one line each."""
    lines = [f"# {inline(view.name)}", "", f"> {_line(folder_summary('', view).text)}"]
    for folder in ["", *view.folders]:
        if files := view.inside[folder].files:
            lines += ["", f"## {inline(folder) or '(top)'}", ""]
            lines += [
                f"- [{inline(f)}]({path_link(view.paths[f])}): {_line(file_summary(f, view).text)}" for f in files
            ]
    return sign([*lines, ""], HTML_COMMENT)


def _llms_entry(path: str, view: IndexView) -> str:
    return f"- [{inline(path)}]({path_link(view.paths[path])}): {_line(file_summary(path, view).text)}"


def _line(text: str) -> str:
    return inline(one_line(text, MAX_LLMS_CHARACTERS))
