"""Read a folder as it is on disk: never through a symlink, `.gitignore` honoured as git does."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

from rotary_batch.errors import RepositoryError
from rotary_batch.repo.ignore import IgnorePatterns

SYMLINK, SUBMODULE = "120000", "160000"
EXECUTABLE = "100755"
UNREADABLE = "000000"  # not a mode of git: something on disk that may not be read
UNREADABLE_FOLDER = "040000"  # git lists none
MAX_ENTRIES = 1_000_000
MAX_FOLDERS = 200_000  # each gets a page; a few kilobytes of git trees that refer to each other can stand for 10^10
MAX_PATH_NBYTES = 4096  # no longer path can be opened
MAX_READ_NBYTES = 4 * 10**6  # larger files are neither documented nor worth a hash of their own


class Entry(NamedTuple):
    """One file, symlink or submodule of a repository."""

    path: str  # as text; bytes that are not UTF-8 are written as \\xNN
    raw_path: bytes
    mode: str  # git's: 100644, 100755, 120000 (symlink), 160000 (submodule)
    blob: str  # object id of the content; empty for a submodule of a plain folder
    nbytes: int

    @property
    def has_text_name(self) -> bool:
        """Whether the name is UTF-8 without control characters, so that a page can carry it."""
        return self.path.encode("utf-8", "replace") == self.raw_path and self.path.isprintable()


class Files:
    """Reads regular files below a root and never follows a symlink on the way."""

    def __init__(self, root: Path, algorithm: str) -> None:
        self._root = root
        self._algorithm = algorithm

    def entry(self, raw_path: bytes) -> Entry | None:
        """The entry at a path; None when it does not exist or is neither a file nor a symlink."""
        full = os.fsencode(self._root) + b"/" + raw_path
        try:
            info = os.lstat(full)
            if stat.S_ISLNK(info.st_mode):
                target = os.readlink(full)  # noqa: PTH115 - a path of bytes
                return Entry(path_text(raw_path), raw_path, SYMLINK, object_id(target, self._algorithm), len(target))
            if not stat.S_ISREG(info.st_mode):
                return None
            data = self.read(raw_path) if info.st_size <= MAX_READ_NBYTES else str(info.st_size).encode()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError:
            return Entry(path_text(raw_path), raw_path, UNREADABLE, "", 0)
        mode = EXECUTABLE if info.st_mode & stat.S_IXUSR else "100644"
        return Entry(path_text(raw_path), raw_path, mode, object_id(data, self._algorithm), info.st_size)

    def read(self, raw_path: bytes) -> bytes:
        """The bytes of one regular file, up to the limit.  Raises OSError when a part of the path is a symlink."""
        folder = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY)
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK  # does not wait for a writer of a pipe
        try:
            *parents, name = raw_path.split(b"/")
            for parent in parents:
                below = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
                os.close(folder)
                folder = below
            with os.fdopen(os.open(name, flags, dir_fd=folder), "rb") as file:
                return file.read(MAX_READ_NBYTES)
        finally:
            os.close(folder)

    def read_all(self, entries: Iterable[Entry]) -> Iterator[tuple[Entry, bytes]]:
        """The content of regular files; one that changed or was deleted since it was listed is left out."""
        for entry in entries:
            with suppress(OSError):
                data = self.read(entry.raw_path)
                if object_id(data, self._algorithm) == entry.blob:
                    yield entry, data


@dataclass
class PlainFolder:
    """A folder without git; nested `.gitignore` files are honoured all the same."""

    root: Path

    def __post_init__(self) -> None:
        self.name = self.root.name or "repository"
        self.commit: str | None = None
        self._files = Files(self.root, "sha1")

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know about how it was read."""
        note = "not a git repository; every file that .gitignore allows is read"
        return (note, *(f"{folder}: {why}; nothing in it is read" for folder, why in self._listed[1]))

    def entries(self) -> list[Entry]:
        """What is on disk; ignored folders are pruned, as git does, whatever a pattern below them says."""
        return self._listed[0]

    @cached_property
    def _listed(self) -> tuple[list[Entry], list[tuple[str, str]]]:
        """Entries, and folders that cannot be read with the reason."""
        unread: list[tuple[str, str]] = []
        paths = within_limits(self.root, self._walk(unread))
        return sorted(paths), unread

    def _walk(self, unread: list[tuple[str, str]]) -> Iterator[Entry]:
        waiting: list[tuple[str, _Ignore | None]] = [("", None)]
        while waiting:
            folder, ignore = waiting.pop()
            try:
                items = sorted(os.scandir(self.root / folder), key=attrgetter("name"))
            except OSError as error:
                raw_path = os.fsencode(folder)
                unread.append((path_text(raw_path), error.strerror or "unreadable"))
                if folder:
                    yield Entry(path_text(raw_path), raw_path, UNREADABLE_FOLDER, "", 0)
                continue
            ignore = self._ignore(folder, ignore)
            for item in items:
                path = f"{folder}/{item.name}" if folder else item.name
                is_folder = item.is_dir(follow_symlinks=False)
                if item.name == ".git" or _is_ignored(path, ignore, is_folder=is_folder):
                    continue
                if is_folder:
                    waiting.append((path, ignore))
                elif (entry := self._files.entry(os.fsencode(path))) is not None:
                    yield entry

    def _ignore(self, folder: str, above: _Ignore | None) -> _Ignore | None:
        """The patterns that hold in a folder: its own and those of the folders around it."""
        path = f"{folder}/.gitignore" if folder else ".gitignore"
        try:
            lines = self._files.read(os.fsencode(path)).decode("utf-8", "replace").splitlines()
        except OSError:  # there is none
            return above
        return _Ignore(folder, IgnorePatterns(lines, str(self.root / path)), above)

    def read(self, entries: Iterable[Entry]) -> Iterator[tuple[Entry, bytes]]:
        """The content of regular files."""
        return self._files.read_all(entries)

    def attributes(self, paths: Sequence[bytes]) -> dict[bytes, dict[str, str]]:
        """None: attributes are git's."""
        return {}


