"""Locks that die with their process: one driver a database, one driver a device.

A lock is a record lock (`fcntl`) on an empty file of its own, for two reasons.  The kernel answers who holds it
(F_GETLK) without anyone taking a lock for the question, so a reader can never be in a driver's way; and nothing has to
be written into the file, so a path that turns out to be somebody else's file loses nothing.  Record locks belong to the
process: closing any descriptor of the file gives them up, so `_held` keeps this process from opening a file whose lock
it has.  The database file itself is never opened here, for the same reason.
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
RECOVERY_PATIENCE_S = 30.0  # taking back the largest transaction reads and writes some 100 MB
_held: set[tuple[int, int]] = set()  # device and inode of every lock file that this process has locked


class _Lock(NamedTuple):
    path: Path
    byte: int
    fact: str  # why it may be refused
    elsewhere: str  # what else can be done when its file is no lock
    kind: type[BusyError] = BusyError


@contextmanager
def driver_lock(database: Path) -> Iterator[None]:
    """Be the one writer of a database.  Raises BusyError naming the process that is."""
    with _locked(_database_lock(database, _DRIVER)) as descriptor:
        _wait_for_recovery(database, descriptor)
        yield


@contextmanager
def recovery_lock(database: Path) -> Iterator[None]:
    """Take back, as a reader, what a killed driver left half done.  Raises BusyError when somebody else does it.

    A driver that begins in the meantime waits.  It takes its byte before it looks at this one, and here it is the other
    way round, so at least one of the two sees the other.
    """
    lock = _database_lock(database, _RECOVERY)
    with _locked(lock) as descriptor:
        if (pid := _owner(descriptor, _DRIVER)) is not None:
            raise _busy(lock.fact, pid)
        yield


@contextmanager
def device_lock(device: str) -> Iterator[None]:
    """Be the one run on an accelerator, whatever its database.  A CPU is shared."""
    kind, _, number = device.partition(":")
    if kind == "cpu":
        yield
        return
    name = f"rotary-batch-{os.getuid()}-{kind}-{number or 0}.lock"  # `cuda` is the first of them
    path, fact = Path(tempfile.gettempdir()) / name, f"{device}: another run holds this device"
    with _locked(_Lock(path, 0, fact, "name another folder with TMPDIR", DeviceBusyError)):
        yield


def holder(database: Path) -> int | None:
    """The process id of the driver that holds a database now, or None; takes no lock.

    0 is a process that cannot be seen from here, in another container or on another machine.
    """
    path = _database_lock(database, _DRIVER).path
    if _is_held_here(path):
        return os.getpid()
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None  # a driver would have made it, or would have been refused it too
    try:
        return _owner(descriptor, _DRIVER)
    finally:
        os.close(descriptor)


def _database_lock(database: Path, byte: int) -> _Lock:
    """Beside the file itself, whatever link it is named by: that is what two runs would both write to."""
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
        found = path.stat(follow_symlinks=False)
    except OSError:
        return False
    return (found.st_dev, found.st_ino) in _held


def _owner(descriptor: int, byte: int) -> int | None:
    """Whose lock of a byte would refuse ours now; None = nobody's."""
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
        _take(lock, descriptor)
        found = os.fstat(descriptor)
        identity = found.st_dev, found.st_ino
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
        why = f"cannot be opened to lock it: {error.strerror}"
        raise DatabaseError(f"{lock.path}: {why}; move it away, or {lock.elsewhere}") from error


def _foreign(lock: _Lock, fact: str) -> ConfigError:
    return ConfigError(
        f"{lock.path}: {fact}, so it is not a lock of rotary-batch and is left alone; move it away, or {lock.elsewhere}"
    )


def _require_ours(lock: _Lock, descriptor: int) -> None:
    """Leave alone what is not a plain file, or says more than the process id that earlier versions wrote."""
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        raise _foreign(lock, "not a plain file")
    if found.st_size > _PID_NBYTES or (found.st_size and not os.read(descriptor, _PID_NBYTES).isdigit()):
        raise _foreign(lock, "has content")


def _take(lock: _Lock, descriptor: int) -> None:
    """Lock the byte; only a process that has it locked can refuse it, and is named."""
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
