"""The only way to write into a repository: a folder that no link leads out of.

A repository is untrusted: it may contain links, and files or folders where pages go.  So every component of a path
below the repository is opened on its own, from the descriptor of the folder above it and with O_NOFOLLOW; no path is
looked up twice.  New bytes go into a new file with a random name (O_EXCL), which is synced and then renamed: no
existing file is ever opened for writing, and a hard link keeps its bytes.

No link of the repository is trusted.  The stored root of a repository has no links left in it, so one that appears
later is refused too.  Of an absolute `--out /PATH` the components above the docs folder are the user's
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
    TRAVERSE,
    BlockedError,
    Content,
    descend,
    entries_of,
    has_entry,
    open_folder,
    read_at,
    stamp_of,
    sync_at,
    temporary_prefix,
    write_at,
)
from rotary_batch.pages.folder_stack import FolderStack

_FORBIDDEN = {"", ".", "..", ".git"}  # names that no page and no docs folder has
# Errors of one path, which say nothing against the disk.
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


class DocsFile(NamedTuple):
    """A regular file in the docs folder."""

    path: str
    stamp: str
    is_temporary: bool  # left by a run of ours that was killed


class Staged(NamedTuple):
    """A page that is written under a temporary name."""

    folder: tuple[str, ...]
    temporary: str
    name: str

    @property
    def path(self) -> str:
        """Its path below the docs folder."""
        return "/".join((*self.folder, self.name))


class SafeFolder:
    """A docs folder that is open.  Paths are POSIX paths relative to it; one thread uses it.

    Methods raise BlockedError for an error of one path, OSError for one of the whole disk.
    """

    def __init__(self, descriptor: int, path: Path) -> None:
        self._descriptor = descriptor
        self.path = path  # for messages only

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, _: TracebackType | None) -> None:
        os.close(self._descriptor)

    def read(self, path: str) -> Content | None:
        """The content of a regular file; None when it does not exist."""
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
        """Write the bytes to a new file with a random name in the folder of the page, which is created if need be."""
        *folder, name = _parts(path)
        with self._explained(path), self._opened(folder, create=True) as descriptor:
            temporary = temporary_prefix(descriptor) + secrets.token_hex(8)
            write_at(descriptor, temporary, data)
        return Staged(tuple(folder), temporary, name)

    def publish(self, staged: Sequence[Staged]) -> tuple[dict[str, str], dict[str, str]]:
        """Sync all, then rename all: each page is the old or the new one, never half of one.

        Folders are not synced: a page that a power cut puts back has another stamp, and is written again.  Returns
        path -> stamp of those that were published, and path -> reason of those that are blocked.
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
        """Take a step with each page in its open folder; those that are blocked are noted and discarded."""
        for one in staged:
            try:
                with self._explained(one.path), self._opened(one.folder) as descriptor:
                    step(descriptor, one)
            except BlockedError as error:
                blocked[one.path] = str(error)
                self.discard([one])

    def discard(self, staged: Sequence[Staged]) -> None:
        """Remove temporary files; the next run removes those that cannot be removed now."""
        for one in staged:
            with suppress(OSError, BlockedError), self._opened(one.folder) as descriptor:
                os.unlink(one.temporary, dir_fd=descriptor)

    def move(self, path: str, name: str) -> None:
        """Rename a file within its folder, over the one that has that name."""
        *folder, old = _parts(path)
        with self._explained(path), self._opened(folder) as descriptor:
            os.rename(old, name, src_dir_fd=descriptor, dst_dir_fd=descriptor)

    def remove(self, path: str) -> None:
        """Remove one file."""
        *folder, name = _parts(path)
        with self._explained(path), self._opened(folder) as descriptor:
            os.unlink(name, dir_fd=descriptor)

    def remove_if_empty(self, path: str) -> None:
        """Remove one folder if it is empty."""
        *folder, name = _parts(path)
        with suppress(OSError, BlockedError), self._opened(folder) as descriptor:
            os.rmdir(name, dir_fd=descriptor)

    def walk(self) -> Iterator[DocsFile]:
        """Every regular file, without entering links or `.git`; without recursion, so depth costs time only."""
        to_visit: list[tuple[int, str]] = []  # depth and name of folders; the last one is below the stack
        with closing(FolderStack(self._descriptor, str(self.path))) as stack:
            yield from _list_files(stack, to_visit)
            while to_visit:
                with suppress(BlockedError, FileNotFoundError, PermissionError):  # pages that go there will say so
                    if stack.enter(*to_visit.pop()):
                        yield from _list_files(stack, to_visit)

    def _descend(self, folder: Sequence[str], *, create: bool = False) -> int | None:
        """A descriptor of a folder below this one; None when it does not exist.  The caller closes it."""
        return descend(os.dup(self._descriptor), folder, str(self.path), create=create)

    @contextmanager
    def _opened(self, folder: Sequence[str], *, create: bool = False) -> Iterator[int]:
        """A folder that must exist."""
        descriptor = self._descend(folder, create=create)
        if descriptor is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.path.joinpath(*folder)))
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    @contextmanager
    def _explained(self, path: str) -> Iterator[None]:
        """Turn the errors of one path into BlockedError."""
        try:
            yield
        except OSError as error:
            if error.errno not in _PATH_ERRORS:
                raise
            raise BlockedError(f"{self.path / path}: {error.strerror}") from error
        except ValueError as error:  # a zero byte, a lone surrogate
            raise BlockedError(f"{path!a}: no name of a file: {error}") from error


