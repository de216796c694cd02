"""Locks that die with their process: one driver a database, one driver a device.

Knows flock on files of its own; never opens the database file (closing it would drop SQLite's locks).
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rotary_batch.errors import BusyError, StorageError


@contextmanager
def driver_lock(database: Path) -> Iterator[None]:
    """Be the one writer of a database.  Raises BusyError naming the process that is."""
    path = database.with_name(database.name + ".lock")
    with _flock(path, f"{database}: another run holds this database"):
        yield


@contextmanager
def device_lock(device: str) -> Iterator[None]:
    """Be the one run on an accelerator, whatever its database.  A CPU is shared."""
    if device == "cpu":
        yield
        return
    name = f"rotary-batch-{os.getuid()}-{device.replace(':', '-')}.lock"
    with _flock(Path(tempfile.gettempdir()) / name, f"{device}: another run holds this device"):
        yield


def holder(database: Path) -> int | None:
    """The process id of the driver that holds a database now, or None."""
    path = database.with_name(database.name + ".lock")
    if not path.is_file():
        return None
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return int(file.read() or 0)
    return None


@contextmanager
def _flock(path: Path, fact: str) -> Iterator[None]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror}; name another database with --db") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
        yield
    except BlockingIOError as error:
        pid = os.read(descriptor, 32).decode() or "?"
        raise BusyError(f"{fact} (process {pid}); wait for it, or stop it with `kill {pid}`") from error
    finally:
        os.close(descriptor)
