"""Make a docs folder what it should be: atomic, only what differs, never a page that a person edited.

A page whose place is taken fails alone; a disk that refuses ends everything.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from rotary_batch.errors import InputError, StorageError
from rotary_batch.pages.descriptors import BlockedError
from rotary_batch.pages.front import is_signed, mark_human, read
from rotary_batch.pages.page_paths import LLMS_NAME, NAV_NAME, NEW_SUFFIX
from rotary_batch.pages.safe_folder import Found, SafeFolder, Staged

_NO_FRONT_MATTER = {NAV_NAME, LLMS_NAME}


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
    failed: list[PageFailure] = field(default_factory=list)
    stopped: bool = False  # before all pages were looked at

    def add(self, other: SyncResult, prefix: str = "") -> None:
        """Count what was done to another docs folder too; `prefix` says which."""
        self.written += [prefix + page for page in other.written]
        self.unchanged += other.unchanged
        self.removed += [prefix + page for page in other.removed]
        self.conflicts += [prefix + page for page in other.conflicts]
        self.failed += [PageFailure(prefix + page, reason) for page, reason in other.failed]
        self.stopped |= other.stopped


def project(folder: SafeFolder, pages: Iterable[tuple[str, bytes]], done: SyncResult) -> dict[str, str]:
    """Write the pages that differ; answers path -> stamp of those that are now as they should be.

    Pages go to disk as they come, so only one is in memory.  Raises StorageError when the disk refuses; then every
    page is either the old or the new one.
    """
    stamps: dict[str, str] = {}
    staged: list[Staged] = []
    with _disk(folder.path):
        try:
            for path, page in pages:
                try:
                    place = _place_for(folder, path, page, done, stamps)
                    staged += [folder.stage(place, page)] if place else []
                except BlockedError as error:
                    done.failed.append(PageFailure(path, str(error)))
            placed, blocked = folder.publish(staged)
        except BaseException:
            folder.discard(staged)
            raise
    done.failed += [PageFailure(path, reason) for path, reason in blocked.items()]
    written = {path: stamp for path, stamp in placed.items() if not path.endswith(NEW_SUFFIX)}
    done.written += written
    return stamps | written


def inventory(folder: SafeFolder) -> list[Found]:
    """The files that are there.  Raises StorageError when the disk refuses."""
    with _disk(folder.path):
        return list(folder.walk())


def _place_for(folder: SafeFolder, path: str, page: bytes, done: SyncResult, stamps: dict[str, str]) -> str | None:
    """Where a page is to be written, if anywhere; a conflict puts the new one beside the old."""
    old = folder.read(path)
    if old is None:
        return path
    if old.data == page or read(old.data).is_human:
        done.unchanged += 1
        stamps[path] = old.stamp
        return None
    if _is_untouched(path, old.data):
        return path
    done.conflicts.append(path)
    beside = path + NEW_SUFFIX
    there = folder.read(beside)
    if there is None or (there.data != page and _is_untouched(path, there.data)):
        return beside
    if there.data != page:
        raise BlockedError(f"{folder.path / beside}: edited by a person; move it away")
    return None


def _is_untouched(path: str, data: bytes) -> bool:
    """Whether a file is as we wrote it."""
    if path in _NO_FRONT_MATTER:
        return is_signed(data)
    front = read(data)
    return front.is_ours and not front.is_edited and not front.is_human


def remove_others(folder: SafeFolder, found: Iterable[Found], wanted: Set[str], done: SyncResult) -> None:
    """Take away what is ours and not wanted, and folders that this leaves empty; never what is a person's."""
    in_conflict = set(done.conflicts)
    with _disk(folder.path):
        for one in found:
            with suppress(BlockedError):  # not a page any more
                if _removed_page(folder, one, wanted, in_conflict):
                    done.removed.append(one.path)
        for above in sorted({above for path in done.removed for above in _folders_above(path)}, reverse=True):
            folder.remove_if_empty(above)


def _removed_page(folder: SafeFolder, one: Found, wanted: Set[str], in_conflict: Set[str]) -> bool:
    """Take away a file if it is ours and not wanted; whether it was a page."""
    path = one.path
    if one.is_temporary:
        folder.remove(path)
    elif path.endswith(NEW_SUFFIX):
        page = path.removesuffix(NEW_SUFFIX)
        if page not in in_conflict and _is_untouched_at(folder, path, page):
            folder.remove(path)
    elif path.endswith(".md") and path not in wanted and _is_untouched_at(folder, path, path):
        folder.remove(path)
        return True
    return False


def _is_untouched_at(folder: SafeFolder, path: str, page: str) -> bool:
    content = folder.read(path)
    return content is not None and _is_untouched(page, content.data)


def _folders_above(path: str) -> Iterator[str]:
    while path := path.rpartition("/")[0]:
        yield path


def accept(folder: SafeFolder, page: str, whose: str) -> None:
    """Settle a conflict: `ours` takes the generated page, `theirs` leaves the person's alone from now on."""
    beside = page + NEW_SUFFIX
    with _disk(folder.path):
        mine = folder.read(page)
        if mine is None:
            raise InputError(f"{folder.path / page}: no such page; name it relative to {folder.path}")
        if whose == "ours":
            if folder.read(beside) is None:
                raise InputError(f"{folder.path / beside}: no new page to take; run `render` first")
            folder.move(beside, page.rpartition("/")[2])
            return
        _, blocked = folder.publish([folder.stage(page, mark_human(mine.data))])
        if blocked:
            raise InputError(f"{folder.path / page}: not marked as yours, and the new page is kept: {blocked[page]}")
        if folder.read(beside) is not None:
            folder.remove(beside)


@contextmanager
def _disk(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        hint = "free some space and run `render`" if error.errno == errno.ENOSPC else "check the folder"
        raise StorageError(f"{error.filename or path}: {error.strerror}; {hint}") from error
