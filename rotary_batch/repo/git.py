"""Enumerate and read a folder: a git repository at HEAD, its working tree, or a folder without git.

Plumbing commands only (`ls-tree`, `cat-file`, `ls-files`): none of them runs a repository's own config, as
`git status` and friends do.
"""

from __future__ import annotations

import os
import re
import stat
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Iterator, Sequence
from configparser import Error as ConfigFileError
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Protocol

from rotary_batch.errors import RepositoryError, UnreadableError
from rotary_batch.repo.folder import SUBMODULE, Entry, Files, PlainFolder, object_id, path_text, within_limits
from rotary_batch.repo.git_index import unchanged_files
from rotary_batch.repo.plumbing import GitProcess, git_records, run_git

_MAX_REQUESTED = 64  # object ids; they and git's buffers fit into a pipe, so that neither side blocks for ever
_MAX_DAMAGED = 100  # then reading ends
_MAX_NAMED = 5  # of them in the error


class Repository(Protocol):
    """A folder to document."""

    root: Path
    name: str

    @property
    def commit(self) -> str | None:
        """The commit that was read, or None."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know about how the repository was read."""
        ...

    def entries(self) -> list[Entry]:
        """Everything in it, in path order."""
        ...

    def read(self, entries: Iterable[Entry]) -> Iterator[tuple[Entry, bytes]]:
        """The content of regular files, in the given order."""
        ...

    def attributes(self, paths: Sequence[bytes]) -> dict[bytes, dict[str, str]]:
        """The `linguist-*` attributes that are set."""
        ...


def enclosing_repository(folder: Path) -> Path | None:
    """The top of the git repository around a folder, or None."""
    top = run_git(folder, "rev-parse", "--show-toplevel", check=False).decode("utf-8", "surrogateescape").strip()
    return Path(top) if top else None


def require_folder(path: Path) -> None:
    """Raise RepositoryError for a path that is no folder, with what was probably meant."""
    if path.is_dir():
        return
    if path.exists():
        raise RepositoryError(f"{path}: not a folder; name the folder of a repository")
    advice = "name the folder of a repository"
    if "~" in path.parts:
        advice = "write ~ outside quotes, so that the shell replaces it"
    elif drive := re.match(r"([A-Za-z]):", path.name):
        advice = f"this is a Windows path; in WSL the drive {drive[0]} is /mnt/{drive[1].lower()}"
    raise RepositoryError(f"{path}: no such folder; {advice}")


def open_repository(path: Path, *, worktree: bool = False, docs_dir: str = "rotary-docs") -> Repository:
    """Open a folder; inside a git repository, but below its top, only that part is read.

    Raises RepositoryError: not a folder, no commits, owned by another user.
    """
    require_folder(path)
    root = path.resolve()
    inside = run_git(root, "rev-parse", "--is-inside-work-tree", "--is-bare-repository", check=False).decode().split()
    if not inside:
        if (root / ".git").exists():
            run_git(root, "rev-parse", "--git-dir")  # raises with the reason
        return PlainFolder(root)
    if inside[0] == "false" and inside[1] == "false":
        raise RepositoryError(f"{root}: inside a .git folder; name the repository itself")
    if inside[1] == "true" and worktree:
        raise RepositoryError(f"{root}: a bare repository has no working tree; leave out --worktree")
    return GitWorktree(root) if worktree else GitCommit(root, is_bare=inside[1] == "true", docs_dir=docs_dir)


