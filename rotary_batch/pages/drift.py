"""Whether docs on disk still fit their sources.  Needs the docs and the sources, no database and no model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rotary_batch.pages.front import read
from rotary_batch.pages.page import folder_blob, page_paths


@dataclass(slots=True)
class Drift:
    """Page paths that are not as they should be."""

    stale: list[str] = field(default_factory=list)  # a source changed since
    missing: list[str] = field(default_factory=list)
    edited: list[str] = field(default_factory=list)
    orphaned: list[str] = field(default_factory=list)  # what it described is gone

    @property
    def num_found(self) -> int:
        """How many pages drifted."""
        return len(self.stale) + len(self.missing) + len(self.edited) + len(self.orphaned)


def check_docs(docs_dir: Path, blobs: Mapping[str, str]) -> Drift:
    """Compare the docs folder with the sources (path -> blob) that should have pages."""
    drift = Drift()
    wanted = {page: thing for thing, page in page_paths(blobs).items()}
    for page in sorted(wanted):
        target = docs_dir / page
        if not target.is_file():
            drift.missing.append(page)
            continue
        front = read(target.read_bytes())
        if front.is_human:
            continue
        if not front.is_ours or front.is_edited:
            drift.edited.append(page)
        elif front.sources != _expected(wanted[page], blobs):
            drift.stale.append(page)
    for target in sorted(docs_dir.rglob("*.md")):
        page = target.relative_to(docs_dir).as_posix()
        if page not in wanted and read(target.read_bytes()).is_ours:
            drift.orphaned.append(page)
    return drift


def _expected(thing: str, blobs: Mapping[str, str]) -> dict[str, str]:
    if not thing.endswith("/"):
        return {thing: blobs[thing]}
    return {thing: folder_blob(thing.rstrip("/"), blobs)}
