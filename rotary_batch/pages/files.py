"""Make a docs folder what it should be: atomic, only what differs, never a page that a person edited.

Knows files; knows nothing of what is in them but whose they are.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rotary_batch.errors import InputError, StorageError
from rotary_batch.pages.front import GENERATOR, mark_human, read
from rotary_batch.pages.site import LLMS_NAME, NAV_NAME

NEW_SUFFIX = ".rotary-new"
_TEMPORARY_SUFFIX = ".rotary-tmp"
_NO_FRONT_MATTER = {NAV_NAME, LLMS_NAME}  # generated whole; a person's own says nothing of us


@dataclass(slots=True)
class Projection:
    """What was done to a docs folder; page paths."""

    written: list[str] = field(default_factory=list)
    unchanged: int = 0
    removed: list[str] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)  # edited by a person; the new page lies beside it


def project(docs_dir: Path, pages: Mapping[str, bytes], *, remove_others: bool) -> Projection:
    """Write the pages that differ; with `remove_others`, take away unedited pages of things that are gone.

    Raises InputError when the folder is no place of ours, StorageError when the disk refuses; then every
    page is either the old or the new one.
    """
    done = Projection()
    try:
        _require_folder(docs_dir)
        writes = [(path, page) for path, page in sorted(pages.items()) if _decide(docs_dir, path, page, done)]
        _write_all(docs_dir, writes)
        done.written += [path for path, _ in writes if not path.endswith(NEW_SUFFIX)]
        if remove_others:
            _remove_others(docs_dir, set(pages), done)
    except OSError as error:
        hint = "free some space and run `render`" if error.errno == errno.ENOSPC else "check the folder"
        raise StorageError(f"{error.filename or docs_dir}: {error.strerror}; {hint}") from error
    return done


def _require_folder(docs_dir: Path) -> None:
    if docs_dir.is_symlink():
        raise InputError(f"{docs_dir}: a symbolic link; name a real folder with --out")
    if docs_dir.exists() and not docs_dir.is_dir():
        raise InputError(f"{docs_dir}: not a folder; name another one with --out")


def _decide(docs_dir: Path, path: str, page: bytes, done: Projection) -> bool:
    """Whether a page is to be written; a conflict puts the new one beside the old."""
    target = docs_dir / path
    _require_inside(docs_dir, target)
    if not target.is_file():
        return True
    old = target.read_bytes()
    if old == page:
        done.unchanged += 1
        return False
    front = read(old)
    if front.is_human:
        done.unchanged += 1
        return False
    if GENERATOR.encode() not in old if path in _NO_FRONT_MATTER else (not front.is_ours or front.is_edited):
        done.conflicts.append(path)
        beside = target.with_name(target.name + NEW_SUFFIX)
        if not beside.is_file() or beside.read_bytes() != page:
            _write_all(docs_dir, [(path + NEW_SUFFIX, page)])
        return False
    return True


def _require_inside(docs_dir: Path, target: Path) -> None:
    """A page must not land elsewhere, by its name or by a link on the way."""
    if docs_dir not in target.parents or ".." in target.relative_to(docs_dir).parts:
        raise InputError(f"{target}: not inside the docs folder; name the page relative to {docs_dir}")
    for step in (target, *target.parents):
        if step == docs_dir:
            break
        if step.is_symlink():
            raise InputError(f"{step}: a symbolic link inside the docs folder; remove it")


def _write_all(docs_dir: Path, writes: Iterable[tuple[str, bytes]]) -> None:
    """Write and sync all temporaries, rename all, sync the folders: one page is never half a page."""
    renames = []
    try:
        for path, page in writes:
            target = docs_dir / path
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = target.with_name(target.name + _TEMPORARY_SUFFIX)
            with temporary.open("wb") as file:
                renames.append((temporary, target))
                file.write(page)
                file.flush()
                os.fsync(file.fileno())
        for temporary, target in renames:
            temporary.replace(target)
    except OSError:
        for temporary, _ in renames:
            temporary.unlink(missing_ok=True)
        raise
    for folder in {target.parent for _, target in renames}:
        descriptor = os.open(folder, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def _remove_others(docs_dir: Path, wanted: set[str], done: Projection) -> None:
    """Take away what is ours and not wanted, and folders that this leaves empty; never those of a person."""
    for target in sorted(docs_dir.rglob("*")):
        path = target.relative_to(docs_dir).as_posix()
        if target.name.endswith(_TEMPORARY_SUFFIX):
            target.unlink()  # left by a run that was killed
        elif path.endswith(NEW_SUFFIX):
            if path.removesuffix(NEW_SUFFIX) not in done.conflicts:
                target.unlink()
        elif target.is_file() and path.endswith(".md") and path not in wanted:
            front = read(target.read_bytes())
            if front.is_ours and not front.is_edited and not front.is_human:
                target.unlink()
                done.removed.append(path)
    left = {parent for path in done.removed for parent in (docs_dir / path).parents if docs_dir in parent.parents}
    for folder in sorted(left, reverse=True):
        if not any(folder.iterdir()):
            folder.rmdir()


def accept(docs_dir: Path, page: str, whose: str) -> None:
    """Settle a conflict: `ours` takes the generated page, `theirs` leaves the person's alone from now on."""
    target, beside = docs_dir / page, docs_dir / (page + NEW_SUFFIX)
    _require_inside(docs_dir, target)
    if not target.is_file():
        raise InputError(f"{target}: no such page; name it relative to {docs_dir}")
    if whose == "ours":
        if not beside.is_file():
            raise InputError(f"{beside}: no new page to take; run `render` first")
        beside.replace(target)
        return
    _write_all(docs_dir, [(page, mark_human(target.read_bytes()))])
    beside.unlink(missing_ok=True)
