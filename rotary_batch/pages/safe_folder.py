"""The only door through which anything is written into a repository: a folder that no link leads out of.

A repository is a stranger's: it may commit links, and files or folders where pages go.  So every component of a path
below the repository is opened by itself, from the descriptor of the folder above it and with O_NOFOLLOW; no path is
looked up twice.  New bytes go into a new file with a random name (O_EXCL), which is synced and then renamed into its
place: no file that exists is ever opened for writing, and a hard link keeps its bytes.

Whose links are trusted: none of the repository's.  The stored root of a repository has no links left in it, so one
that is there later is refused too.  Of an absolute `--out /PATH` the components above the docs folder are the user's
own and may be links (`/tmp` is one on some systems) until they enter a repository: the folder that is documented, or
any that holds a `.git`, as the clone around it does.  From there on, and for the docs folder itself, none may.  A link
of the user's own that leads into a repository is taken at the user's word.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import NamedTuple, Self

from rotary_batch.errors import InputError, StorageError
from rotary_batch.pages.descriptors import (
    PASSAGE,
    BlockedError,
    Content,
    descend,
    entries_of,
    holds,
    open_folder,
    own_prefix,
    read_at,
    stamp_of,
    sync_at,
    write_at,
)
from rotary_batch.pages.trail import Trail

_FORBIDDEN = {"", ".", "..", ".git"}  # names that no page and no docs folder has
# What one path may suffer from while the disk is well.
_PATH_ERRORS = {
    errno.EACCES,
    errno.EBUSY,
    errno.EEXIST,
    errno.EILSEQ,
    errno.EINVAL,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.ENOTEMPTY,
    errno.ENXIO,
    errno.EPERM,
}


class Found(NamedTuple):
    """A regular file of the docs folder."""

    path: str
    stamp: str
    is_temporary: bool  # left by a run of ours that was killed


class Staged(NamedTuple):
    """A page that is written but not in its place yet."""

    folder: tuple[str, ...]
    temporary: str
    name: str

    @property
    def path(self) -> str:
        """Its path below the docs folder."""
        return "/".join((*self.folder, self.name))


class SafeFolder:
    """A docs folder that is open.  Paths are POSIX paths relative to it; one thread uses it.

    Methods raise BlockedError for what one path suffers from, OSError for what the whole disk does.
    """

    def __init__(self, descriptor: int, path: Path) -> None:
        self._descriptor = descriptor
        self.path = path  # for messages only

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, _: TracebackType | None) -> None:
        os.close(self._descriptor)

    def read(self, path: str) -> Content | None:
        """A regular file; None when nothing is there."""
        *folder, name = _parts(path)
        with self._explained(path):
            descriptor = self._descend(folder)
            if descriptor is None:
                return None
            try:
                return read_at(descriptor, name, str(self.path / path))
            finally:
                os.close(descriptor)

    def stage(self, path: str, data: bytes) -> Staged:
        """Write the bytes under a random name beside their place, whose folders are made."""
        *folder, name = _parts(path)
        with self._explained(path), self._opened(folder, create=True) as descriptor:
            temporary = own_prefix(descriptor) + secrets.token_hex(8)
            write_at(descriptor, temporary, data)
        return Staged(tuple(folder), temporary, name)

    def publish(self, staged: Sequence[Staged]) -> tuple[dict[str, str], dict[str, str]]:
        """Sync all, then put all in their places: each page is the old or the new one, never half of one.

        Folders are not synced: a page that a power cut puts back has another stamp, and is written again.  Answers
        path -> stamp of those in place, and path -> reason of those that something keeps out.
        """
        stamps: dict[str, str] = {}
        blocked: dict[str, str] = {}

        def sync(folder: int, one: Staged) -> None:
            stamps[one.path] = sync_at(folder, one.temporary)

        def place(folder: int, one: Staged) -> None:
            os.rename(one.temporary, one.name, src_dir_fd=folder, dst_dir_fd=folder)

        self._for_each(staged, sync, blocked)
        placed = [one for one in staged if one.path not in blocked]
        self._for_each(placed, place, blocked)
        return {one.path: stamps[one.path] for one in placed if one.path not in blocked}, blocked

    def _for_each(self, staged: Sequence[Staged], step: Callable[[int, Staged], None], blocked: dict[str, str]) -> None:
        """Take a step with each page in its open folder; those that something keeps out are noted and discarded."""
        for one in staged:
            try:
                with self._explained(one.path), self._opened(one.folder) as descriptor:
                    step(descriptor, one)
            except BlockedError as error:
                blocked[one.path] = str(error)
                self.discard([one])

    def discard(self, staged: Sequence[Staged]) -> None:
        """Take away what was written and is not in its place; what cannot be is left to the next run."""
        for one in staged:
            with suppress(OSError, BlockedError), self._opened(one.folder) as descriptor:
                os.unlink(one.temporary, dir_fd=descriptor)

    def move(self, path: str, name: str) -> None:
        """Put a file in the place of another one in its folder."""
        *folder, old = _parts(path)
        with self._explained(path), self._opened(folder) as descriptor:
            os.rename(old, name, src_dir_fd=descriptor, dst_dir_fd=descriptor)

    def remove(self, path: str) -> None:
        """Take away one file."""
        *folder, name = _parts(path)
        with self._explained(path), self._opened(folder) as descriptor:
            os.unlink(name, dir_fd=descriptor)

    def remove_if_empty(self, path: str) -> None:
        """Take away one folder if nothing is in it."""
        *folder, name = _parts(path)
        with suppress(OSError, BlockedError), self._opened(folder) as descriptor:
            os.rmdir(name, dir_fd=descriptor)

    def walk(self) -> Iterator[Found]:
        """Every regular file, without entering links or `.git`; without recursion, so depth costs time only."""
        waiting: list[tuple[int, str]] = []  # how deep a folder is, and its name; the last one is below the trail
        with closing(Trail(self._descriptor, str(self.path))) as trail:
            yield from _listed(trail, waiting)
            while waiting:
                with suppress(BlockedError, FileNotFoundError, PermissionError):  # pages that go there will say so
                    if trail.enter(*waiting.pop()):
                        yield from _listed(trail, waiting)

    def _descend(self, folder: Sequence[str], *, create: bool = False) -> int | None:
        """A descriptor of a folder below this one; None when it is not there.  The caller closes it."""
        return descend(os.dup(self._descriptor), folder, str(self.path), create=create)

    @contextmanager
    def _opened(self, folder: Sequence[str], *, create: bool = False) -> Iterator[int]:
        """A folder that must be there."""
        descriptor = self._descend(folder, create=create)
        if descriptor is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.path.joinpath(*folder)))
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    @contextmanager
    def _explained(self, path: str) -> Iterator[None]:
        """What one path alone suffers from is no fault of the disk."""
        try:
            yield
        except OSError as error:
            if error.errno not in _PATH_ERRORS:
                raise
            raise BlockedError(f"{self.path / path}: {error.strerror}") from error
        except ValueError as error:  # a zero byte, a lone surrogate
            raise BlockedError(f"{path!a}: no name of a file: {error}") from error


def open_safe_folder(root: Path, out: str, *, create: bool) -> SafeFolder | None:
    """The docs folder `out` of the repository at `root`; None when it is not there and is not to be made.

    Raises InputError when it is no place for docs, StorageError when the disk refuses.
    """
    path = root / out
    parts = [part for part in PurePosixPath(out).parts if part != "/"]
    if not parts or any(map(_is_forbidden, parts)):
        raise InputError(f"{path}: no place for docs; name a folder of their own inside the repository, or /PATH")
    try:
        start, entered, rest = _enter(root, out, parts)
        found = descend(start, rest, entered, create=create)
        if found is not None and os.path.samestat(os.fstat(found), root.stat()):
            os.close(found)
            raise InputError(f"{path}: holds the repository; name a folder of their own for docs with --out")
    except BlockedError as error:
        raise InputError(f"{error}; docs go into real folders only: remove it, or use another --out") from error
    except OSError as error:
        raise StorageError(f"{error.filename or path}: {error.strerror}; check the folder") from error
    return None if found is None else SafeFolder(found, path)


def _enter(root: Path, out: str, parts: list[str]) -> tuple[int, str, list[str]]:
    """Go as far as links are harmless: (descriptor, its path, what is left to go without following any)."""
    if not PurePosixPath(out).is_absolute():
        inside = descend(os.open("/", PASSAGE), root.parts[1:], "", flags=PASSAGE | os.O_NOFOLLOW)
        if inside is None:
            raise InputError(f"{root}: no such folder")
        return inside, str(root), parts
    repository, descriptor, path = root.stat(), os.open("/", PASSAGE), ""
    while len(parts) > 1 and not (os.path.samestat(os.fstat(descriptor), repository) or holds(descriptor, ".git")):
        try:
            below = open_folder(descriptor, parts[0], f"{path}/{parts[0]}", flags=PASSAGE)
        except BaseException:
            os.close(descriptor)
            raise
        if below is None:
            break
        os.close(descriptor)
        descriptor, path, parts = below, f"{path}/{parts[0]}", parts[1:]
    return descriptor, path, parts


def _listed(trail: Trail, waiting: list[tuple[int, str]]) -> Iterator[Found]:
    """The files of the folder that a trail leads to; the folders in it are left waiting."""
    ours = own_prefix(trail.lowest)
    for name, info in entries_of(trail.lowest):
        if info is not None:
            yield Found("/".join((*trail.names, name)), stamp_of(info), name.startswith(ours))
        elif not _is_forbidden(name):
            waiting.append((len(trail.names), name))


def _parts(path: str) -> list[str]:
    """The names of a path below the docs folder.  Raises BlockedError for one that no page may have."""
    parts = path.split("/")
    if any(map(_is_forbidden, parts)):
        raise BlockedError(f"{path}: not inside the docs folder; name a page relative to it")
    return parts


def _is_forbidden(name: str) -> bool:
    """Some file systems ignore the case of letters, some ignore invisible ones."""
    return "".join(filter(str.isprintable, name)).casefold() in _FORBIDDEN
