"""The map of a folder: which of its parts uses which, without tests."""

from __future__ import annotations

from collections import Counter

from rotary_batch.pages.diagram import Diagram, diagram, label_of, mermaid
from rotary_batch.pages.links import Links, relative
from rotary_batch.pages.outline import is_test_file, is_test_folder
from rotary_batch.pages.page import IndexView
from rotary_batch.pages.page_paths import parent_of
from rotary_batch.pages.sanitise import code, path_link

MAX_DESCENT = 8  # folders that the first page looks into


def folder_map(view: IndexView, folder: str) -> Diagram | None:
    """The diagram of a folder; None when its parts do not use each other."""
    inside = view.inside[folder]
    things = [*(f"{inner}/" for inner in inside.folders), *inside.files]
    tests = [_name(thing) for thing in things if is_test(thing)] if not is_test_folder(folder) else []
    return diagram(view.uses.get(folder, {}), tests)


def mapped_folder(view: IndexView, folder: str) -> str | None:
    """The folder whose map the page of a folder shows: its own, or on the first page that of the one with most code."""
    if folder_map(view, folder) is not None:
        return folder
    here = ""
    for _ in range(0 if folder else MAX_DESCENT):
        below = f"{here}/" if here else ""
        parts = (path[len(below) :].split("/", 1) for path in view.sources if path.startswith(below))
        counts = Counter(part[0] for part in parts if len(part) > 1 and not is_test_folder(part[0]))
        if not counts:
            return None
        here = below + min(counts, key=lambda name: (-counts[name], name))
        if folder_map(view, here) is not None:
            return here
    return None


def map_block(view: IndexView, links: Links, folder: str) -> str:
    """What uses what in a folder, drawn; on the first page, in the first folder that has a map; "" without one."""
    shown = mapped_folder(view, folder)
    graph = None if shown is None else folder_map(view, shown)
    if shown is None or graph is None:
        return ""
    place = "" if shown == folder else f" in [{code(shown)}]({links.page('/', f'{shown}/')})"
    return f"What uses what{place}:\n\n{mermaid(graph)}"


def map_links(view: IndexView, folder: str) -> dict[str, str]:
    """Label -> target of a link from the page of a folder, of all the parts that its map may show."""
    shown = mapped_folder(view, folder)
    if shown is None:
        return {}
    inside, here = view.inside[shown], parent_of(view.paths[f"{folder}/" if folder else "/"])
    things = [*(f"{inner}/" for inner in inside.folders), *inside.files]
    pages = {thing: relative(view.paths[thing], here).removesuffix(".md") + ".html" for thing in things}
    return {label_of(_name(thing)): path_link(page) for thing, page in pages.items()}


def is_test(thing: str) -> bool:
    """Whether a file, or a folder, whose name ends with a slash, holds tests."""
    return is_test_folder(thing.rstrip("/")) if thing.endswith("/") else is_test_file(thing) or is_test_folder(thing)


def _name(thing: str) -> str:
    return thing.rstrip("/").rpartition("/")[2]
