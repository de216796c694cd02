"""What each file of a repository is, with the reason: source to document, or why not."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from rotary_batch.core import FileClass, SourceFile
from rotary_batch.errors import RepositoryError, StoppedError
from rotary_batch.repo import own_pages
from rotary_batch.repo.folder import (
    EXECUTABLE,
    MAX_PATH_NBYTES,
    MAX_READ_NBYTES,
    SUBMODULE,
    SYMLINK,
    UNREADABLE,
    UNREADABLE_FOLDER,
    Entry,
)
from rotary_batch.repo.generated import HEAD_NBYTES, generated_mark, generated_name
from rotary_batch.repo.git import Repository
from rotary_batch.repo.headers import is_cpp, language_beside
from rotary_batch.repo.ignore import IgnorePatterns
from rotary_batch.repo.languages import LANGUAGES, language_of, language_of_script
from rotary_batch.repo.own_pages import is_own_page, with_own_files
from rotary_batch.repo.read_once import WENT_AWAY
from rotary_batch.repo.source_text import as_text, is_minified
from rotary_batch.repo.stubs import own_reason, with_stub_class
from rotary_batch.repo.vendored import VendoredTrees

MAX_SOURCE_NBYTES = 2 * 10**6  # a parse tree takes about 80 bytes a byte of dense code
MAX_DATA_NBYTES = 100_000  # of prose and settings; larger ones are data that a program reads
MAX_SCRIPT_NBYTES = 64_000  # of a file without an ending that is not executable, to be read for its first line
IGNORE_FILE = ".rotaryignore"
_MINIFIED_NAME = re.compile(r"[.-]min\.(js|css|mjs)$")
_LFS_MARK = b"version https://git-lfs.github.com/spec/"


class PathPatterns(NamedTuple):
    """Which paths the settings include and exclude, as in .rotaryignore; an empty `include` means everything."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()


EVERYTHING = PathPatterns()


class Decision(NamedTuple):
    """What a file is."""

    file_class: FileClass
    reason: str
    language: str | None = None  # of a script or a header, which its name does not tell


