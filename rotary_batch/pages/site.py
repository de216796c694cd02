"""All the files of a site: every page, the MkDocs navigation and llms.txt.

Knows which files there are; what is in a page is `markdown.py`'s business.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable
from pathlib import PurePosixPath
from urllib.parse import quote

from rotary_batch.pages.front import GENERATOR
from rotary_batch.pages.markdown import ProseMap, Site
from rotary_batch.pages.page import IndexView, file_summary, folder_summary, parent_of

NAV_NAME = ".mkdocs/mkdocs.yml"  # MkDocs refuses a configuration that lies in its own docs_dir
LLMS_NAME = "llms.txt"


def render_site(view: IndexView, prose: ProseMap) -> dict[str, bytes]:
    """Path below the docs folder -> bytes, of everything."""
    site = Site(view, prose)
    things = ["/", *(f"{folder}/" for folder in view.folders), *(file.path for file in view.sources)]
    pages = {site.paths[thing]: _page(site, thing) for thing in things}
    return pages | {NAV_NAME: _nav(view, site), LLMS_NAME: _llms(view, site)}


def render_pages(view: IndexView, prose: ProseMap, units: Iterable[tuple[str, str]]) -> dict[str, bytes]:
    """The pages that show the given (unit, subject)s: their own and the one above that lists them."""
    site = Site(view, prose)
    things: dict[str, None] = {}
    for unit, subject in units:
        path = subject.rsplit("@", 1)[0] if unit == "chunk" else subject
        own = path if unit in {"chunk", "file"} else f"{path}/" if path else "/"
        things |= {own: None}
        if unit != "chunk" and own != "/":
            above = parent_of(path)
            things |= {f"{above}/" if above else "/": None}
    return {site.paths[thing]: _page(site, thing) for thing in things if thing in site.paths}


def _page(site: Site, thing: str) -> bytes:
    return site.folder_page(thing.rstrip("/")) if thing.endswith("/") else site.file_page(thing)


def _nav(view: IndexView, site: Site) -> bytes:
    """An MkDocs configuration beside the pages; Zensical reads it too."""
    lines = [
        f"site_name: {json.dumps(view.name)}",
        "docs_dir: ..",
        "site_dir: ../../site",
        "nav:",
        '  - "Overview": index.md',
    ]
    lines += _nav_of(view, site, "", "  ")
    text = "\n".join(["# Written by rotary-batch; build with `mkdocs build -f .mkdocs/mkdocs.yml`.", *lines]) + "\n"
    return text.encode()


def _nav_of(view: IndexView, site: Site, folder: str, indent: str) -> list[str]:
    lines = []
    for inner in [f for f in view.folders if parent_of(f) == folder]:
        lines.append(f"{indent}- {json.dumps(PurePosixPath(inner).name + '/')}:")
        lines.append(f'{indent}    - "Overview": {json.dumps(site.paths[f"{inner}/"])}')
        lines += _nav_of(view, site, inner, indent + "    ")
    for file in view.sources:
        if parent_of(file.path) == folder:
            lines.append(f"{indent}- {json.dumps(PurePosixPath(file.path).name)}: {json.dumps(site.paths[file.path])}")
    return lines


def _llms(view: IndexView, site: Site) -> bytes:
    """https://llmstxt.org: a title, a quotation, lists of links with one line each."""
    lines = [f"# {view.name}", "", f"> {_one_line(folder_summary('', view))}"]
    for folder in ["", *view.folders]:
        files = [file.path for file in view.sources if parent_of(file.path) == folder]
        if files:
            lines += ["", f"## {folder or '(top)'}", ""]
            lines += [f"- [{path}]({quote(site.paths[path])}): {_one_line(file_summary(path, view))}" for path in files]
    return ("\n".join([*lines, "", f"<!-- {GENERATOR} wrote this -->"]) + "\n").encode()


def _one_line(text: str) -> str:
    return textwrap.shorten(text, 200, placeholder=" …")
