"""A copy of the database before its tables change, so that an earlier version of the program can be used again."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import suppress
from pathlib import Path

from rotary_batch.errors import DatabaseError
from rotary_batch.sizes import size_text
from rotary_batch.work.schema import MIGRATIONS

_ADVICE = "nothing was changed; free some space, or check the disk, then run the same command again"


def backup_path(database: Path, version: int) -> Path:
    """The copy of a database with this number of migrations."""
    return Path(f"{os.path.realpath(database)}.schema-{version}")


def back_up_before_migrating(db: sqlite3.Connection, path: Path) -> None:
    """Copy a database of an earlier version beside itself, whole and on the disk, or raise DatabaseError.

    A copy that an interrupted migration left is made again: some of its migrations may have been committed, and then
    it has another number.
    """
    version = db.execute("pragma user_version").fetchone()[0]
    if not 0 < version < len(MIGRATIONS):
        return
    target = backup_path(path, version)
    part = target.with_name(f"{target.name}.part")
    _require_room(path, target)
    try:
        part.unlink(missing_ok=True)
        _copy(db, part)
        part.replace(target)
        _sync_folder(target.parent)
    except OSError as error:
        raise DatabaseError(
            f"{target}: no copy before the upgrade of the database: {error.strerror}; {_ADVICE}"
        ) from error


def _copy(db: sqlite3.Connection, part: Path) -> None:
    """Nothing is left of a copy that is not whole."""
    descriptor = os.open(part, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        db.execute("vacuum into ?", [str(part)])  # into a file that must be empty, without a sync
        os.fsync(descriptor)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise
    finally:
        os.close(descriptor)


def _require_room(path: Path, target: Path) -> None:
    need, free = path.stat().st_size, shutil.disk_usage(target.parent).free
    if free < need:
        raise DatabaseError(
            f"{target.parent}: {size_text(free)} are free, and a copy of the database before its upgrade takes "
            f"{size_text(need)}; {_ADVICE}"
        )


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
