"""What each file of a repository is, with the reason: source to document, or why not."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from rotary_batch.core import FileClass, SourceFile
from rotary_batch.errors import RepositoryError, StoppedError
from rotary_batch.repo.folder import MAX_PATH_NBYTES, MAX_READ_NBYTES, SUBMODULE, SYMLINK, UNREADABLE, Entry
from rotary_batch.repo.git import Repository
from rotary_batch.repo.ignore import IgnorePatterns
from rotary_batch.repo.languages import LANGUAGES, language_of
from rotary_batch.repo.stubs import with_stub_class

MAX_SOURCE_NBYTES = 2 * 10**6  # a parse tree takes about 80 bytes a byte of dense code
MAX_DATA_NBYTES = 100_000  # of prose and settings; larger ones are data that a program reads
MAX_LINE_NBYTES = 20_000
MAX_MEAN_LINE_NBYTES = 500
IGNORE_FILE = ".rotaryignore"
_VENDORED = re.compile(r"(^|/)(node_modules|vendor|third_party|third-party|external|bower_components|\.venv|venv)/")
_GENERATED_NAME = re.compile(
    r"(_pb2(_grpc)?\.pyi?|\.pb\.(go|cc|h)|\.g\.dart|_generated\.\w+|\.designer\.cs)$|(^|/)(dist|build)/.*\.min\."
    r"|(^|/)((package-lock|npm-shrinkwrap)\.json|pnpm-lock\.yaml)$"
)
_MINIFIED_NAME = re.compile(r"[.-]min\.(js|css|mjs)$")
_GENERATED_MARK = re.compile(rb"@generated|Code generated .{0,80}DO NOT EDIT|^//# sourceMappingURL=", re.MULTILINE)
_LFS_MARK = b"version https://git-lfs.github.com/spec/"
_HEAD_NBYTES = 4000  # generators write their mark there


class PathPatterns(NamedTuple):
    """Which paths the settings include and exclude, as in .rotaryignore; an empty `include` means everything."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()


EVERYTHING = PathPatterns()


