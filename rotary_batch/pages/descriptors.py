"""Open files and folders by descriptor: one name at a time, never through a link, regular files only."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from rotary_batch.errors import InputError

MAX_PAGE_NBYTES = 64 * 2**20  # the page of a source of 2 MB has at most a few times its bytes
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
TRAVERSE = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY  # needs no right to list what is above
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFDIR: "a folder",
    stat.S_IFREG: "a file",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFBLK: "a device",
    stat.S_IFCHR: "a device",
}


class BlockedError(InputError):
    """A page, or a folder above it, cannot be written because something else has its path."""


class Content(NamedTuple):
    """The bytes of a file, and its stamp, which differs when the file may have changed."""

    data: bytes
    stamp: str


def descend(
    descriptor: int, folder: Sequence[str], path: str, *, create: bool = False, flags: int = _FOLDER
) -> int | None:
    """From an open folder, which is closed, down to one below it; None when it does not exist.

    `path` is where it starts, for messages.  Raises BlockedError when a name on the way is not a folder.
    """
    for name in folder:
        path = f"{path}/{name}"
        try:
            below = open_folder(descriptor, name, path, create=create, flags=flags)
        finally:
            os.close(descriptor)
        if below is None:
            return None
        descriptor = below
    return descriptor


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """A folder by its absolute path, in which no name is a link.  Raises InputError when it does not exist."""
    folder = descend(os.open("/", TRAVERSE), path.parts[1:], "", flags=TRAVERSE | os.O_NOFOLLOW)
    if folder is None:
        raise InputError(f"{path}: no such folder")
    try:
        yield folder
    finally:
        os.close(folder)


def open_folder(above: int, name: str, path: str, *, create: bool = False, flags: int = _FOLDER) -> int | None:
    """A folder in an open one; None when it does not exist and `create` is false."""
    try:
        return os.open(name, flags, dir_fd=above)
    except FileNotFoundError:
        if not create:
            return None
    except OSError as error:
        if error.errno in {errno.ENOTDIR, errno.ELOOP}:
            raise BlockedError(f"{path}: {_kind(above, name)}, not a folder") from error
        raise type(error)(error.errno, error.strerror, path) from error
    os.mkdir(name, dir_fd=above)
    return os.open(name, flags, dir_fd=above)


def has_entry(folder: int, name: str) -> bool:
    """Whether an open folder has anything of that name."""
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def read_at(folder: int, name: str, path: str) -> Content | None:
    """A regular file in an open folder; None when it does not exist.

    Its type is checked before it is opened, because opening a device can have effects, and again after: it may have
    been replaced.
    """
    try:
        if not stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            raise BlockedError(f"{path}: {_kind(folder, name)}, not a page")
        descriptor = os.open(name, _FILE, dir_fd=folder)
    except FileNotFoundError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        info = os.fstat(file.fileno())
        if not stat.S_ISREG(info.st_mode) or info.st_size > MAX_PAGE_NBYTES:
            raise BlockedError(f"{path}: {info.st_size:,} bytes; pages are files of {MAX_PAGE_NBYTES:,} at most")
        return Content(file.read(MAX_PAGE_NBYTES), stamp_of(info))


def write_at(folder: int, name: str, data: bytes) -> None:
    """Write a new file in an open folder; it is removed when not all of it can be written."""
    with os.fdopen(os.open(name, _NEW, 0o666, dir_fd=folder), "wb") as file:
        try:
            file.write(data)
            file.flush()
            if hasattr(os, "posix_fadvise"):  # Linux begins to write then: 100 pages are synced in a third of the time
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        except BaseException:
            os.unlink(name, dir_fd=folder)
            raise


def replace_at(folder: int, name: str, data: bytes) -> None:
    """Write a file in an open folder whole or not at all; it keeps its permissions."""
    temporary = temporary_prefix(folder) + secrets.token_hex(8)
    write_at(folder, temporary, data)
    try:
        with suppress(FileNotFoundError):
            mode = stat.S_IMODE(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
            os.chmod(temporary, mode, dir_fd=folder)
        sync_at(folder, temporary)
        os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        os.unlink(temporary, dir_fd=folder)
        raise


def sync_at(folder: int, name: str) -> str:
    """Wait until the bytes of a file in an open folder are on the disk; return its stamp."""
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=folder)
    try:
        os.fsync(descriptor)
        return stamp_of(os.fstat(descriptor))
    finally:
        os.close(descriptor)


def entries_of(folder: int) -> Iterator[tuple[str, os.stat_result | None]]:
    """(name, status) of the regular files in an open folder, (name, None) of its folders."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_file(follow_symlinks=False):
                try:
                    info = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                yield entry.name, info
            elif entry.is_dir(follow_symlinks=False):
                yield entry.name, None


def stamp_of(info: os.stat_result) -> str:
    """A cheap way to see whether a file has changed."""
    return f"{info.st_ino} {info.st_size} {info.st_mtime_ns}"


def temporary_prefix(folder: int) -> str:
    """The prefix of our temporary files in an open folder.

    It comes from the inode number, which this machine gave the folder: no commit can know it.
    """
    return f".rotary-{hashlib.sha256(str(os.fstat(folder).st_ino).encode()).hexdigest()[:16]}-"


def _kind(folder: int, name: str) -> str:
    mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
    return _KINDS.get(stat.S_IFMT(mode), "something unknown")
