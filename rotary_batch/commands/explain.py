"""`explain`: why a path is read or not, and what to do about it.

A person may type any path: absolute, relative to the current folder or to the repository, of something that git does
not know, that is in another repository, or that does not exist.
"""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rotary_batch.commands.inspect import file_row
from rotary_batch.commands.repositories import repository_root
from rotary_batch.config import Settings
from rotary_batch.core import FileClass, SourceFile
from rotary_batch.errors import InputError
from rotary_batch.repo.files import IGNORE_FILE, PathPatterns, classify
from rotary_batch.repo.folder import SUBMODULE, SYMLINK, Entry, PlainFolder, path_text
from rotary_batch.repo.git import GitCommit, Repository, enclosing_repository, open_repository
from rotary_batch.repo.plumbing import run_git

MAX_SUGGESTIONS = 3
_LINE_NUMBER = re.compile(r":\d+$")
_ADVICE: Mapping[FileClass, str] = {
    FileClass.SOURCE: "nothing to do: `rotary-batch index` reads it",
    FileClass.TEXT: "nothing to do: it is listed, without a page of its own",
    FileClass.GENERATED: "to have it read, write `PATH linguist-generated=false` into .gitattributes",
    FileClass.VENDORED: "to have it read, write `PATH linguist-vendored=false` into .gitattributes",
    FileClass.MINIFIED: "keep the source that it is made from in the repository",
    FileClass.BINARY: "nothing to do: only text is read",
    FileClass.OVERSIZED: "split it",
    FileClass.LFS_POINTER: "run `git lfs pull`, then read the files on disk with --worktree",
    FileClass.SYMLINK: "explain the file that it leads to",
    FileClass.DOCS: "explain its source",
    FileClass.IGNORED: f"change {IGNORE_FILE}, or `include` and `exclude` in the settings",
    FileClass.UNREADABLE: "make it readable, or rename it",
}


def root_for(typed: str, repo: Path | None) -> Path:
    """The repository that a question is about: the named one, that around the current folder, or that of the path.

    Raises RepositoryError when there is none.
    """
    if repo is not None:
        return repository_root(repo)
    here = enclosing_repository(Path.cwd())
    absolute = Path.cwd() / typed
    if here is None or _relative(here.resolve(), absolute) is None:
        here = _repository_around(absolute) or here
    return repository_root(here)


def _repository_around(path: Path) -> Path | None:
    folder = Path(os.path.normpath(path))
    folders = (above for above in (folder, *folder.parents) if above.is_dir())
    return next(filter(None, map(enclosing_repository, folders)), None)


def explain(settings: Settings, root: Path, typed: str, *, from_root: bool) -> dict[str, Any]:
    """What a path is, why it is read or not, and what to do.

    `from_root`: a relative path is first taken from the repository, not from the current folder.  Raises InputError for
    a path that is not there.
    """
    known = _Known(root, settings, open_repository(root, worktree=settings.worktree, docs_dir=settings.out))
    paths = list(dict.fromkeys(_meanings(root, typed, from_root=from_root)))
    for is_there in (known.is_entry, known.is_folder, known.is_on_disk):
        for path in filter(is_there, paths):
            return known.answer(path)
    for path in paths:
        if (answer := known.outside(path)) is not None:
            return answer
    raise InputError(_nowhere(known, typed, paths))


def _meanings(root: Path, typed: str, *, from_root: bool) -> Iterator[str]:
    """The paths below the root that a person may mean, the likeliest first; "" is the root."""
    for text in dict.fromkeys((typed, _LINE_NUMBER.sub("", typed))):
        folders = [root, Path.cwd()] if from_root else [Path.cwd(), root]
        for folder in folders:
            path = _relative(root, folder / text)
            if path is not None:
                yield path


def _relative(root: Path, absolute: Path) -> str | None:
    """A path below the root, whatever links lead to the root; None when it is elsewhere.  Links below it stay."""
    path = Path(os.path.normpath(absolute))
    top = root.stat()
    for above in (*reversed(path.parents), path):
        with suppress(OSError, ValueError):
            if os.path.samestat(above.stat(), top):
                inside = path.relative_to(above).as_posix()
                return "" if inside == "." else inside
    with suppress(OSError, ValueError, RuntimeError):
        real = path.parent.resolve() / path.name
        if real.is_relative_to(root):
            return real.relative_to(root).as_posix()
    return None