class _Git(ABC):
    """What both ways of reading a git repository share."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.name = _origin_name(root) or root.name.removesuffix(".git") or "repository"

    @cached_property
    def commit(self) -> str | None:
        """HEAD, or None before the first commit."""
        return run_git(self.root, "rev-parse", "--verify", "--quiet", "HEAD", check=False).decode().strip() or None

    @cached_property
    def _prefix(self) -> str:
        return run_git(self.root, "rev-parse", "--show-prefix").decode("utf-8", "surrogateescape").strip("\n")

    def attributes(self, paths: Sequence[bytes]) -> dict[bytes, dict[str, str]]:
        """The `linguist-*` attributes that are set."""
        names = ("linguist-generated", "linguist-vendored", "linguist-documentation")
        if not paths or not self._has_attributes():
            return {}
        output = run_git(self.root, "check-attr", "-z", "--stdin", *names, stdin=b"\0".join(paths) + b"\0")
        fields = output.split(b"\0")
        attributes: dict[bytes, dict[str, str]] = {}
        for path, name, value in zip(fields[0::3], fields[1::3], fields[2::3], strict=False):
            if value != b"unspecified":
                attributes.setdefault(path, {})[name.decode()] = value.decode()
        return attributes

    @abstractmethod
    def entries(self) -> list[Entry]:
        """Everything in it, in path order."""

    def _has_attributes(self) -> bool:
        """Whether there is such a file in it, or in a folder of the repository above the one that is read."""
        above = [self.root, *self.root.parents[: self._prefix.count("/")]]
        return any((folder / ".gitattributes").is_file() for folder in above) or any(
            entry.path.endswith("/.gitattributes") for entry in self.entries()
        )


def _origin_name(root: Path) -> str | None:
    """What the remote `origin` calls the repository, so that clones in other folders give the same pages."""
    # Importing GitPython runs `git version`; GIT_TRACE and the like of a hook must not reach it.
    hook = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("GIT_")}
    try:
        from git import GitError, Repo  # here, because most commands need no metadata; it reads files
    finally:
        os.environ.update(hook)

    try:
        with Repo(root) as repo:
            url = repo.remote("origin").url
    except (GitError, ConfigFileError, ValueError, OSError, AttributeError):
        return None
    return re.split(r"[/:\\]", url.rstrip("/").removesuffix(".git"))[-1] or None


class GitCommit(_Git):
    """A repository as it was committed at HEAD."""

    def __init__(self, root: Path, *, is_bare: bool, docs_dir: str) -> None:
        super().__init__(root)
        self.is_bare = is_bare
        self._docs = os.fsencode(docs_dir.strip("/")) + b"/"  # what we write there is not a change of the user's
        if self.commit is None:
            raise RepositoryError(f"{root}: no commits yet; commit something, or read the files with --worktree")

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """What a user should know about how the repository was read."""
        changed = 0 if self.is_bare else self._num_uncommitted()
        if not changed:
            return ()
        changes = "1 uncommitted change is" if changed == 1 else f"{changed} uncommitted changes are"
        return (f"{changes} not read; --worktree reads them",)

    def entries(self) -> list[Entry]:
        """The tree of HEAD below the folder."""
        return self._entries

    @cached_property
    def _entries(self) -> list[Entry]:
        self._refuse_partial()
        tree = f"{self.commit}:{'' if self.is_bare else self._prefix.rstrip('/')}"
        records = git_records(self.root, "ls-tree", "-r", "-z", "-l", "--full-tree", tree)
        return sorted(within_limits(self.root, map(_tree_entry, records)))

    def _refuse_partial(self) -> None:
        """A clone without all contents would have git fetch them one by one; here it may not fetch at all."""
        promised = r"^(extensions\.partialclone|remote\..*\.promisor)$"
        if not run_git(self.root, "config", "--get-regexp", promised, check=False):
            return
        listed = run_git(self.root, "rev-list", "--objects", "--no-walk", "--missing=print", "HEAD")
        if missing := sum(line.startswith(b"?") for line in listed.splitlines()):
            raise RepositoryError(
                f"{self.root}: a partial clone, which lacks {missing:,} of the objects to read; fetch them with "
                f"`git -C {self.root} fetch --refetch --no-filter`, or read the files on disk with --worktree"
            )

    def _num_uncommitted(self) -> int:
        """Missing, changed and untracked files, as the disk has them: no filter and no hook of the repository runs."""
        changed = 0
        committed = [entry for entry in self.entries() if not entry.raw_path.startswith(self._docs)]
        unchanged = unchanged_files(self.root, {entry.raw_path: entry.blob for entry in committed})
        for entry in [entry for entry in committed if entry.raw_path not in unchanged]:
            path = os.fsencode(self.root) + b"/" + entry.raw_path
            try:
                info = os.lstat(path)
            except OSError:
                changed += 1
                continue
            if stat.S_ISREG(info.st_mode) and entry.mode.startswith("100"):
                changed += info.st_size != entry.nbytes or _changed_since(path, info, entry.blob)
        untracked = run_git(self.root, "ls-files", "-z", "-o", "--exclude-standard", "--directory")
        return changed + sum(bool(path) and not path.startswith(self._docs) for path in untracked.split(b"\0"))

    def read(self, entries: Iterable[Entry]) -> Iterator[tuple[Entry, bytes]]:
        """Blobs from `cat-file --batch`.  Raises UnreadableError at the end when some cannot be read."""
        damaged: list[Entry] = []
        waiting = iter(entries)
        while requested := list(islice(waiting, _MAX_REQUESTED)):
            while requested and len(damaged) < _MAX_DAMAGED:
                requested = yield from self._read_batch(requested, waiting, damaged)
        if damaged:
            named = ", ".join(f"{entry.path} ({entry.blob})" for entry in damaged[:_MAX_NAMED])
            more = f" and {len(damaged) - _MAX_NAMED:,} more" if len(damaged) > _MAX_NAMED else ""
            message = (
                f"{self.root}: objects that are missing or damaged: {named}{more}; `git -C {self.root} fsck` says "
                f"more, and a fetch from another clone brings them back"
            )
            if len(damaged) == _MAX_DAMAGED:  # not all others were read
                raise RepositoryError(message)
            raise UnreadableError(
                message, {entry.path: f"its object {entry.blob} is missing or damaged" for entry in damaged}
            )

    def _read_batch(
        self, requested: list[Entry], waiting: Iterator[Entry], damaged: list[Entry]
    ) -> Generator[tuple[Entry, bytes], None, list[Entry]]:
        """Read with one process, which a damaged object may end; returns the entries that are still to be read."""
        with GitProcess(self.root, "cat-file", "--batch") as process:
            while requested:
                process.write(b"".join(entry.blob.encode() + b"\n" for entry in requested))
                for place, entry in enumerate(requested):
                    header = process.read_line().split()
                    data = process.read_exactly(int(header[2]) + 1) if len(header) == 3 else None
                    if data is not None and header[1] == b"blob":
                        yield entry, data[:-1]
                        continue
                    damaged.append(entry)
                    if data is None and header[1:] != [b"missing"]:
                        return requested[place + 1 :]
                requested = list(islice(waiting, _MAX_REQUESTED))
        return []


def _changed_since(path: bytes, info: os.stat_result, blob: str) -> bool:
    """Hash small files only; a large one of the same size counts as unchanged."""
    if info.st_size > 10**6:
        return False
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - a path of bytes
            return object_id(file.read(), "sha256" if len(blob) == 64 else "sha1") != blob
    except OSError:
        return True


def _tree_entry(line: bytes) -> Entry:
    info, raw_path = line.split(b"\t", 1)
    mode, _, blob, size = info.split()
    nbytes = int(size) if size.isdigit() else 0  # "-" of a submodule, "BAD" of an object that is not there
    return Entry(path_text(raw_path), raw_path, mode.decode(), blob.decode(), nbytes)


class GitWorktree(_Git):
    """A repository as its files are now: tracked ones and untracked ones that are not ignored."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        algorithm = run_git(root, "rev-parse", "--show-object-format").decode().strip()
        self._files = Files(root, algorithm)
        self.notes = ("files are read as they are, not as committed",)

    def entries(self) -> list[Entry]:
        """What is on disk."""
        return self._entries

    @cached_property
    def _entries(self) -> list[Entry]:
        tracked = list(git_records(self.root, "ls-files", "-z", "-s"))
        submodules = {line.split(b"\t", 1)[1]: line.split()[1] for line in tracked if line.startswith(b"160000")}
        paths = {line.split(b"\t", 1)[1] for line in tracked}
        paths.update(git_records(self.root, "ls-files", "-z", "-o", "--exclude-standard"))
        entries = [self._files.entry(path) for path in paths - submodules.keys()]
        linked = [Entry(path_text(path), path, SUBMODULE, oid.decode(), 0) for path, oid in submodules.items()]
        return sorted(within_limits(self.root, [*(entry for entry in entries if entry is not None), *linked]))

    def read(self, entries: Iterable[Entry]) -> Iterator[tuple[Entry, bytes]]:
        """The content of regular files."""
        return self._files.read_all(entries)
