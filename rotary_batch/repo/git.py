"""Enumerate and read a folder: a git repository at HEAD, its working tree, or a folder without git.

Knows hardened plumbing (`ls-tree`, `cat-file`, `ls-files`); none of it runs a repository's own config, as
`git status` and friends do.  Knows nothing of what a file is.
"""

from __future__ import annotations

import os
import re
import stat
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Protocol

from rotary_batch.errors import RepositoryError, UnavailableError
from rotary_batch.repo.folder import SUBMODULE, Entry, Files, PlainFolder, object_id, path_text

_HARDENED = (
    "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-c", "core.quotePath=false",
    "-c", "protocol.allow=never",
)  # fmt: skip


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
        """What a user should know about how it was read."""
        ...

    def entries(self) -> list[Entry]:
        """Everything in it, in path order."""
        ...

    def read(self, entries: Iterable[Entry]) -> Iterator[tuple[Entry, bytes]]:
        """The content of regular files, in the order asked."""
        ...

    def attributes(self, paths: Sequence[bytes]) -> dict[bytes, dict[str, str]]:
        """The `linguist-*` attributes that are set."""
        ...


def run_git(root: Path, *arguments: str, stdin: bytes | None = None, check: bool = True) -> bytes:
    """Run one plumbing command.  Raises RepositoryError with git's own words."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
        **{name: os.environ[name] for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_NOSYSTEM") if name in os.environ},
        "GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0", "GIT_NO_LAZY_FETCH": "1", "LC_ALL": "C",
    }  # fmt: skip
    command = ["git", *_HARDENED, "-C", str(root), *arguments]
    try:
        done = subprocess.run(command, input=stdin or b"", capture_output=True, env=environment)
    except FileNotFoundError as error:
        raise UnavailableError("git is not installed; install it to read git repositories") from error
    if check and done.returncode:
        raise _explained(root, done.stderr.decode("utf-8", "replace"))
    return done.stdout


def _explained(root: Path, words: str) -> RepositoryError:
    if "dubious ownership" in words:
        return RepositoryError(
            f"{root}: owned by another user, so git refuses to read it; if you trust it, run "
            f"`git config --global --add safe.directory {root}`"
        )
    return RepositoryError(f"{root}: git: {words.strip().splitlines()[0] if words.strip() else 'failed'}")


def enclosing_repository(folder: Path) -> Path | None:
    """The top of the git repository around a folder, or None."""
    found = run_git(folder, "rev-parse", "--show-toplevel", check=False).decode("utf-8", "surrogateescape").strip()
    return Path(found) if found else None


def open_repository(path: Path, *, worktree: bool = False, docs_dir: str = "rotary-docs") -> Repository:
    """Open a folder; inside a git repository, but below its top, only that part is read.

    Raises RepositoryError: not a directory, no commits, owned by another user.
    """
    if not path.is_dir():
        raise RepositoryError(f"{path}: {'not a directory' if path.exists() else 'no such directory'}; name a folder")
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


class _Git:
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
        found: dict[bytes, dict[str, str]] = {}
        for path, name, value in zip(fields[0::3], fields[1::3], fields[2::3], strict=False):
            if value != b"unspecified":
                found.setdefault(path, {})[name.decode()] = value.decode()
        return found

    def _has_attributes(self) -> bool:
        return any(self.root.glob(".gitattributes")) or any(self.root.glob("*/.gitattributes"))


def _origin_name(root: Path) -> str | None:
    """What the remote `origin` calls the repository, so that clones in other folders give the same pages."""
    from git import GitCommandError, InvalidGitRepositoryError, Repo  # metadata only: it reads files, runs nothing

    try:
        with Repo(root) as repo:
            url = repo.remote("origin").url
    except (InvalidGitRepositoryError, GitCommandError, ValueError, OSError, AttributeError):
        return None
    return re.split(r"[/:\\]", url.rstrip("/").removesuffix(".git"))[-1] or None


class GitCommit(_Git):
    """A repository as it was committed at HEAD."""

    def __init__(self, root: Path, *, is_bare: bool, docs_dir: str) -> None:
        super().__init__(root)
        self.is_bare = is_bare
        self._docs = os.fsencode(docs_dir.strip("/")) + b"/"  # what we write there is no change of the user's
        if self.commit is None:
            raise RepositoryError(f"{root}: no commits yet; commit something, or read the files with --worktree")

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """What a user should know about how it was read."""
        changed = 0 if self.is_bare else self._num_uncommitted()
        return (f"{changed} uncommitted changes are not read; --worktree reads them",) if changed else ()

    def entries(self) -> list[Entry]:
        """The tree of HEAD below the folder."""
        prefix = "" if self.is_bare else self._prefix.rstrip("/")
        output = run_git(self.root, "ls-tree", "-r", "-z", "-l", "--full-tree", f"{self.commit}:{prefix}")
        return sorted(_tree_entry(line) for line in output.split(b"\0") if line)

    def _num_uncommitted(self) -> int:
        """Missing, changed and untracked files, by lstat alone: no filter and no hook of the repository runs."""
        changed = 0
        for entry in [entry for entry in self.entries() if not entry.raw_path.startswith(self._docs)]:
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
        """Blobs from one `cat-file --batch`."""
        command = ["git", *_HARDENED, "-C", str(self.root), "cat-file", "--batch"]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            for entry in entries:
                process.stdin.write(entry.blob.encode() + b"\n")
                process.stdin.flush()
                header = process.stdout.readline().split()
                if len(header) != 3:
                    raise RepositoryError(
                        f"{self.root}: object {entry.blob} of {entry.path} is missing; run `git fsck`"
                    )
                data = process.stdout.read(int(header[2]))
                process.stdout.read(1)
                yield entry, data
        finally:
            process.stdin.close()
            process.stdout.close()
            process.wait()


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
    nbytes = 0 if size == b"-" else int(size)
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
        tracked = run_git(self.root, "ls-files", "-z", "-s").split(b"\0")
        submodules = {line.split(b"\t", 1)[1]: line.split()[1] for line in tracked if line.startswith(b"160000")}
        paths = {line.split(b"\t", 1)[1] for line in tracked if line}
        paths |= set(filter(None, run_git(self.root, "ls-files", "-z", "-o", "--exclude-standard").split(b"\0")))
        found = [self._files.entry(path) for path in paths - submodules.keys()]
        linked = [Entry(path_text(path), path, SUBMODULE, oid.decode(), 0) for path, oid in submodules.items()]
        return sorted([*(entry for entry in found if entry is not None), *linked])

    def read(self, entries: Iterable[Entry]) -> Iterator[tuple[Entry, bytes]]:
        """The content of regular files."""
        return self._files.read_all(entries)
