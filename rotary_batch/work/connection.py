"""Open the database file, with a journal that is safe on the SQLite at hand.

Knows pragmas and versions; knows nothing of tables.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rotary_batch.errors import ConfigError, StorageError

APPLICATION_ID = 0x726F7462  # "rotb"
BUSY_TIMEOUT_MS = 30_000
_REFUSED = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
}


def journal_mode_for(version: tuple[int, ...]) -> str:
    """WAL where the WAL-reset bug is fixed (3.51.3 and the 3.50.7, 3.44.6 backports), else the rollback journal.

    The bug loses committed writes when two connections write and checkpoint at once.
    """
    fixed = version >= (3, 51, 3) or (3, 50, 7) <= version < (3, 51) or (3, 44, 6) <= version < (3, 45)
    return "wal" if fixed else "delete"


def open_database(path: Path, *, read_only: bool = False, journal_mode: str | None = None) -> sqlite3.Connection:
    """Open or create the file.  Raises StorageError when the disk refuses, ConfigError for a foreign file."""
    try:
        if not read_only:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        uri = f"{path.resolve().as_uri()}?mode={'ro' if read_only else 'rw'}"
        connection = sqlite3.connect(uri, uri=True, isolation_level=None)
    except (OSError, sqlite3.OperationalError) as error:
        raise StorageError(f"{path}: cannot be opened: {error}; name another file with --db") from error
    try:
        with explained(path):
            _set_up(connection, path, read_only=read_only, journal_mode=journal_mode)
    except (ConfigError, StorageError, sqlite3.Error):
        connection.close()
        raise
    return connection


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """What SQLite says of a file that it cannot use becomes our error; a mistake of ours stays what it is."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in _REFUSED:
            raise StorageError(f"{path}: {error}; check the disk and that nothing else holds the file") from error
        if code == sqlite3.SQLITE_NOTADB:
            raise _foreign(path, str(error)) from error
        # Every table was there when the file was opened.
        if code == sqlite3.SQLITE_CORRUPT or str(error).startswith("no such table"):
            raise StorageError(
                f"{path}: damaged: {error}; put back a copy, or move the file away and run `rotary-batch index` again"
            ) from error
        raise


def _foreign(path: Path, why: str) -> ConfigError:
    return ConfigError(f"{path}: not a rotary-batch database: {why}; name another file with --db")


def _set_up(connection: sqlite3.Connection, path: Path, *, read_only: bool, journal_mode: str | None) -> None:
    connection.row_factory = sqlite3.Row
    connection.execute(f"pragma busy_timeout = {BUSY_TIMEOUT_MS}")
    connection.execute("pragma foreign_keys = on")
    owner = connection.execute("pragma application_id").fetchone()[0]
    if owner not in (0, APPLICATION_ID):
        raise _foreign(path, f"application id {owner:#x}")
    if owner == 0 and connection.execute("select count(*) from sqlite_master").fetchone()[0]:
        raise _foreign(path, "it has tables of another program")
    if read_only:
        return
    connection.execute(f"pragma application_id = {APPLICATION_ID}")
    connection.execute(f"pragma journal_mode = {journal_mode or journal_mode_for(sqlite3.sqlite_version_info)}")
    connection.execute("pragma synchronous = full")
