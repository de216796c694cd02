"""The journal of a pack that is being written: which slabs are on disk.

Its first line identifies the source and the format.  Every further line is one slab.  A slab enters the journal only
after its bytes have been synced.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO

from rotary_batch.core import ExpertKey
from rotary_batch.errors import BusyError
from rotary_batch.model.manifest import SlabPlace

JOURNAL_NAME = "packing.journal"


class Journal:
    """An open journal, which this process has locked."""

    def __init__(self, file: TextIO, path: Path) -> None:
        self._file = file
        self._path = path
        text = file.read()
        complete = text[: text.rfind("\n") + 1]  # the last line was being written at a kill
        file.truncate(len(complete))
        file.seek(0, os.SEEK_END)
        self._lines = complete.splitlines()

    @property
    def digest(self) -> str:
        """Identifies the source and format of the pack; empty for a new journal."""
        return self._lines[0] if self._lines else ""

    def start(self, digest: str) -> None:
        """Begin anew, for another source or format."""
        self._lines = [digest]
        self._file.seek(0)
        self._file.truncate()
        self._file.write(digest + "\n")
        self._file.flush()

    def slabs(self) -> dict[ExpertKey, SlabPlace]:
        """The slabs that earlier runs noted; a damaged line is ignored."""
        slabs = {}
        for line in self._lines[1:]:
            with contextlib.suppress(ValueError):
                layer, expert, offset, nbytes, sha256 = line.split()
                slabs[ExpertKey(int(layer), int(expert))] = SlabPlace(int(offset), int(nbytes), sha256)
        return slabs

    def append(self, slabs: Iterable[tuple[ExpertKey, SlabPlace]]) -> None:
        """Note slabs whose bytes are on disk."""
        rows = [(*key, *place) for key, place in slabs]
        self._file.writelines(f"{' '.join(map(str, row))}\n" for row in rows)
        self._file.flush()
        os.fsync(self._file.fileno())

    def remove(self) -> None:
        """Delete it: the pack is complete."""
        self._path.unlink()


@contextlib.contextmanager
def locked_journal(folder: Path) -> Iterator[Journal]:
    """The journal of a folder, for this process alone.  Raises BusyError when another process has it."""
    path = folder / JOURNAL_NAME
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        with os.fdopen(descriptor, "r+", encoding="latin-1") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise BusyError(f"{folder}: another process packs into it; wait for it") from error
            if _is_at(file, path):
                yield Journal(file, path)
                return


def _is_at(file: TextIO, path: Path) -> bool:
    """Whether an open file is still the one at the path: the process that finishes a pack deletes the journal."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file.fileno()), path.lstat())
    return False