class _Ignore(NamedTuple):
    """One `.gitignore`, and the next one above it."""

    folder: str
    patterns: IgnorePatterns
    above: _Ignore | None


def _is_ignored(path: str, ignore: _Ignore | None, *, is_folder: bool) -> bool:
    """The deepest .gitignore with a matching pattern decides."""
    while ignore is not None:
        inner = path[len(ignore.folder) :].lstrip("/") if ignore.folder else path
        if (verdict := ignore.patterns.verdict(inner, is_folder=is_folder)) is not None:
            return verdict
        ignore = ignore.above
    return False


def within_limits(root: Path, entries: Iterable[Entry]) -> Iterator[Entry]:
    """The entries as they come.  Raises RepositoryError when there are too many to document."""
    folders: set[bytes] = set()
    for number, entry in enumerate(entries, 1):
        folder = entry.raw_path.rpartition(b"/")[0]
        while folder and folder not in folders and len(folder) <= MAX_PATH_NBYTES:
            folders.add(folder)
            folder = folder.rpartition(b"/")[0]
        if number > MAX_ENTRIES or len(folders) > MAX_FOLDERS:
            limit = f"{MAX_ENTRIES:,} files" if number > MAX_ENTRIES else f"{MAX_FOLDERS:,} folders"
            raise RepositoryError(f"{root}: more than {limit}; name a part of it")
        yield entry


def object_id(data: bytes, algorithm: str = "sha1") -> str:
    """The id that git gives a blob with this content."""
    return hashlib.new(algorithm, b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def path_text(raw_path: bytes) -> str:
    """A name as text; bytes that are not UTF-8 are written as \\xNN."""
    return raw_path.decode("utf-8", "backslashreplace")