def open_safe_folder(
    root: Path, out: str, *, create: bool, kind: Callable[[int, Path], SafeFolder] = SafeFolder
) -> SafeFolder | None:
    """The docs folder `out` of the repository at `root`; None when it does not exist and `create` is false.

    Raises InputError when docs cannot go there, StorageError when the disk fails.
    """
    path = root / out
    parts = [part for part in PurePosixPath(out).parts if part != "/"]
    if not parts or any(map(_is_forbidden, parts)):
        raise InputError(f"{path}: no place for docs; name a folder of their own inside the repository, or /PATH")
    try:
        descriptor, entered, rest = _follow_trusted_links(root, out, parts)
        folder = descend(descriptor, rest, entered, create=create)
        if folder is not None and os.path.samestat(os.fstat(folder), root.stat()):
            os.close(folder)
            raise InputError(f"{path}: holds the repository; name a folder for docs alone with --out")
    except BlockedError as error:
        raise InputError(f"{error}; docs go into real folders only; name another folder with --out") from error
    except OSError as error:
        raise StorageError(f"{error.filename or path}: {error.strerror}; check the folder") from error
    return None if folder is None else kind(folder, path)


def _follow_trusted_links(root: Path, out: str, parts: list[str]) -> tuple[int, str, list[str]]:
    """Go down as far as links may be followed: (descriptor, its path, the names that are left)."""
    if not PurePosixPath(out).is_absolute():
        inside = descend(os.open("/", TRAVERSE), root.parts[1:], "", flags=TRAVERSE | os.O_NOFOLLOW)
        if inside is None:
            raise InputError(f"{root}: no such folder")
        return inside, str(root), parts
    repository, descriptor, path = root.stat(), os.open("/", TRAVERSE), ""
    while len(parts) > 1 and not (os.path.samestat(os.fstat(descriptor), repository) or has_entry(descriptor, ".git")):
        try:
            below = open_folder(descriptor, parts[0], f"{path}/{parts[0]}", flags=TRAVERSE)
        except BaseException:
            os.close(descriptor)
            raise
        if below is None:
            break
        os.close(descriptor)
        descriptor, path, parts = below, f"{path}/{parts[0]}", parts[1:]
    return descriptor, path, parts


def _list_files(stack: FolderStack, to_visit: list[tuple[int, str]]) -> Iterator[DocsFile]:
    """The files of the lowest folder of a stack; the folders in it are added to `to_visit`."""
    prefix = temporary_prefix(stack.top)
    for name, info in entries_of(stack.top):
        if info is not None:
            yield DocsFile("/".join((*stack.names, name)), stamp_of(info), name.startswith(prefix))
        elif not _is_forbidden(name):
            to_visit.append((len(stack.names), name))


def _parts(path: str) -> list[str]:
    """The names of a path below the docs folder.  Raises BlockedError for one that no page may have."""
    parts = path.split("/")
    if any(map(_is_forbidden, parts)):
        raise BlockedError(f"{path}: not inside the docs folder; name a page relative to it")
    return parts


def _is_forbidden(name: str) -> bool:
    """Some file systems ignore the case of letters, some ignore invisible ones."""
    return "".join(filter(str.isprintable, name)).casefold() in _FORBIDDEN