def classify(
    repository: Repository,
    *,
    docs_dir: str,
    patterns: PathPatterns = EVERYTHING,
    known: Mapping[str, SourceFile] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> list[SourceFile]:
    """All entries of a repository in path order, each with its class and reason.

    Only files that nothing else decides are read.  `known` files were decided by their content before, so while that is
    the same they are not read.  Raises StoppedError when `should_stop` says so, RepositoryError for objects that cannot
    be read.
    """
    known = known or {}
    entries = repository.entries()
    ignore_reason = _ignore_rules(_own_ignore(repository, entries, should_stop), patterns, should_stop)
    decided = {entry.path: decision for entry in entries if (decision := _by_name(entry, docs_dir, ignore_reason))}
    undecided = [entry for entry in entries if entry.path not in decided]
    attributes = repository.attributes([entry.raw_path for entry in undecided])
    vendored = VendoredTrees(repository, entries, patterns.include)
    unread, sources = [], []
    for entry in undecided:  # what the repository says has precedence over our own guesses
        own = attributes.get(entry.raw_path, {})
        if decision := _by_attributes(own) or _by_path_and_size(entry, vendored, _denied(own)):
            decided[entry.path] = decision
        elif entry.mode == UNREADABLE:
            decided[entry.path] = Decision(FileClass.UNREADABLE, NOT_ALLOWED)
        else:
            sources.append(entry)
    beside = language_beside(entry.path for entry in sources)
    for entry in sources:
        decision = _as_known(known.get(entry.path), entry, _denied(attributes.get(entry.raw_path, {})), beside)
        if decision:
            decided[entry.path] = decision
        else:
            unread.append(entry)
    for entry, data in repository.read(unread):
        if should_stop is not None and should_stop():
            raise StoppedError
        decision = _by_content(entry.path, data, _denied(attributes.get(entry.raw_path, {})))
        if entry.path.endswith(".h") and decision.file_class is FileClass.SOURCE:
            decision = _IS_CPP if is_cpp(data) else decision._replace(language=beside(entry.path))
        decided[entry.path] = decision
    files = [_file(entry, decided.get(entry.path, _WENT_AWAY)) for entry in entries]
    return with_own_files(with_stub_class(files))


NOT_ALLOWED = "may not be read by this user"
IS_NO_SCRIPT = "no grammar for files without an ending"
_SAYS, _HAS_LINE = "says ", "a line of "  # how reasons begin that the content gives
_BY_CONTENT = {FileClass.BINARY, FileClass.LFS_POINTER}
_IS_SOURCE = Decision(FileClass.SOURCE, "source code")
# Such a header is C++ whatever is beside it.
_IS_CPP = Decision(FileClass.SOURCE, "source code, C++ by its content", "cpp")
_WENT_AWAY = Decision(FileClass.UNREADABLE, WENT_AWAY)


def is_by_content(file: SourceFile) -> bool:
    """Whether a stored file is what it is because of its content, and not a source: equal bytes are that again."""
    reason = file.reason
    is_marked = reason.startswith((_SAYS, _HAS_LINE)) or reason in {IS_NO_SCRIPT, own_pages.REASON}
    return is_marked or file.file_class in _BY_CONTENT


def _as_known(
    old: SourceFile | None, entry: Entry, denied: Collection[FileClass], beside: Callable[[str], str]
) -> Decision | None:
    """The decision on a file whose content is the same, if it still holds."""
    if old is None or old.blob != entry.blob or old.file_class in denied:
        return None
    decision = Decision(old.file_class, own_reason(old.reason), old.language)
    if decision == _IS_CPP or not entry.path.endswith(".h") or old.file_class is not FileClass.SOURCE:
        return decision
    language = beside(entry.path)
    # Versions up to 0.1 did not note which headers are C++ by their content.
    return None if (old.language, language) == ("cpp", "c") else decision._replace(language=language)


def _file(entry: Entry, decision: Decision) -> SourceFile:
    return SourceFile(
        path=entry.path,
        blob=entry.blob,
        nbytes=entry.nbytes,
        language=decision.language or language_of(entry.path),
        file_class=decision.file_class,
        reason=decision.reason,
    )


def _own_ignore(
    repository: Repository, entries: Sequence[Entry], should_stop: Callable[[], bool] | None
) -> IgnorePatterns:
    own = [entry for entry in entries if entry.path == IGNORE_FILE and entry.mode.startswith(("100", UNREADABLE))]
    origin = str(repository.root / IGNORE_FILE)
    if own and own[0].nbytes > MAX_READ_NBYTES:
        raise RepositoryError(f"{origin}: {own[0].nbytes:,} bytes; the limit is {MAX_READ_NBYTES:,}")
    texts = [data.decode("utf-8", "replace") for _, data in repository.read(own)]
    if len(texts) < len(own):
        raise RepositoryError(f"{origin}: cannot be read, so what it leaves out is not known; make it readable")
    lines = [line for text in texts for line in text.splitlines()]
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
        return Decision(FileClass.SYMLINK, "a symbolic link; links are recorded and never followed")
    if entry.mode == SUBMODULE:
        return Decision(FileClass.SUBMODULE, "a submodule; index it as a repository of its own")
    if len(entry.raw_path) > MAX_PATH_NBYTES:
        return Decision(
            FileClass.UNREADABLE, f"a path of {len(entry.raw_path):,} bytes; the limit is {MAX_PATH_NBYTES:,}"
        )
    if not entry.has_text_name:
        return Decision(FileClass.UNREADABLE, "its name is not printable UTF-8; rename it to have it documented")
    if entry.path == docs_dir or entry.path.startswith(docs_dir.rstrip("/") + "/"):
        return Decision(FileClass.DOCS, f"in {docs_dir}/, which holds the generated docs")
    if reason := ignore_reason(f"{entry.path}/x" if entry.mode == UNREADABLE_FOLDER else entry.path):
        return Decision(FileClass.IGNORED, reason)
    if entry.mode == UNREADABLE_FOLDER:
        return Decision(FileClass.UNREADABLE, NOT_ALLOWED)
    if language_of(entry.path) is None and not _may_be_script(entry):
        ending = PurePosixPath(entry.path).suffix
        return Decision(FileClass.TEXT, f"no grammar for {ending}" if ending else IS_NO_SCRIPT)
    return None


def _may_be_script(entry: Entry) -> bool:
    """Whether the first line of a file may say what its name does not."""
    if entry.mode == UNREADABLE:
        return "." not in entry.path.rpartition("/")[2]
    most = MAX_SOURCE_NBYTES if entry.mode == EXECUTABLE else MAX_SCRIPT_NBYTES
    return "." not in entry.path.rpartition("/")[2] and 2 < entry.nbytes <= most


def _by_attributes(attributes: Mapping[str, str]) -> Decision | None:
    """The decision of the repository itself, if there is one."""
    for name, file_class in (("generated", FileClass.GENERATED), ("vendored", FileClass.VENDORED)):
        if attributes.get(f"linguist-{name}") in {"set", "true"}:
            return Decision(file_class, f"marked linguist-{name} in .gitattributes")
    if attributes.get("linguist-documentation") in {"set", "true"}:
        return Decision(FileClass.TEXT, "marked linguist-documentation in .gitattributes")
    return None


def _denied(attributes: Mapping[str, str]) -> frozenset[FileClass]:
    """The classes that the repository says a file is not; what is minified counts as generated, as on GitHub."""
    classes = {"generated": (FileClass.GENERATED, FileClass.MINIFIED), "vendored": (FileClass.VENDORED,)}
    unset = [name for name in classes if attributes.get(f"linguist-{name}") in {"unset", "false"}]
    return frozenset(file_class for name in unset for file_class in classes[name])


def _by_path_and_size(entry: Entry, vendored: VendoredTrees, denied: Collection[FileClass]) -> Decision | None:
    """The decision from the path and size of a source file, if they suffice."""
    if FileClass.VENDORED not in denied and (reason := vendored.reason(entry.path)):
        return Decision(FileClass.VENDORED, reason)
    if FileClass.GENERATED not in denied and (reason := generated_name(entry.path)):
        return Decision(FileClass.GENERATED, reason)
    if FileClass.MINIFIED not in denied and _MINIFIED_NAME.search(entry.path):
        return Decision(FileClass.MINIFIED, "its name says that it is minified")
    language = language_of(entry.path)
    limit_nbytes = MAX_DATA_NBYTES if language and LANGUAGES[language].is_data else MAX_SOURCE_NBYTES
    if entry.nbytes > limit_nbytes:
        reason = f"{entry.nbytes:,} bytes; the limit for {language or 'scripts'} is {limit_nbytes:,}"
        return Decision(FileClass.OVERSIZED, reason)
    return None


def _by_content(path: str, data: bytes, denied: Collection[FileClass]) -> Decision:
    """The decision from the bytes of a file that may be source code."""
    if data.startswith(_LFS_MARK):
        return Decision(FileClass.LFS_POINTER, "a Git LFS pointer; the content is not in the repository")
    if is_own_page(data):
        return Decision(FileClass.DOCS, own_pages.REASON)
    text, language = as_text(path, data), language_of(path)
    if language is None and (language := language_of_script(text)) is None:
        return Decision(FileClass.TEXT, IS_NO_SCRIPT)
    if b"\0" in text[:HEAD_NBYTES]:
        return Decision(FileClass.BINARY, "has zero bytes")
    if FileClass.GENERATED not in denied and (mark := generated_mark(text)):
        return Decision(FileClass.GENERATED, f"{_SAYS}{mark[:60]!r}")
    if FileClass.MINIFIED not in denied and is_minified(text):
        longest = max(map(len, text.split(b"\n")))
        return Decision(FileClass.MINIFIED, f"{_HAS_LINE}{longest:,} bytes; such files are generated or minified")
    return _IS_SOURCE._replace(language=language)
