"""A file beside the database that only takes space: it is deleted when the disk is full, so that a run can end cleanly.

With no space left SQLite can commit nothing, not even that leases end and why the run did.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

NBYTES = 1 << 20  # ending a run of 64 leases changes about 20 pages of 4 KiB, and the journal has them too
_SHARE = 16  # of the free space, at most this part


def ballast_path(database: Path) -> Path:
    """Beside the file itself, whatever link names it."""
    return Path(f"{os.path.realpath(database)}.ballast")


def keep_ballast(database: Path) -> None:
    """Reserve the space unless it is, or the disk has little; only for the driver.  A disk that refuses has none."""
    path = ballast_path(database)
    with suppress(OSError):
        if path.exists() or shutil.disk_usage(path.parent).free < _SHARE * NBYTES:
            return
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, NBYTES)
        except OSError:
            path.unlink()
        finally:
            os.close(descriptor)


def free_ballast(database: Path) -> None:
    """Give the space back to whoever needs it."""
    with suppress(OSError):
        ballast_path(database).unlink()
