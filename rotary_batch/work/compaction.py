"""Give the free pages of the database file back to the disk, where that fits the time and the disk."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path

from rotary_batch.work.store import WorkStore

_WORTH = 0.25  # of the file; less is used again by the next nights
_BYTES_PER_S = 20e6  # of a slow disk: the file is written twice
_MAX_NBYTES = 500_000_000  # whoever comes after a kill puts the old pages back within lock.RECOVERY_PATIENCE_S
_STEPS = 10_000  # of SQLite's machine between two looks at the time


def file_nbytes(store: WorkStore) -> int:
    """The size of the database file."""
    return _pragma(store, "page_count") * _pragma(store, "page_size")


def free_nbytes(store: WorkStore) -> int:
    """How much of the database file is free."""
    return _pragma(store, "freelist_count") * _pragma(store, "page_size")


def compact(store: WorkStore, seconds_left: float, should_stop: Callable[[], bool]) -> bool:
    """Make the file as small as its content if that is worth it and fits; returns whether it did."""
    nbytes = file_nbytes(store)
    if not free_nbytes(store) >= _WORTH * nbytes or nbytes > min(_MAX_NBYTES, seconds_left * _BYTES_PER_S):
        return False
    if not _has_room(Path(os.path.realpath(store.db.path)).parent, nbytes):
        return False
    store.db.set_progress_handler(should_stop, _STEPS)
    try:
        store.db.execute("vacuum")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
            raise
        return False
    finally:
        store.db.set_progress_handler(None, 0)
    store.db.bound_log()
    return True


def _has_room(folder: Path, nbytes: int) -> bool:
    """For the journal next to the file, and for the copy in SQLite's temporary folder, which may be on that disk."""
    temporary = Path(os.environ.get("SQLITE_TMPDIR") or tempfile.gettempdir())
    return shutil.disk_usage(folder).free >= 3 * nbytes and shutil.disk_usage(temporary).free >= 2 * nbytes


def _pragma(store: WorkStore, name: str) -> int:
    return int(store.db.execute(f"pragma {name}").fetchone()[0])
