"""Open the database, for writing or read-only.

Imports little, so that `status` starts fast.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from rotary_batch.config import Settings, state_dir
from rotary_batch.errors import BusyError, ConfigError, StorageError
from rotary_batch.sizes import size_text
from rotary_batch.work.backup import back_up_before_migrating
from rotary_batch.work.ballast import keep_ballast
from rotary_batch.work.connection import explained, needs_recovery, open_database
from rotary_batch.work.lock import driver_lock, recovery_lock
from rotary_batch.work.patience import READER_PATIENCE_S, Connection
from rotary_batch.work.runs import unended_runs
from rotary_batch.work.schema import migrate, require_current
from rotary_batch.work.store import WorkStore


def database_path(settings: Settings) -> Path:
    """The database that the settings name, or the default one."""
    return settings.db or state_dir(os.environ) / "work.db"


@contextmanager
def writing(
    settings: Settings, *, create: bool = True, should_stop: Callable[[], bool] | None = None
) -> Iterator[WorkStore]:
    """The database as its only writer.  Raises BusyError when another run has it, StorageError when it is damaged."""
    path = database_path(settings)
    if not create:
        _require_database(path)
    with driver_lock(path):
        db = open_database(path, should_stop=should_stop)
        try:
            with explained(path):
                back_up_before_migrating(db, path)
                migrate(db)
                keep_ballast(path)
                store = WorkStore(db)
                _record_killed(store)
                yield store
        finally:
            db.close()


def _record_killed(store: WorkStore) -> None:
    if unended_runs(store):
        from rotary_batch.commands.recording import record_killed  # here, because it imports much that most do not need

        record_killed(store)


@contextmanager
def reading(settings: Settings) -> Iterator[WorkStore]:
    """The database read-only.  Raises ConfigError when it does not exist yet, StorageError when it is damaged."""
    path = database_path(settings)
    _require_database(path)
    _recover(path)
    db = open_database(path, read_only=True)
    try:
        with explained(path):
            require_current(db)
            yield WorkStore(db)
    finally:
        db.close()


@contextmanager
def copied(path: Path) -> Iterator[WorkStore]:
    """A copy of the database in a temporary folder, or a new one where there is none yet.  A driver goes on meanwhile.

    Raises StorageError when the temporary folder has no room for it, or the database is damaged.
    """
    with TemporaryDirectory(prefix="rotary-batch-") as folder:
        copy = Path(folder) / "work.db"
        if path.is_file() and path.stat().st_size:
            with explained(path):
                _copy(path, copy)
        with closing(open_database(copy, journal_mode="memory")) as db, explained(path):
            db.execute("pragma synchronous = off")
            migrate(db)
            yield WorkStore(db)


@contextmanager
def copied_as_it_is(path: Path) -> Iterator[Connection]:
    """As `copied`, but of whatever version and however damaged it is.  Raises sqlite3.DatabaseError, ConfigError."""
    _require_database(path)
    with TemporaryDirectory(prefix="rotary-batch-") as folder:
        copy = Path(folder) / "work.db"
        _copy(path, copy)
        with closing(sqlite3.connect(copy, isolation_level=None, factory=Connection)) as db:
            db.row_factory, db.path = sqlite3.Row, path
            yield db


def _copy(path: Path, copy: Path) -> None:
    """With a write-ahead log a driver commits meanwhile; else it waits for as long as reading the file takes."""
    _require_room(path, copy.parent)
    _recover(path)
    with closing(open_database(path, read_only=True)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)


def _require_room(path: Path, folder: Path) -> None:
    need, free = 2 * path.stat().st_size, shutil.disk_usage(folder).free  # what is indexed may be as much again
    if free < need:
        raise StorageError(
            f"{folder.parent}: {size_text(free)} are free, and a copy of the database may take {size_text(need)}; name "
            "another folder with TMPDIR"
        )


def _recover(path: Path) -> None:
    """Roll back what a killed run left half done.  A driver that is running does it itself."""
    give_up_at = time.monotonic() + READER_PATIENCE_S
    while needs_recovery(path) and time.monotonic() < give_up_at:
        try:
            with recovery_lock(path):
                open_database(path).close()
        except BusyError:
            time.sleep(0.05)


def _require_database(path: Path) -> None:
    if not path.is_file() or not path.stat().st_size:
        raise ConfigError(f"{path}: no database yet, since nothing is indexed; run `rotary-batch index REPO` first")
