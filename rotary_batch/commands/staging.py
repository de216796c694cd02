"""The folder that a site is built in: pages with their diagrams drawn, pages of sources, the configuration."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Set
from pathlib import Path

from rotary_batch.core import TOPICS_PAGE
from rotary_batch.errors import RotaryError
from rotary_batch.pages.descriptors import BlockedError
from rotary_batch.pages.drawing import with_drawings
from rotary_batch.pages.front import body_of
from rotary_batch.pages.links import source_url
from rotary_batch.pages.maps import map_links
from rotary_batch.pages.page import IndexView
from rotary_batch.pages.page_paths import NAV_NAME, NEW_SUFFIX
from rotary_batch.pages.safe_folder import DocsFile, SafeFolder
from rotary_batch.pages.sanitise import link, path_link
from rotary_batch.pages.source_page import SCRIPT, STYLE, source_page, source_page_path
from rotary_batch.pages.web_config import CONFIG_NAME, DOCS_NAME, SCRIPT_NAME, SITE_NAME, STYLE_NAME, web_config
from rotary_batch.pages.web_page import inline_scripts, lines_of, with_plain_title, with_policy, with_source_links
from rotary_batch.repo.git import Repository
from rotary_batch.window import Window

_COPIED = (".md", ".txt", ".png", ".jpg", ".jpeg", ".gif", ".webp")  # no scripts, and nothing that may hold one
_POLL_S = 0.2
_MAX_WORDS = 2000  # characters of what Zensical said last


class Staging:
    """Builds the site of one repository in a folder of its own."""

    def __init__(self, folder: Path, view: IndexView, window: Window) -> None:
        self._folder = folder
        self._docs = folder / DOCS_NAME
        self._view = view
        self._window = window

    def copy_docs(self, docs: SafeFolder) -> None:
        """Copy pages and pictures, with the diagrams drawn."""
        view = self._view
        folders = {view.paths[thing]: thing.rstrip("/") for thing in view.paths if thing.endswith("/")}
        folders[view.paths[TOPICS_PAGE]] = ""  # it shows the map of the first page
        for file in filter(_is_copied, docs.walk()):
            self._window.check()
            if (data := _content(docs, file)) is None:
                continue
            if file.path.endswith(".md"):
                data = body_of(data)
            if file.path in folders:
                links = map_links(view, folders[file.path])
                data = with_drawings(data.decode("utf-8", "replace"), links).encode()
            self._write(file.path, data)

    def write_sources(self, repository: Repository) -> set[str]:
        """Write a page of each source that is as it was indexed; returns their paths."""
        blobs = {path: file.blob for path, file in self._view.sources.items()}
        entries = [entry for entry in repository.entries() if blobs.get(entry.path) == entry.blob]
        for entry, data in repository.read(entries):
            self._window.check()
            page = self._view.paths[entry.path]
            self._write(source_page_path(page), source_page(entry.path, data, page, self._view.name).encode())
        return {entry.path for entry in entries}

    def build(self) -> Path:
        """Run Zensical; returns the folder with the site."""
        self._write(STYLE_NAME, STYLE.encode())
        self._write(SCRIPT_NAME, SCRIPT.encode())
        (self._folder / CONFIG_NAME).write_text(web_config(self._view), encoding="utf-8")
        log = self._folder / "log"
        command = [sys.executable, "-P", "-m", "zensical", "build", "-f", CONFIG_NAME]
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, cwd=self._folder, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
            )
            try:
                while process.poll() is None:
                    self._wait(process)
                    self._window.check()
            finally:
                process.kill()
                process.wait()
        if process.returncode:
            words = log.read_text("utf-8", "replace")[-_MAX_WORDS:].strip()
            raise RotaryError(f"Zensical could not build the site (exit code {process.returncode}):\n{words}")
        return self._folder / SITE_NAME

    def finish(self, site: Path, forge: str | None, sources: Set[str]) -> int:
        """Make the links to sources and the policy of every page; returns the number of pages."""
        scripts = inline_scripts((site / "404.html").read_text(encoding="utf-8"))
        own = {site / source_page_path(self._view.paths[path]) for path in sources}
        number = 0
        for page in sorted(_pages(site)):
            self._window.check()
            text = page.read_text(encoding="utf-8")
            if page not in own:
                number += 1
                text = with_source_links(
                    text,
                    page.relative_to(site).as_posix(),
                    self._view.docs_root,
                    self._view.root,
                    lambda path, fragment: self._source_link(path, fragment, forge, sources),
                )
            if page.parent == site:
                text = with_plain_title(text)
            page.write_text(with_policy(text, scripts), encoding="utf-8")
        return number

    def _source_link(self, path: str, fragment: str, forge: str | None, sources: Set[str]) -> str | None:
        lines = lines_of(fragment)
        if forge:
            start, end = lines or (1, 1)
            return link(source_url(forge, path, start, end)).replace("&amp;", "&") if path else None
        if path not in sources:
            return None
        return path_link(source_page_path(self._view.paths[path])) + (f"#L{lines[0]}" if lines else "")

    def _write(self, path: str, data: bytes) -> None:
        place = self._docs / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)

    def _wait(self, process: subprocess.Popen[bytes]) -> None:
        try:
            process.wait(_POLL_S)
        except subprocess.TimeoutExpired:
            return


def _is_copied(file: DocsFile) -> bool:
    above = NAV_NAME.partition("/")[0]
    is_hidden = above in file.path.split("/") or file.is_temporary or file.path.endswith(NEW_SUFFIX)
    return not is_hidden and file.path.lower().endswith(_COPIED)


def _content(docs: SafeFolder, file: DocsFile) -> bytes | None:
    try:
        content = docs.read(file.path)
    except BlockedError:
        return None
    return content and content.data


def _pages(site: Path) -> Iterator[Path]:
    return (path for path in site.rglob("*.html") if path.is_file())
