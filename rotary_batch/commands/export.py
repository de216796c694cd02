"""`export`: the index and its answers as a SQLite file for other programs."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rotary_batch.commands.repositories import select_repositories
from rotary_batch.errors import InputError, StorageError
from rotary_batch.work.snapshot import SNAPSHOT_ID, copy_database, write_snapshot
from rotary_batch.work.store import WorkStore

_ID_AT = 68  # bytes; where SQLite's header has the application id


def export_sqlite(store: WorkStore, path: Path, roots: Sequence[Path], mode: int) -> dict[str, Any]:
    """Write a snapshot of some repositories (none named: of all); it replaces an earlier one.

    Raises InputError when another file has that name, StorageError when the disk refuses.
    """
    rows = select_repositories(store, roots)
    _require_free(path)
    try:
        # In the folder of the file, so that the disk has room and the last step is a rename.
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            copy, snapshot = Path(folder, "copy.db"), Path(folder, "snapshot.db")
            copy_database(store, copy)
            write_snapshot(copy, snapshot, [row.id for row in rows])
            _publish(snapshot, path, mode)
    except OSError as error:
        raise StorageError(f"{path}: cannot be written: {error.strerror}; name a file in another folder") from error
    return {"file": str(path), "nbytes": path.stat().st_size, "repositories": [row.name for row in rows]}


def _require_free(path: Path) -> None:
    if not os.path.lexists(path):
        return
    with suppress(OSError):
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                if file.read(_ID_AT + 4)[_ID_AT:] == SNAPSHOT_ID.to_bytes(4, "big"):
                    return
    raise InputError(f"{path}: exists and is not a snapshot of rotary-batch; move it away or name another file")


def _publish(snapshot: Path, path: Path, mode: int) -> None:
    descriptor = os.open(snapshot, os.O_RDWR)
    try:
        os.fchmod(descriptor, mode)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    snapshot.replace(path)
