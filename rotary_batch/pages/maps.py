"""The map of a folder: which of its parts uses which, without tests."""

from __future__ import annotations

from rotary_batch.pages.diagram import Diagram, diagram, label_of
from rotary_batch.pages.links import relative
from rotary_batch.pages.outline import is_test_file, is_test_folder
from rotary_batch.pages.page import IndexView
from rotary_batch.pages.page_paths import parent_of
from rotary_batch.pages.sanitise import path_link


def folder_map(view: IndexView, folder: str) -> Diagram | None:
    """The diagram of a folder; None when its parts do not use each other."""
    inside = view.inside[folder]
    things = [*(f"{inner}/" for inner in inside.folders), *inside.files]
    tests = [_name(thing) for thing in things if is_test(thing)] if not is_test_folder(folder) else []
    return diagram(view.uses.get(folder, {}), tests)


def mapped_folder(view: IndexView, folder: str) -> str | None:
    """The folder whose map the page of a folder shows: the first page shows that of the folder with all the code."""
    here: str | None = folder
    while here is not None and folder_map(view, here) is None:
        inner = [name for name in view.inside[here].folders if not is_test(f"{name}/")]
        here = inner[0] if not folder and len(inner) == 1 else None
    return here


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
