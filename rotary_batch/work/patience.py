"""A connection that waits for other programs, so that a reader of the database does not end a run.

With a rollback journal, a reader that keeps its transaction open (a backup, a database browser) blocks every commit.
SQLite's own busy timeout sleeps in C, where Python handles no signal, so it is short and the waiting is done here: each
statement is retried until it succeeds, the window closes, or an hour has passed.  A blocked `commit` leaves its
transaction as it is, so a retry loses nothing.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from rotary_batch.errors import BusyError, StoppedError
from rotary_batch.log import event

BUSY_TIMEOUT_MS = 200
WRITER_PATIENCE_S = 3600.0
READER_PATIENCE_S = 30.0  # a person waits for the answer
GRACE_S = 5.0  # for a commit after the window has closed
_RETRY_INTERVAL_S = 0.05  # SQLite does not use its timeout where waiting could be a deadlock
MAX_WAL_NBYTES = 64 << 20  # a write-ahead log of this size waits for the readers that keep it from starting again
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_LOCK_BYTES = range(0x40000000, 0x40000000 + 512)  # where SQLite puts its locks in the database file
_SHM_LOCK_BYTES = range(120, 128)  # and in the shared memory of a write-ahead log


class Connection(sqlite3.Connection):
    """Retries statements while the database is locked; the error at the end names the process that locked it."""

    path: Path = Path()
    patience_s: float = READER_PATIENCE_S
    should_stop: Callable[[], bool] | None = None
    _closed_at: float | None = None  # when this connection first saw the window closed

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:  # noqa: ANN401 - whatever sqlite3 takes
        """Run one statement.  Raises BusyError after `patience_s`, StoppedError when the window has closed."""
        since: float | None = None
        while True:
            try:
                cursor = super().execute(sql, parameters)
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF not in _BUSY:
                    raise
                since = self._wait(since, error)
            else:
                if since is not None:
                    event("database free", waited_s=round(time.monotonic() - since, 1))
                return cursor

    def bound_log(self) -> None:
        """After a commit: empty a write-ahead log that has become large.

        SQLite does so by itself, unless a reader always keeps its transaction open: then the log grows without end.
        So a reader of a large log is waited for, as every commit waits for it where there is a rollback journal.
        Raises BusyError and StoppedError as `execute` does.
        """
        try:
            nbytes = Path(f"{os.path.realpath(self.path)}-wal").stat().st_size
        except OSError:
            return  # another journal
        since: float | None = None
        while nbytes > MAX_WAL_NBYTES:
            is_blocked, *_ = super().execute("pragma wal_checkpoint(truncate)").fetchone()
            if not is_blocked:
                return
            since = self._wait(since, sqlite3.OperationalError("the write-ahead log is in use"))

    def _wait(self, since: float | None, error: sqlite3.OperationalError) -> float:
        now = time.monotonic()
        if since is None:
            since = now
            event("database locked", by=locked_by(self.path))
        if now - since > self.patience_s:
            raise BusyError(
                f"{self.path}: {locked_by(self.path)} has kept it locked for {self.patience_s:.0f} s; close that "
                f"program, then run the same command again"
            ) from error
        if self.should_stop is not None and self.should_stop():
            self._closed_at = self._closed_at or now
            if now - self._closed_at > GRACE_S:
                raise StoppedError(
                    f"{self.path}: {locked_by(self.path)} kept it locked until the window closed; what could not be "
                    f"stored is done again at the next run"
                ) from error
        time.sleep(_RETRY_INTERVAL_S)
        return since


def locked_by(path: Path) -> str:
    """The other process that has a lock on a database, or on its shared memory, as far as `/proc/locks` shows."""
    with suppress(OSError):
        inodes = {str(file.stat().st_ino) for file in (path, Path(f"{os.path.realpath(path)}-shm")) if file.exists()}
        for line in Path("/proc/locks").read_text().splitlines():
            _, kind, _, _, pid, place, start, *_ = line.replace("-> ", "").split()
            is_here = kind == "POSIX" and place.rpartition(":")[2] in inodes
            is_here &= int(start) in _LOCK_BYTES or int(start) in _SHM_LOCK_BYTES
            if is_here and int(pid) not in {0, os.getpid()}:
                return f"process {pid} ({_name_of(pid)})"
    return "another program"


def _name_of(pid: str) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return "gone by now"
