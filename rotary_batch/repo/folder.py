"""Read a folder as it is on disk: never through a symlink, `.gitignore` honoured as git does.

Knows directories and the ids that git gives contents; runs no git.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pathspec

Ignore = pathspec.PathSpec[pathspec.Pattern]
SYMLINK, SUBMODULE = "120000", "160000"


class Entry(NamedTuple):
    """One tracked or found file."""

    path: str  # as text; bytes that are no UTF-8 are spelt \\xNN
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
        """What lies there now; None when it is gone or neither file nor symlink."""
        full = os.fsencode(self._root) + b"/" + raw_path
        try:
            info = os.lstat(full)
            if stat.S_ISLNK(info.st_mode):
                target = os.readlink(full)  # noqa: PTH115 - a path of bytes
                return Entry(path_text(raw_path), raw_path, SYMLINK, object_id(target, self._algorithm), len(target))
            if not stat.S_ISREG(info.st_mode):
                return None
            # Files too large to document are not worth a hash of their own.
            data = self.read(raw_path) if info.st_size <= 4 * 10**6 else str(info.st_size).encode()
        except OSError:
            return None
        return Entry(path_text(raw_path), raw_path, "100644", object_id(data, self._algorithm), info.st_size)

    def read(self, raw_path: bytes) -> bytes:
        """The bytes of one regular file; raises OSError when a symlink stands in the way."""
        folder = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            *parents, name = raw_path.split(b"/")
            for parent in parents:
                below = os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
                os.close(folder)
                folder = below
            with os.fdopen(os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=folder), "rb") as file:
                return file.read()
        finally:
            os.close(folder)

    def read_all(self, entries: Iterable[Entry]) -> Iterator[tuple[Entry, bytes]]:
        """The content of regular files; one that went away meanwhile is empty."""
        for entry in entries:
            try:
                yield entry, self.read(entry.raw_path)
            except OSError:
                yield entry, b""


@dataclass
class PlainFolder:
    """A folder without git; nested `.gitignore` files are honoured all the same."""

    root: Path

    def __post_init__(self) -> None:
        self.name = self.root.name or "repository"
        self.commit: str | None = None
        self.notes: tuple[str, ...] = ("not a git repository; every file that .gitignore allows is read",)
        self._files = Files(self.root, "sha1")

    def entries(self) -> list[Entry]:
        """What is on disk; ignored folders are pruned, as git does, whatever a pattern below them says."""
        found = [self._files.entry(os.fsencode(path)) for path in self._walk("", [])]
        return sorted(entry for entry in found if entry is not None)

    def _walk(self, folder: str, specs: list[tuple[str, Ignore]]) -> Iterator[str]:
        ignore = self.root / folder / ".gitignore"
        if ignore.is_file() and not ignore.is_symlink():
            lines = ignore.read_text("utf-8", "replace").splitlines()
            specs = [*specs, (folder, pathspec.PathSpec.from_lines("gitignore", lines))]
        for item in sorted(os.scandir(self.root / folder), key=lambda item: item.name):
            path = f"{folder}/{item.name}" if folder else item.name
            is_folder = item.is_dir(follow_symlinks=False)
            if item.name == ".git" or _is_ignored(path + "/" * is_folder, specs):
                continue
            if is_folder:
                yield from self._walk(path, specs)
            else:
                yield path

    def read(self, entries: Iterable[Entry]) -> Iterator[tuple[Entry, bytes]]:
        """The content of regular files."""
        return self._files.read_all(entries)

    def attributes(self, paths: Sequence[bytes]) -> dict[bytes, dict[str, str]]:
        """None: attributes are git's."""
        return {}


def _is_ignored(path: str, specs: Sequence[tuple[str, Ignore]]) -> bool:
    """The deepest .gitignore that has an opinion decides."""
    for folder, spec in reversed(specs):
        found = spec.check_file(path[len(folder) :].lstrip("/") if folder else path)
        if found.include is not None:
            return bool(found.include)
    return False


def object_id(data: bytes, algorithm: str = "sha1") -> str:
    """The id that git gives a blob with this content."""
    return hashlib.new(algorithm, b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def path_text(raw_path: bytes) -> str:
    """A name as text; bytes that are no UTF-8 are spelt \\xNN."""
    return raw_path.decode("utf-8", "backslashreplace")
