"""Check every link and anchor of a Markdown tree and of a built site, as a person who clicks on each of them would."""

from __future__ import annotations

import posixpath
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote, urlsplit

from markdown_it import MarkdownIt

MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable("table")
_FRONT = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
_ID = re.compile(r'<a id="([^"]*)">')


def forge_slug(text: str) -> str:
    return re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")


def toc_slug(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain).strip().lower())


def markdown_faults(docs: Path, root: Path) -> list[str]:
    """Links of pages that lead nowhere, here or in the repository, and anchors that are doubled, on any renderer."""
    pages = {path.relative_to(docs).as_posix(): path for path in docs.rglob("*.md")}
    found = {name: _markdown_page(path.read_text(encoding="utf-8")) for name, path in pages.items()}
    faults = [f"{name}: doubled anchor {anchor}" for name, (_, doubled, _) in found.items() for anchor in doubled]
    for name, (_, _, links) in found.items():
        for target in links:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            place = (
                posixpath.normpath(posixpath.join(posixpath.dirname(name), unquote(parts.path))) if parts.path else name
            )
            if place in found:
                anchors = found[place][0]
                if parts.fragment and not all(unquote(parts.fragment) in same for same in anchors):
                    faults.append(f"{name}: no anchor {target}")
            elif place.startswith("../"):
                source = (docs / posixpath.dirname(name) / unquote(parts.path)).resolve()
                if not source.is_relative_to(root) or not source.exists():
                    faults.append(f"{name}: no source {target}")
                elif parts.fragment and not _has_lines(source, parts.fragment):
                    faults.append(f"{name}: no lines {target}")
            elif not (docs / place).exists():
                faults.append(f"{name}: dead link {target}")
    return faults


def _markdown_page(text: str) -> tuple[tuple[set[str], set[str]], list[str], list[str]]:
    """(anchors on a forge and by Python-Markdown), doubled ones that links name, targets of links."""
    tokens = MARKDOWN.parse(_FRONT.sub("", text, count=1))
    explicit = [anchor for token in tokens for anchor in _ID.findall(token.content)]
    headings = [
        "".join(child.content for child in after.children or [])
        for token, after in pairwise(tokens)
        if token.type == "heading_open"
    ]
    slugs = [[slug(heading) for heading in headings] + explicit for slug in (forge_slug, toc_slug)]
    links = [
        str(child.attrs["href"]) for token in tokens for child in token.children or [] if child.type == "link_open"
    ]
    named = {unquote(urlsplit(link).fragment) for link in links}
    doubled = [anchor for some in slugs for anchor, number in Counter(some).items() if number > 1 and anchor in named]
    return (set(slugs[0]), set(slugs[1])), doubled, links


def _has_lines(source: Path, fragment: str) -> bool:
    match = re.fullmatch(r"L(\d+)(?:-L(\d+))?", fragment)
    lines = source.read_bytes().count(b"\n") + 1
    return match is not None and 1 <= int(match[1]) <= int(match[2] or match[1]) <= lines


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.targets: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if values.get("id"):
            self.ids.append(str(values["id"]))
        for name in ("href", "src"):
            if values.get(name) is not None:
                self.targets.append(str(values[name]))


def html_faults(site: Path) -> list[str]:
    """Links of a built site that lead nowhere in it, doubled ids, and everything that another host would be asked for."""
    pages = dict(_html_pages(site))
    ids = {name: set(page.ids) for name, page in pages.items()}
    faults = []
    for name, page in pages.items():
        faults += [f"{name}: doubled id {one}" for one, number in Counter(page.ids).items() if number > 1]
        if name == "404.html":  # it is shown at any path, so its links begin at the top of the host
            continue
        for target in page.targets:
            parts = urlsplit(target)
            if parts.scheme in {"https", "data"}:
                continue
            place = (
                posixpath.normpath(posixpath.join(posixpath.dirname(name), unquote(parts.path))) if parts.path else name
            )
            if parts.scheme or parts.netloc or not (site / place).is_file():
                faults.append(f"{name}: dead link {target}")
            elif parts.fragment and place in ids and unquote(parts.fragment) not in ids[place]:
                faults.append(f"{name}: no anchor {target}")
    return faults


def _html_pages(site: Path) -> Iterator[tuple[str, _Page]]:
    for path in sorted(site.rglob("*.html")):
        page = _Page()
        page.feed(path.read_text(encoding="utf-8"))
        yield path.relative_to(site).as_posix(), page