def classify(
    repository: Repository,
    *,
    docs_dir: str,
    patterns: PathPatterns = EVERYTHING,
    known_sources: Mapping[str, str] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> list[SourceFile]:
    """All entries of a repository in path order, each with its class and reason.

    Only files that nothing else decides are read.  `known_sources` (path -> blob) were source code before, so they are
    not read.  Raises StoppedError when `should_stop` says so, RepositoryError for objects that cannot be read.
    """
    known = known_sources or {}
    entries = repository.entries()
    ignore_reason = _ignore_rules(_own_ignore(repository, entries, should_stop), patterns, should_stop)
    decided = {entry.path: decision for entry in entries if (decision := _by_name(entry, docs_dir, ignore_reason))}
    undecided = [entry for entry in entries if entry.path not in decided]
    attributes = repository.attributes([entry.raw_path for entry in undecided])
    unread = []
    for entry in undecided:  # what the repository says has precedence over our own guesses
        decision = _by_attributes(attributes.get(entry.raw_path, {})) or _by_path_and_size(
            entry.path, entry.nbytes, language_of(entry.path) or ""
        )
        if decision or known.get(entry.path) == entry.blob:
            decided[entry.path] = decision or _IS_SOURCE
        else:
            unread.append(entry)
    # Sources are read again to be parsed.  For 20,000 files of 113 MB that takes 2.5 s, versus 400 s for parsing.
    # To keep their bytes would take that much memory, and nothing may be stored before all objects are readable.
    for entry, data in repository.read(unread):
        if should_stop is not None and should_stop():
            raise StoppedError
        decided[entry.path] = _by_content(data)
    return with_stub_class([_file(entry, decided.get(entry.path, _WENT_AWAY)) for entry in entries])


Decision = tuple[FileClass, str]
_IS_SOURCE = FileClass.SOURCE, "source code"
_WENT_AWAY = FileClass.UNREADABLE, "changed or went away while it was read; index again"


def _file(entry: Entry, decision: Decision) -> SourceFile:
    return SourceFile(
        path=entry.path,
        blob=entry.blob,
        nbytes=entry.nbytes,
        language=language_of(entry.path),
        file_class=decision[0],
        reason=decision[1],
    )


def _own_ignore(
    repository: Repository, entries: Sequence[Entry], should_stop: Callable[[], bool] | None
) -> IgnorePatterns:
    own = [entry for entry in entries if entry.path == IGNORE_FILE and entry.mode.startswith("100")]
    origin = str(repository.root / IGNORE_FILE)
    if own and own[0].nbytes > MAX_READ_NBYTES:
        raise RepositoryError(f"{origin}: {own[0].nbytes:,} bytes; the limit is {MAX_READ_NBYTES:,}")
    lines = [line for _, data in repository.read(own) for line in data.decode("utf-8", "replace").splitlines()]
    return IgnorePatterns(lines, origin, should_stop)


def _ignore_rules(
    own: IgnorePatterns, patterns: PathPatterns, should_stop: Callable[[], bool] | None
) -> Callable[[str], str | None]:
    """A function that returns why a path is left out, or None: by the repository's file, or by the settings."""
    include = IgnorePatterns(patterns.include, "the setting include", should_stop)
    exclude = IgnorePatterns(patterns.exclude, "the setting exclude", should_stop)

    def reason(path: str) -> str | None:
        if own.matches(path):
            return f"matches a line of {IGNORE_FILE}"
        if exclude.matches(path):
            return "matches a pattern of `exclude` in the settings"
        if patterns.include and not include.matches(path):
            return "matches no pattern of `include` in the settings"
        return None

    return reason


def _by_name(entry: Entry, docs_dir: str, ignore_reason: Callable[[str], str | None]) -> Decision | None:
    """The decision from mode and name, if they suffice."""
    if entry.mode == SYMLINK:
        return FileClass.SYMLINK, "a symbolic link; links are recorded and never followed"
    if entry.mode == SUBMODULE:
        return FileClass.SUBMODULE, "a submodule; index it as a repository of its own"
    if entry.mode == UNREADABLE:
        return FileClass.UNREADABLE, "may not be read by this user"
    if len(entry.raw_path) > MAX_PATH_NBYTES:
        return FileClass.UNREADABLE, f"a path of {len(entry.raw_path):,} bytes; the limit is {MAX_PATH_NBYTES:,}"
    if not entry.has_text_name:
        return FileClass.UNREADABLE, "its name is not printable UTF-8; rename it to have it documented"
    if entry.path == docs_dir or entry.path.startswith(docs_dir.rstrip("/") + "/"):
        return FileClass.IGNORED, f"in {docs_dir}/, which holds the generated docs"
    if reason := ignore_reason(entry.path):
        return FileClass.IGNORED, reason
    if language_of(entry.path) is None:
        ending = PurePosixPath(entry.path).suffix
        return FileClass.TEXT, f"no grammar for {ending or 'files without an ending'}"
    return None


def _by_attributes(attributes: dict[str, str]) -> Decision | None:
    """The decision of the repository itself, if there is one."""
    for name, file_class in (("generated", FileClass.GENERATED), ("vendored", FileClass.VENDORED)):
        if attributes.get(f"linguist-{name}") in {"set", "true"}:
            return file_class, f"marked linguist-{name} in .gitattributes"
    if attributes.get("linguist-documentation") in {"set", "true"}:
        return FileClass.TEXT, "marked linguist-documentation in .gitattributes"
    return None


def _by_path_and_size(path: str, nbytes: int, language: str) -> Decision | None:
    """The decision from the path and size of a source file, if they suffice."""
    if _VENDORED.search(path):
        return FileClass.VENDORED, "in a folder of other people's code"
    if _GENERATED_NAME.search(path):
        return FileClass.GENERATED, "its name is one that generators use"
    if _MINIFIED_NAME.search(path):
        return FileClass.MINIFIED, "its name says that it is minified"
    limit_nbytes = MAX_DATA_NBYTES if LANGUAGES[language].is_data else MAX_SOURCE_NBYTES
    if nbytes > limit_nbytes:
        return FileClass.OVERSIZED, f"{nbytes:,} bytes; the limit for {language} is {limit_nbytes:,}"
    return None


def _by_content(data: bytes) -> Decision:
    """The decision from the bytes of a source file."""
    if data.startswith(_LFS_MARK):
        return FileClass.LFS_POINTER, "a Git LFS pointer; the content is not in the repository"
    if b"\0" in data[:_HEAD_NBYTES]:
        return FileClass.BINARY, "has zero bytes"
    if match := _GENERATED_MARK.search(data[:_HEAD_NBYTES]):
        mark = match.group().decode("utf-8", "replace")[:60]
        return FileClass.GENERATED, f"says {mark!r}"
    lines = data.count(b"\n") + 1
    longest = max(map(len, data.split(b"\n")))
    if longest > MAX_LINE_NBYTES or len(data) / lines > MAX_MEAN_LINE_NBYTES:
        return FileClass.MINIFIED, f"a line of {longest:,} bytes; such files are generated or minified"
    return _IS_SOURCE
