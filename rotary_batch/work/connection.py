"""Open the database file with a journal mode that is safe on this SQLite, and explain SQLite's errors."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rotary_batch.errors import ConfigError, DatabaseError, RotaryError
from rotary_batch.work.ballast import free_ballast
from rotary_batch.work.patience import BUSY_TIMEOUT_MS, READER_PATIENCE_S, WRITER_PATIENCE_S, Connection

# What SQLite reports as errors of the statement.  Every table existed when the file was opened.
_DAMAGED = ("no such table", "unsupported file format")
APPLICATION_ID = 0x726F7462  # "rotb"
_ADVICE = {
    sqlite3.SQLITE_FULL: "the disk is full; free some space, then run the same command again",
    sqlite3.SQLITE_READONLY: "it cannot be written; check its permissions, those of its folder and how it is mounted",
    sqlite3.SQLITE_PERM: "it may not be opened; check its permissions",
    sqlite3.SQLITE_CANTOPEN: "it or its journal cannot be opened; check its folder, and how many files may be open",
    sqlite3.SQLITE_IOERR: "the disk failed; check it, then run the same command again",
    sqlite3.SQLITE_BUSY: "another program has it locked; close that, then run the same command again",
    sqlite3.SQLITE_LOCKED: "another program has it locked; close that, then run the same command again",
    sqlite3.SQLITE_CORRUPT: "damaged; put back a copy, or move the file away and run `rotary-batch index` again",
}


def journal_mode_for(version: tuple[int, ...]) -> str:
    """WAL where the WAL-reset bug is fixed (3.51.3 and the 3.50.7, 3.44.6 backports), else the rollback journal.

    The bug loses committed writes when two connections write and checkpoint at once.
    """
    fixed = version >= (3, 51, 3) or (3, 50, 7) <= version < (3, 51) or (3, 44, 6) <= version < (3, 45)
    return "wal" if fixed else "delete"


def open_database(
    path: Path,
    *,
    read_only: bool = False,
    journal_mode: str | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> Connection:
    """Open or create the file.  Raises DatabaseError when the disk refuses, ConfigError for a foreign file."""
    try:
        if not read_only:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with suppress(FileExistsError):  # closing a file that SQLite has open would release its locks
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        uri = f"{path.resolve().as_uri()}?mode={'ro' if read_only else 'rw'}"
        connection = sqlite3.connect(uri, uri=True, isolation_level=None, factory=Connection)
    except (OSError, sqlite3.OperationalError) as error:
        raise DatabaseError(f"{path}: cannot be opened: {error}; name another file with --db") from error
    connection.path, connection.should_stop = path, should_stop
    connection.patience_s = READER_PATIENCE_S if read_only else WRITER_PATIENCE_S
    try:
        with explained(path):
            _set_up(connection, path, read_only=read_only, journal_mode=journal_mode)
    except (RotaryError, sqlite3.Error):
        connection.close()
        raise
    return connection


def needs_recovery(path: Path) -> bool:
    """Whether a killed writer left an unfinished transaction, which only a writer can roll back."""
    connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
    try:
        connection.execute("select 1 from sqlite_master").fetchone()
    except sqlite3.OperationalError as error:
        return error.sqlite_errorcode in {sqlite3.SQLITE_READONLY_ROLLBACK, sqlite3.SQLITE_READONLY_RECOVERY}
    except sqlite3.DatabaseError:
        return False
    finally:
        connection.close()
    return False


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn SQLite's errors about the file into our own; errors in our SQL pass unchanged."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_NOTADB:
            raise _foreign(path, str(error)) from error
        if code == sqlite3.SQLITE_FULL:
            free_ballast(path)
        if code in _ADVICE:
            raise DatabaseError(f"{path}: {error} ({error.sqlite_errorname}): {_ADVICE[code]}") from error
        if str(error).startswith(_DAMAGED):
            raise DatabaseError(f"{path}: {error}: {_ADVICE[sqlite3.SQLITE_CORRUPT]}") from error
        raise


def _foreign(path: Path, why: str) -> ConfigError:
    return ConfigError(f"{path}: not a rotary-batch database: {why}; name another file with --db")


def _set_up(connection: Connection, path: Path, *, read_only: bool, journal_mode: str | None) -> None:
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
    if owner != APPLICATION_ID:
        connection.execute(f"pragma application_id = {APPLICATION_ID}")
    connection.execute(f"pragma journal_mode = {journal_mode or journal_mode_for(sqlite3.sqlite_version_info)}")
    # As `full`, and a commit that unlinks its journal syncs the folder: else a power cut can bring the journal back.
    connection.execute("pragma synchronous = extra")
