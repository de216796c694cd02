"""Locks that end with their process: one driver for a database, one for a device.

A lock is a record lock (`fcntl`) on an empty file of its own, for two reasons.  The kernel tells who holds it (F_GETLK)
without a lock being taken, so a reader never blocks a driver.  And nothing is written into the file, so a path that
turns out to be another program's file is not damaged.  Record locks belong to the process: closing any descriptor of
the file releases them, so `_held` keeps this process from opening a file that it has locked.  For the same reason the
database file itself is never opened here.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from rotary_batch.errors import BusyError, ConfigError, DatabaseError, DeviceBusyError

_FLOCK = "hhqqi4x"  # struct flock on 64-bit Linux: type, whence, start, length, process id
_PID_NBYTES = 10  # earlier versions wrote their process id into the file
_DRIVER, _RECOVERY = 0, 1  # the bytes of a database's lock file that a driver and a recovering reader lock
RECOVERY_PATIENCE_S = 30.0  # rolling back the largest transaction reads and writes about 100 MB
_held: set[tuple[int, int]] = set()  # device and inode of every lock file that this process has locked


class _Lock(NamedTuple):
    path: Path
    byte: int
    fact: str  # why it may be refused
    elsewhere: str  # the advice when its file is not a lock
    kind: type[BusyError] = BusyError


@contextmanager
def driver_lock(database: Path) -> Iterator[None]:
    """Be the only writer of a database.  Raises BusyError with the process that is."""
    with _locked(_database_lock(database, _DRIVER)) as descriptor:
        _wait_for_recovery(database, descriptor)
        yield


@contextmanager
def recovery_lock(database: Path) -> Iterator[None]:
    """As a reader, roll back what a killed driver left unfinished.  Raises BusyError when another process does it.

    A driver that starts in the meantime waits.  It locks its byte before it checks this one, and here it is the
    other way round, so at least one of the two sees the other.
    """
    lock = _database_lock(database, _RECOVERY)
    with _locked(lock) as descriptor:
        if (pid := _owner(descriptor, _DRIVER)) is not None:
            raise _busy(lock.fact, pid)
        yield


@contextmanager
def device_lock(device: str) -> Iterator[None]:
    """Be the only run on an accelerator, whatever its database.  A CPU is shared."""
    kind, _, number = device.partition(":")
    if kind == "cpu":
        yield
        return
    name = f"rotary-batch-{os.getuid()}-{kind}-{number or 0}.lock"  # `cuda` is the first of them
    path, fact = Path(tempfile.gettempdir()) / name, f"{device}: another run holds this device"
    with _locked(_Lock(path, 0, fact, "name another folder with TMPDIR", DeviceBusyError)):
        yield


def holder(database: Path) -> int | None:
    """The process id of the driver that holds a database now, or None.  Takes no lock.

    0 stands for a process that is not visible here, in another container or on another machine.
    """
    path = _database_lock(database, _DRIVER).path
    if _is_held_here(path):
        return os.getpid()
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None  # a driver would have created it, or could not open it either
    try:
        return _owner(descriptor, _DRIVER)
    finally:
        os.close(descriptor)


def _database_lock(database: Path, byte: int) -> _Lock:
    """Next to the file itself, whatever link names it: two runs would both write to that file."""
    path = Path(f"{os.path.realpath(database)}.lock")
    return _Lock(path, byte, f"{database}: another run holds this database", "name another database with --db")


def _wait_for_recovery(database: Path, descriptor: int) -> None:
    give_up_at = time.monotonic() + RECOVERY_PATIENCE_S
    while (pid := _owner(descriptor, _RECOVERY)) is not None:
        if time.monotonic() > give_up_at:
            raise _busy(f"{database}: a reader still takes back what a killed run left half done", pid)
        time.sleep(0.05)


def _is_held_here(path: Path) -> bool:
    try:
        status = path.stat(follow_symlinks=False)
    except OSError:
        return False
    return (status.st_dev, status.st_ino) in _held


def _owner(descriptor: int, byte: int) -> int | None:
    """The process whose lock of a byte would refuse ours now; None if there is none."""
    asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
    kind, _, _, _, pid = struct.unpack(_FLOCK, fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))
    return None if kind == fcntl.F_UNLCK else max(0, pid)


@contextmanager
def _locked(lock: _Lock) -> Iterator[int]:
    if _is_held_here(lock.path):
        raise _busy(lock.fact, os.getpid(), lock.kind)
    descriptor = _open(lock)
    try:
        _require_ours(lock, descriptor)
        _acquire(lock, descriptor)
        status = os.fstat(descriptor)
        identity = status.st_dev, status.st_ino
        _held.add(identity)
        try:
            yield descriptor
        finally:
            _held.discard(identity)
    finally:
        os.close(descriptor)


def _open(lock: _Lock) -> int:
    try:
        lock.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        return os.open(lock.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.EISDIR, errno.ENXIO}:
            raise _foreign(lock, "not a plain file") from error
        raise DatabaseError(f"{lock.path}: cannot be opened: {error.strerror}; {lock.elsewhere}") from error


def _foreign(lock: _Lock, fact: str) -> ConfigError:
    return ConfigError(
        f"{lock.path}: {fact}, so it is not a lock of rotary-batch and is left alone; move it away, or {lock.elsewhere}"
    )


def _require_ours(lock: _Lock, descriptor: int) -> None:
    """Raise ConfigError unless it is a plain file, empty or with a process id, which earlier versions wrote."""
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise _foreign(lock, "not a plain file")
    if status.st_size > _PID_NBYTES or (status.st_size and not os.read(descriptor, _PID_NBYTES).isdigit()):
        raise _foreign(lock, "has content")


def _acquire(lock: _Lock, descriptor: int) -> None:
    """Lock the byte.  Raises BusyError with the process that has it locked."""
    while True:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, lock.byte)
        except OSError as error:
            if error.errno not in {errno.EACCES, errno.EAGAIN}:
                why = f"cannot be locked: {error.strerror}"
                raise DatabaseError(f"{lock.path}: {why}; it needs a local disk: {lock.elsewhere}") from error
        else:
            return
        if (pid := _owner(descriptor, lock.byte)) is not None:
            raise _busy(lock.fact, pid, lock.kind)


def _busy(fact: str, pid: int, kind: type[BusyError] = BusyError) -> BusyError:
    if not pid:
        return kind(f"{fact} (in another container or on another machine); wait for it, or stop it there")
    return kind(f"{fact} (process {pid}); wait for it, or stop it with `kill {pid}`")
