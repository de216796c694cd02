"""Bring a docs folder up to date: only pages that differ, each atomically, never one that a person edited.

A page whose path is blocked fails alone; an error of the disk ends the run.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from rotary_batch.errors import InputError, StorageError
from rotary_batch.pages.descriptors import BlockedError, Content
from rotary_batch.pages.front import FrontMatter, is_signed, mark_human, read
from rotary_batch.pages.page_paths import LLMS_FULL_NAME, LLMS_NAME, NAV_NAME, NEW_SUFFIX, folders_above
from rotary_batch.pages.safe_folder import DocsFile, SafeFolder, Staged

_NO_FRONT_MATTER = {NAV_NAME, LLMS_NAME, LLMS_FULL_NAME}


class PageFailure(NamedTuple):
    """A page that could not be written, and why."""

    page: str
    reason: str


@dataclass(slots=True)
class SyncResult:
    """What was done to a docs folder; page paths."""

    written: list[str] = field(default_factory=list)
    unchanged: int = 0
    removed: list[str] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)  # edited by a person; the new page is beside it
    kept: list[str] = field(default_factory=list)  # show texts of a model that this database does not have
    without_text: list[str] = field(default_factory=list)  # written with fewer texts of a model than they had
    failed: list[PageFailure] = field(default_factory=list)
    stopped: bool = False  # before all pages were compared

    def add(self, other: SyncResult, prefix: str = "") -> None:
        """Count what was done to another docs folder too; `prefix` says which."""
        self.written += [prefix + page for page in other.written]
        self.unchanged += other.unchanged
        self.removed += [prefix + page for page in other.removed]
        self.conflicts += [prefix + page for page in other.conflicts]
        self.kept += [prefix + page for page in other.kept]
        self.without_text += [prefix + page for page in other.without_text]
        self.failed += [PageFailure(prefix + page, reason) for page, reason in other.failed]
        self.stopped |= other.stopped


def _is_never_kept(_path: str, _digest: str) -> bool:
    return False


def sync_pages(
    folder: SafeFolder,
    pages: Iterable[tuple[str, bytes]],
    result: SyncResult,
    may_keep: Callable[[str, str], bool] = _is_never_kept,
) -> dict[str, str]:
    """Write the pages that differ; returns path -> stamp of those that are now as they should be.

    `may_keep` gets the path and the digest of a page that shows more texts of a model than the new one would, of the
    same sources, and says whether it stays.  Pages go to disk as they come, so only one is in memory.  Raises
    StorageError when the disk fails; then every page is either the old or the new one.
    """
    stamps: dict[str, str] = {}
    staged: list[Staged] = []
    with _disk(folder.path):
        try:
            for path, page in pages:
                try:
                    target = _target_of(folder, path, page, result, stamps, may_keep)
                    staged += [folder.stage(target, page)] if target else []
                except BlockedError as error:
                    result.failed.append(PageFailure(path, str(error)))
            placed, blocked = folder.publish(staged)
        except BaseException:
            folder.discard(staged)
            raise
    result.failed += [PageFailure(path, reason) for path, reason in blocked.items()]
    written = {path: stamp for path, stamp in placed.items() if not path.endswith(NEW_SUFFIX)}
    result.written += written
    return stamps | written


def inventory(folder: SafeFolder) -> list[DocsFile]:
    """The files of a docs folder.  Raises StorageError when the disk fails."""
    with _disk(folder.path):
        return list(folder.walk())


def untouched(folder: SafeFolder, path: str) -> Content | None:
    """A page that is as we wrote it; None when it is not there, or is not so."""
    try:
        content = folder.read(path)
    except BlockedError:
        return None
    return content if content is not None and _is_untouched(path, content.data) else None


def _target_of(
    folder: SafeFolder,
    path: str,
    page: bytes,
    result: SyncResult,
    stamps: dict[str, str],
    may_keep: Callable[[str, str], bool],
) -> str | None:
    """The path to write a page to, if any; a page that a person edited gets the new one beside it."""
    old = folder.read(path)
    if old is None:
        return path
    if old.data == page or read(old.data).is_human:
        result.unchanged += 1
        stamps[path] = old.stamp
        return None
    if _is_untouched(path, old.data):
        return None if _is_kept(path, read(old.data), read(page), result, may_keep) else path
    result.conflicts.append(path)
    new_path = path + NEW_SUFFIX
    new = folder.read(new_path)
    if new is None or (new.data != page and _is_untouched(path, new.data)):
        return new_path
    if new.data != page:
        raise BlockedError(f"{folder.path / new_path}: edited by a person; move it away")
    return None


def _is_kept(
    path: str, old: FrontMatter, new: FrontMatter, result: SyncResult, may_keep: Callable[[str, str], bool]
) -> bool:
    """Whether an untouched page stays for the sake of its texts; counts it, and one that loses texts."""
    loses_texts = old.num_texts > new.num_texts
    # The first page counts the texts of all others.
    if not loses_texts and not (path == "index.md" and result.kept and not result.written):
        return False
    is_kept = old.sources == new.sources and may_keep(path, old.digest)
    if is_kept or loses_texts:
        (result.kept if is_kept else result.without_text).append(path)
    return is_kept


def _is_untouched(path: str, data: bytes) -> bool:
    """Whether a file is as we wrote it."""
    if path in _NO_FRONT_MATTER:
        return is_signed(data)
    front = read(data)
    return front.is_ours and not front.is_edited and not front.is_human


def remove_others(folder: SafeFolder, files: Iterable[DocsFile], wanted: Set[str], result: SyncResult) -> None:
    """Remove what is ours and not wanted, and folders that become empty; never what belongs to a person."""
    in_conflict = set(result.conflicts)
    with _disk(folder.path):
        for file in files:
            with suppress(BlockedError):  # not a page any more
                if _remove_unwanted(folder, file, wanted, in_conflict):
                    result.removed.append(file.path)
        for above in sorted({above for path in result.removed for above in folders_above(path)}, reverse=True):
            folder.remove_if_empty(above)


def _remove_unwanted(folder: SafeFolder, file: DocsFile, wanted: Set[str], in_conflict: Set[str]) -> bool:
    """Remove a file that is ours and not wanted; returns whether it was a page."""
    path = file.path
    if file.is_temporary:
        folder.remove(path)
    elif path.endswith(NEW_SUFFIX):
        page = path.removesuffix(NEW_SUFFIX)
        if page not in in_conflict and _is_untouched_file(folder, path, page):
            folder.remove(path)
    elif path.endswith(".md") and path not in wanted and _is_untouched_file(folder, path, path):
        folder.remove(path)
        return True
    return False


def _is_untouched_file(folder: SafeFolder, path: str, page: str) -> bool:
    content = folder.read(path)
    return content is not None and _is_untouched(page, content.data)


def accept(folder: SafeFolder, page: str, whose: str, *, is_orphan: bool = False) -> None:
    """Settle a conflict: `ours` takes the generated page, `theirs` leaves the person's alone from now on.

    For a page whose source is gone or has another name, there is none: `ours` removes it.
    """
    new_path = page + NEW_SUFFIX
    with _disk(folder.path):
        current = folder.read(page)
        if current is None:
            raise InputError(f"{folder.path / page}: no such page; name it relative to {folder.path}")
        if whose == "ours":
            if is_orphan and read(current.data).is_ours:
                folder.remove(page)
                return
            if folder.read(new_path) is None:
                raise InputError(f"{folder.path / new_path}: no new page to accept; run `render` first")
            folder.move(new_path, page.rpartition("/")[2])
            return
        _, blocked = folder.publish([folder.stage(page, mark_human(current.data))])
        if blocked:
            raise InputError(f"{folder.path / page}: not marked as yours, and the new page is kept: {blocked[page]}")
        if folder.read(new_path) is not None:
            folder.remove(new_path)


@contextmanager
def _disk(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        hint = "free some space and run `render`" if error.errno == errno.ENOSPC else "check the folder"
        raise StorageError(f"{error.filename or path}: {error.strerror}; {hint}") from error
