"""Whether docs on disk still match their sources.  Needs the docs and the sources, no database and no model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rotary_batch.core import TOPICS_PAGE, stub_of
from rotary_batch.pages.descriptors import BlockedError
from rotary_batch.pages.front import read
from rotary_batch.pages.page import folder_blobs
from rotary_batch.pages.page_paths import page_paths
from rotary_batch.pages.safe_folder import SafeFolder
from rotary_batch.pages.symbol_index import INDEX, INDEX_NAME, is_index_thing


@dataclass(slots=True)
class Drift:
    """Page paths that differ from what the sources need."""

    stale: list[str] = field(default_factory=list)  # a source changed since
    missing: list[str] = field(default_factory=list)
    edited: list[str] = field(default_factory=list)
    orphaned: list[str] = field(default_factory=list)  # the source no longer exists
    blocked: list[str] = field(default_factory=list)  # something else has the path of the page

    @property
    def num_found(self) -> int:
        """How many pages drifted."""
        return sum(map(len, (self.stale, self.missing, self.edited, self.orphaned, self.blocked)))


def check_docs(folder: SafeFolder | None, blobs: Mapping[str, str], stubs: Mapping[str, str] | None = None) -> Drift:
    """Compare the docs folder, if there is one, with the sources (path -> blob) that should have pages.

    `stubs` (path -> blob) are shown on the pages of their sources.
    """
    drift = Drift()
    wanted = {page: thing for thing, page in page_paths(blobs).items()}
    wanted[INDEX_NAME] = INDEX
    if folder is None:
        drift.missing += sorted(wanted)
        return drift
    sources = _sources(blobs, stubs or {})
    for page in sorted(wanted):
        _check_page(folder, page, sources[wanted[page]], drift)
    for path in sorted(file.path for file in folder.walk() if file.path.endswith(".md")):
        if is_index_thing(f"/{path}"):  # how many there are depends on the symbols
            if path not in wanted:
                _check_page(folder, path, {}, drift)
        elif path not in wanted and _is_ours(folder, path):
            drift.orphaned.append(path)
    return drift


def _check_page(folder: SafeFolder, page: str, sources: dict[str, str], drift: Drift) -> None:
    try:
        content = folder.read(page)
    except BlockedError:
        drift.blocked.append(page)
        return
    if content is None:
        drift.missing.append(page)
        return
    front = read(content.data)
    if front.is_human:
        return
    if not front.is_ours or front.is_edited:
        drift.edited.append(page)
    elif front.sources != sources:
        drift.stale.append(page)


def _is_ours(folder: SafeFolder, path: str) -> bool:
    try:
        content = folder.read(path)
    except BlockedError:
        return False
    if content is None:
        return False
    front = read(content.data)
    return front.is_ours and not front.is_human  # a person who keeps the page of a source that is gone has settled it


def _sources(blobs: Mapping[str, str], stubs: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """What the page of each thing should say that it describes."""
    of_files = {path: {path: blob} for path, blob in blobs.items()}
    for path in of_files.keys() & {stub.removesuffix("i") for stub in stubs}:
        of_files[path][stub_of(path)] = stubs[stub_of(path)]
    of_folders = {f"{folder}/": {f"{folder}/": blob} for folder, blob in folder_blobs(blobs).items()}
    return {INDEX: {}, TOPICS_PAGE: of_folders["/"]} | of_files | of_folders
