"""Which pack in the cache was made of the files of a model, noted so that their headers are not read for each command.

Reading those of the default model takes 0.1 s.  A note holds as long as the status of every file is as it was.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from rotary_batch import private_file

_MAX_NOTE_NBYTES = 4096
_RULE = 1  # by which packs are named; under another one notes say nothing


class Wanted(NamedTuple):
    """What decides which pack it is."""

    model: Path
    folders: Sequence[Path]  # with the files of the model
    experts: str | None

    @property
    def digest(self) -> str:
        """Of all of it, with the status of every file.  Raises OSError."""
        statuses = [status for folder in self.folders for status in _statuses(folder)]
        return hashlib.sha256(json.dumps([_RULE, self.experts, statuses]).encode()).hexdigest()


def noted_pack(cache: Path, wanted: Wanted) -> Path | None:
    """The pack below `cache` that was noted for a model, if none of its files has changed."""
    with suppress(OSError, ValueError):
        path = _note(cache, wanted)
        digest, _, name = path.read_text().partition(" ") if path.stat().st_size <= _MAX_NOTE_NBYTES else ("", "", "")
        if digest == wanted.digest and name and Path(name).name == name:
            return cache / name
    return None


def note_pack(pack: Path, wanted: Wanted) -> None:
    """Note which pack it is; where nothing can be written, the next command reads the headers again."""
    with suppress(OSError):
        private_file.write(_note(pack.parent, wanted), f"{wanted.digest} {pack.name}")


def _note(cache: Path, wanted: Wanted) -> Path:
    key = os.fsencode(wanted.model.absolute()) + b" " + str(wanted.experts).encode()
    return cache.parent / "pack-places" / hashlib.sha256(key).hexdigest()


def _statuses(folder: Path) -> Iterator[list[str | int]]:
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            info = entry.stat()
            yield [entry.path, info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_ino]
