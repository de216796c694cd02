"""What another shell asks of the drivers of a database: small files in `control/`, beside the database.

A pause is such a file.  Every driver of the database looks for it between two steps, also one that starts later.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from rotary_batch import private_file
from rotary_batch.errors import storage_error


class Pause(NamedTuple):
    """Since when the drivers of a database pause, and until when; seconds since 1970."""

    since: float
    until: float | None = None  # None = until `unpause`

    def as_dict(self) -> dict[str, str | None]:
        """The form in `--json`."""
        return {"since": _iso(self.since), "until": None if self.until is None else _iso(self.until)}


def pause(database: Path, until: float | None = None, now: float | None = None) -> Pause:
    """Pause the drivers of a database; a pause that holds already gets the new end.  Raises StorageError."""
    asked = Pause(time.time() if now is None else now, until)
    if before := paused(database, asked.since):
        asked = Pause(before.since, until)
    try:
        private_file.write(_file(database), json.dumps(asked._asdict()))
    except OSError as error:
        raise storage_error(error) from error
    return asked


def unpause(database: Path) -> bool:
    """End the pause; returns whether there was one.  Raises StorageError."""
    was_paused = paused(database) is not None
    try:
        _file(database).unlink(missing_ok=True)
    except OSError as error:
        raise storage_error(error) from error
    return was_paused


def paused(database: Path, now: float | None = None) -> Pause | None:
    """The pause that holds now.  A file that cannot be read is a pause without an end: whoever made it wanted one."""
    path = _file(database)
    try:
        since = path.stat().st_mtime
    except OSError:
        return None
    found = Pause(since)
    with suppress(OSError, ValueError, TypeError, AttributeError):
        told = json.loads(path.read_bytes()[:1000])
        found = Pause(float(told["since"]), None if told["until"] is None else float(told["until"]))
    is_over = found.until is not None and found.until <= (time.time() if now is None else now)
    return None if is_over else found


def _file(database: Path) -> Path:
    """By the name of the file itself, whatever link names it: as its lock is."""
    real = Path(os.path.realpath(database))
    return real.parent / "control" / f"{real.name}.pause"


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
