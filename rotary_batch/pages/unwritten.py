"""A docs folder that is read and never written: what a dry run compares its pages with."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from rotary_batch.pages.safe_folder import SafeFolder, Staged, open_safe_folder


class UnwrittenFolder(SafeFolder):
    """Reads as a docs folder does.  Everything that would write does nothing and reports success."""

    def stage(self, path: str, data: bytes) -> Staged:
        """The page as it would be staged."""
        *folder, name = path.split("/")
        return Staged(tuple(folder), "", name)

    def publish(self, staged: Sequence[Staged]) -> tuple[dict[str, str], dict[str, str]]:
        """All of them count as published."""
        return {one.path: "" for one in staged}, {}

    def discard(self, staged: Sequence[Staged]) -> None:
        """There is nothing to remove."""

    def move(self, path: str, name: str) -> None:
        """Leave the file where it is."""

    def remove(self, path: str) -> None:
        """Leave the file."""

    def remove_if_empty(self, path: str) -> None:
        """Leave the folder."""


@contextmanager
def open_unwritten(root: Path, out: str) -> Iterator[SafeFolder]:
    """The docs folder `out` of the repository at `root`, or an empty one in its place.  Raises InputError."""
    folder = open_safe_folder(root, out, create=False, kind=UnwrittenFolder)
    if folder is not None:
        with folder:
            yield folder
        return
    with TemporaryDirectory() as empty, UnwrittenFolder(os.open(empty, os.O_RDONLY), root / out) as folder:
        yield folder
