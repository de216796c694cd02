"""All the files of a docs folder: every page, the MkDocs navigation, the symbol index, llms.txt and llms-full.txt."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from rotary_batch.core import TOPICS_PAGE, Subject, Unit
from rotary_batch.pages.front import YAML_COMMENT, sign
from rotary_batch.pages.llms import llms, llms_full
from rotary_batch.pages.markdown import Pages
from rotary_batch.pages.onboarding import TITLE as TOPICS_TITLE
from rotary_batch.pages.onboarding import ProseMap
from rotary_batch.pages.page import IndexView
from rotary_batch.pages.page_paths import LLMS_FULL_NAME, LLMS_NAME, NAV_NAME, TOPICS_NAME, page_paths, parent_of
from rotary_batch.pages.sanitise import quoted, title
from rotary_batch.pages.symbol_index import INDEX, INDEX_NAME, is_index_thing

# Things that are not files or folders of the repository; no path in it begins with a slash.
NAV, LLMS, LLMS_FULL = f"/{NAV_NAME}", f"/{LLMS_NAME}", f"/{LLMS_FULL_NAME}"
NOT_PAGES = {NAV, LLMS, LLMS_FULL}  # for programs
# They show something of every page, so they are written when any other one is.
OVERVIEWS = {"/", TOPICS_PAGE, LLMS_FULL}


def site_paths(sources: Iterable[str]) -> dict[str, str]:
    """Thing -> path below the docs folder, of everything that is written but the further pages of the index."""
    return page_paths(sources) | {thing: thing[1:] for thing in (NAV, LLMS, LLMS_FULL, INDEX)}


def page_of(view: IndexView, thing: str) -> str:
    """The path below the docs folder of one thing."""
    return thing[1:] if thing in {NAV, LLMS, LLMS_FULL} or is_index_thing(thing) else view.paths[thing]


def render(
    view: IndexView, prose: ProseMap, things: Iterable[str], page_of_thing: Callable[[str], bytes] | None = None
) -> Iterator[tuple[str, bytes]]:
    """(path below the docs folder, bytes) of each thing, one after the other.

    `page_of_thing` gives the pages that llms-full.txt consists of; without it they are rendered.
    """
    pages = Pages(view, prose)
    for thing in things:
        yield page_of(view, thing), _render_one(view, pages, thing, page_of_thing or pages.page)


def _render_one(view: IndexView, pages: Pages, thing: str, page_of_thing: Callable[[str], bytes]) -> bytes:
    if thing == NAV:
        return _nav(view)
    if thing == LLMS:
        return llms(view)
    return llms_full(view, page_of_thing) if thing == LLMS_FULL else pages.page(thing)


def things_of(subjects: Iterable[Subject]) -> list[str]:
    """The things whose pages show the given subjects: their own and the one above that lists them."""
    things: dict[str, None] = {}
    for subject in subjects:
        unit, path = subject.unit, subject.path
        own = path if unit in {Unit.FILE, Unit.TOPIC} or not unit.is_rollup else f"{path}/" if path else "/"
        things |= {own: None}
        if unit.is_rollup and own not in {"/", TOPICS_PAGE}:
            above = parent_of(path)
            things |= {f"{above}/" if above else "/": None}
    return list(things)


def _nav(view: IndexView) -> bytes:
    """An MkDocs configuration next to the pages.  Zensical wants its own above them: `rotary-batch site` makes it."""
    lines = [
        "# Build with `mkdocs build -f .mkdocs/mkdocs.yml`, or with `rotary-batch site`.",
        f"site_name: {quoted(title(view.name))}",
        "docs_dir: ..",
        "site_dir: ../../site",
        "validation:",
        "  links:",
        "    not_found: info",  # links to sources lead out of the docs folder
        "    anchors: warn",
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
        if not thing:
            yield f"{indent}- {quoted(TOPICS_TITLE)}: {quoted(TOPICS_NAME)}"
            yield f'{indent}- "Symbol index": {quoted(INDEX_NAME)}'
        inside = view.inside[thing.removesuffix("/")]
        waiting += [(path, indent) for path in reversed(inside.files)]
        waiting += [(f"{folder}/", indent) for folder in reversed(inside.folders)]