@dataclass(frozen=True)
class _Known:
    """What is known of a repository."""

    root: Path
    settings: Settings
    repository: Repository

    @cached_property
    def entries(self) -> Mapping[bytes, Entry]:
        return {entry.raw_path: entry for entry in self.repository.entries()}

    @cached_property
    def files(self) -> Mapping[str, SourceFile]:
        patterns = PathPatterns(self.settings.include, self.settings.exclude)
        return {file.path: file for file in classify(self.repository, docs_dir=self.settings.out, patterns=patterns)}

    def is_entry(self, path: str) -> bool:
        return os.fsencode(path) in self.entries

    def is_folder(self, path: str) -> bool:
        prefix = os.fsencode(path) + b"/" if path else b""
        return any(raw_path.startswith(prefix) for raw_path in self.entries)

    def is_on_disk(self, path: str) -> bool:
        return os.path.lexists(self.root / path) and self.outside(path) is None

    def answer(self, path: str) -> dict[str, Any]:
        """For something that is here."""
        if (entry := self.entries.get(os.fsencode(path))) is not None:
            return self._entry(self.files[entry.path], entry)
        return self._folder(path) if self.is_folder(path) else self._unknown_to_git(path)

    def outside(self, path: str) -> dict[str, Any] | None:
        """For something behind a link, in git's own folder or in another repository; None for anything else."""
        parts = path.split("/")
        if ".git" in parts:
            return _answer(path, "ignored", "in git's own folder", "nothing to do: it is never read")
        for number in range(1, len(parts) + 1):
            above, rest = "/".join(parts[:number]), "/".join(parts[number:])
            entry = self.entries.get(os.fsencode(above))
            if rest and (entry.mode == SYMLINK if entry else (self.root / above).is_symlink()):
                reason = f"below the symbolic link {above}; links are recorded and never followed"
                return _answer(path, "symlink", reason, "explain the file that it leads to, in its own repository")
            if entry and entry.mode == SUBMODULE:
                return _answer(path, "submodule", f"in the submodule {above}", _index_it(self.root, above, rest))
            if entry is None and above and os.path.lexists(self.root / above / ".git"):
                reason = f"in the repository {above}, which is nested in this one"
                return _answer(path, "nested-repository", reason, _index_it(self.root, above, rest))
        return None

    def _entry(self, file: SourceFile, entry: Entry) -> dict[str, Any]:
        advice = _ADVICE.get(file.file_class, "")
        if entry.mode == SUBMODULE:
            advice = _index_it(self.root, entry.path)
        return file_row(file) | {"advice": advice.replace("PATH", file.path)}

    def _folder(self, path: str) -> dict[str, Any]:
        prefix = f"{path_text(os.fsencode(path))}/" if path else ""
        classes = Counter(name.file_class.value for name in self.files.values() if name.path.startswith(prefix))
        counted = ", ".join(f"{count:,} {name}" for name, count in classes.most_common())
        return _answer(path or ".", "folder", f"a folder with files: {counted}", "explain one of them")

    def _unknown_to_git(self, path: str) -> dict[str, Any]:
        """On disk, but not among what is read."""
        docs = self.settings.out.rstrip("/")
        if path == docs or path.startswith(f"{docs}/"):
            return _answer(path, "docs", f"in {docs}/, which holds the generated docs", "explain its source")
        mode = os.lstat(self.root / path).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode)):
            return _answer(path, "special", "neither a file, a folder nor a link", "nothing to do: it is never read")
        if isinstance(self.repository, PlainFolder):
            advice = "change that .gitignore" if stat.S_ISREG(mode) else "nothing to do"
            return _answer(path, "ignored", "empty, or a .gitignore leaves it out", advice)
        if (rule := self._ignore_rule(path)) is not None:
            return _answer(
                path, "ignored", f"git ignores it: {rule}", "change that line, or `git add --force` the file"
            )
        if stat.S_ISDIR(mode) and not any((self.root / path).iterdir()):
            return _answer(path, "folder", "an empty folder", "nothing to do")
        if not isinstance(self.repository, GitCommit):
            return _answer(path, "folder", "nothing in it is read", "explain a file in it")
        reason = "on disk, but not in the last commit, which is what is read"
        return _answer(path, "untracked", reason, "commit it, or read the files as they are with --worktree")

    def _ignore_rule(self, path: str) -> str | None:
        """The line of a .gitignore that leaves a path out, as `FILE, line N: PATTERN`."""
        asked = b"./" + os.fsencode(path) + b"\0"  # so that a colon begins no pathspec
        output = run_git(self.root, "check-ignore", "--verbose", "-z", "--stdin", stdin=asked, check=False)
        source, line, pattern, *_ = [*output.decode("utf-8", "backslashreplace").split("\0"), "", "", ""]
        return f"{source}, line {line}: {pattern}" if source and not pattern.startswith("!") else None


def _answer(path: str, file_class: str, reason: str, advice: str) -> dict[str, Any]:
    """For something that is not a file of the index."""
    return {
        "path": path_text(os.fsencode(path)),
        "blob": None,
        "bytes": None,
        "language": None,
        "class": file_class,
        "reason": reason,
        "advice": advice,
    }


def _index_it(root: Path, path: str, rest: str = "") -> str:
    own = f"index it as its own repository: `rotary-batch index {root / path}`"
    return f"{own}, then `rotary-batch explain {rest} {root / path}`" if rest else own


def _nowhere(known: _Known, typed: str, paths: Sequence[str]) -> str:
    if not paths:
        other = _repository_around(Path.cwd() / typed)
        where = f"it is in {other}; name that repository" if other else "name the repository that holds it"
        return f"{typed}: not inside {known.root}; {where}"
    name = paths[0].rpartition("/")[2].casefold()
    alike = [path for path in known.files if path.rpartition("/")[2].casefold() == name][:MAX_SUGGESTIONS]
    advice = f"did you mean {' or '.join(alike)}?" if alike else "`rotary-batch inspect files` lists what there is"
    return f"{typed}: no such file, neither on disk nor among the files of {known.root}; {advice}"
