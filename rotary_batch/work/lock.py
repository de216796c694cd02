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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rotary_batch.errors import BusyError, ConfigError, DatabaseError

_FLOCK = "hhqqi4x"  # struct flock on 64-bit Linux: type, whence, start, length, process id
_PID_NBYTES = 10  # earlier versions wrote their process id into the file
_held: set[tuple[int, int]] = set()  # device and inode of every lock file that this process has locked


@contextmanager
def driver_lock(database: Path) -> Iterator[None]:
    """Be the one writer of a database.  Raises BusyError naming the process that is."""
    with _locked(_lock_path(database), f"{database}: another run holds this database"):
        yield


@contextmanager
def device_lock(device: str) -> Iterator[None]:
    """Be the one run on an accelerator, whatever its database.  A CPU is shared."""
    if device == "cpu":
        yield
        return
    name = f"rotary-batch-{os.getuid()}-{device.replace(':', '-')}.lock"
    with _locked(Path(tempfile.gettempdir()) / name, f"{device}: another run holds this device"):
        yield


def holder(database: Path) -> int | None:
    """The process id of the driver that holds a database now, or None; takes no lock.

    0 is a process that cannot be seen from here, in another container or on another machine.
    """
    path = _lock_path(database)
    if _is_held_here(path):
        return os.getpid()
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None  # a driver would have made it, or would have been refused it too
    try:
        return _owner(descriptor)
    finally:
        os.close(descriptor)


def _lock_path(database: Path) -> Path:
    return database.with_name(database.name + ".lock")


def _is_held_here(path: Path) -> bool:
    try:
        found = path.stat(follow_symlinks=False)
    except OSError:
        return False
    return (found.st_dev, found.st_ino) in _held


def _owner(descriptor: int) -> int | None:
    """Whose lock would refuse ours now; None = nobody's."""
    asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    kind, _, _, _, pid = struct.unpack(_FLOCK, fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))
    return None if kind == fcntl.F_UNLCK else max(0, pid)


@contextmanager
def _locked(path: Path, fact: str) -> Iterator[None]:
    if _is_held_here(path):
        raise _busy(fact, os.getpid())
    descriptor = _open(path)
    try:
        _require_ours(path, descriptor)
        _take(path, descriptor, fact)
        found = os.fstat(descriptor)
        identity = found.st_dev, found.st_ino
        _held.add(identity)
        try:
            yield
        finally:
            _held.discard(identity)
    finally:
        os.close(descriptor)


def _open(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.EISDIR, errno.ENXIO}:
            raise _foreign(path, "not a plain file") from error
        raise DatabaseError(f"{path}: cannot be opened to lock it: {error.strerror}; {_ADVICE}") from error


_ADVICE = "move it away, or name another database with --db"


def _foreign(path: Path, fact: str) -> ConfigError:
    return ConfigError(f"{path}: {fact}, so it is not a lock of rotary-batch and is left alone; {_ADVICE}")


def _require_ours(path: Path, descriptor: int) -> None:
    """Leave alone what is not a plain file, or says more than the process id that earlier versions wrote."""
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        raise _foreign(path, "not a plain file")
    if found.st_size > _PID_NBYTES or (found.st_size and not os.read(descriptor, _PID_NBYTES).isdigit()):
        raise _foreign(path, "has content")


def _take(path: Path, descriptor: int, fact: str) -> None:
    """Lock the file; only a process that has it locked can refuse it, and is named."""
    while True:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in {errno.EACCES, errno.EAGAIN}:
                raise DatabaseError(f"{path}: cannot be locked: {error.strerror}; use a local disk (--db)") from error
        else:
            return
        if (pid := _owner(descriptor)) is not None:
            raise _busy(fact, pid)


def _busy(fact: str, pid: int) -> BusyError:
    if not pid:
        return BusyError(f"{fact} (in another container or on another machine); wait for it, or stop it there")
    return BusyError(f"{fact} (process {pid}); wait for it, or stop it with `kill {pid}`")
