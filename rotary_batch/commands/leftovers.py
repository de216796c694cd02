"""Files of ours that nobody needs: copies of old databases, what interrupted commands left, reports of old runs.

Only files with names that this program gives, in folders of its own, and old enough that no command still writes them.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from rotary_batch.commands.packs import packs_cache
from rotary_batch.config import state_dir
from rotary_batch.engine.packs.journal import JOURNAL_NAME, locked_journal
from rotary_batch.errors import BusyError
from rotary_batch.model.manifest import MANIFEST_NAME

HOUR_S, DAY_S = 3600.0, 86400.0
UNUSED_S = 30 * DAY_S  # after which what may be needed once more goes
_TEMPORARY = re.compile(r"tmp[a-z0-9_]{8}")  # as `tempfile` names what `private_file` writes
_COPY = re.compile(r"rotary-batch-[a-z0-9_]{8}")  # folders with the copy of a database, of `--dry-run` and `verify`
_REPORT = re.compile(r"\d{4}-\d\d-\d\d-\d{6}(-\d+)?\.md")


class Leftovers(NamedTuple):
    """Files or folders of one kind."""

    what: str
    paths: list[Path]


def leftovers(database: Path, now: float, reports: Iterable[str]) -> list[Leftovers]:
    """All that may go; `reports` are the files that the records of old runs name."""
    real = Path(os.path.realpath(database))
    return [
        Leftovers("copies of the database before an upgrade", list(_backups(real, now))),
        Leftovers("files of interrupted commands", list(_temporary(real, now))),
        Leftovers("copies of the database that interrupted commands made", list(_copies(now))),
        Leftovers("packs that were begun and not finished", list(_begun_packs(now))),
        Leftovers("reports of old runs", list(_reports(database, reports))),
    ]


def nbytes_of(path: Path) -> int:
    """What a file or all in a folder takes on the disk."""
    return sum(file.lstat().st_blocks * 512 for file in [path, *path.rglob("*")]) if path.exists() else 0


def remove(leftover: Leftovers, should_stop: Callable[[], bool]) -> tuple[int, int]:
    """Delete files and folders of one kind; returns how many and their bytes.  What cannot be deleted stays."""
    number = nbytes = 0
    for path in leftover.paths:
        if should_stop():
            break
        size = nbytes_of(path)
        with suppress(OSError, BusyError), _unused(path):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
            number, nbytes = number + 1, nbytes + size
    return number, nbytes


@contextmanager
def _unused(path: Path) -> Iterator[None]:
    """A pack only while no other process packs into it."""
    if not (path / JOURNAL_NAME).is_file():
        yield
        return
    with locked_journal(path):
        yield


def _backups(database: Path, now: float) -> Iterator[Path]:
    name = re.compile(re.escape(database.name) + r"\.schema-\d+(\.part)?")
    for path in _named(database.parent, name):
        if path.name.endswith(".part") or _age_s(path, now) > UNUSED_S:
            yield path


def _temporary(database: Path, now: float) -> Iterator[Path]:
    for folder in (database.parent / "reports", database.parent / "control", state_dir(os.environ) / "trusted"):
        yield from (path for path in _named(folder, _TEMPORARY) if path.is_file() and _age_s(path, now) > HOUR_S)


def _copies(now: float) -> Iterator[Path]:
    for folder in _named(Path(tempfile.gettempdir()), _COPY):
        if folder.is_dir() and folder.lstat().st_uid == os.getuid() and _age_s(folder, now) > DAY_S:
            with suppress(OSError):  # its owner may delete it now
                if all(path.name.startswith("work.db") for path in list(folder.iterdir())):
                    yield folder


def _begun_packs(now: float) -> Iterator[Path]:
    for folder in _named(packs_cache(), re.compile(r".+")):
        journal = folder / JOURNAL_NAME
        if journal.is_file() and not (folder / MANIFEST_NAME).exists() and _age_s(journal, now) > UNUSED_S:
            yield folder


def _reports(database: Path, reports: Iterable[str]) -> Iterator[Path]:
    """By name only: what a database says of other folders is not believed."""
    for name in (Path(report).name for report in reports):
        if _REPORT.fullmatch(name):
            path = database.parent / "reports" / name
            files: Sequence[Path] = [path.with_suffix(ending) for ending in (".md", ".json", ".html")]
            yield from (file for file in files if file.is_file())


def _named(folder: Path, name: re.Pattern[str]) -> list[Path]:
    """What is in a folder under such names, no symbolic links."""
    with suppress(OSError):
        return sorted(path for path in folder.iterdir() if name.fullmatch(path.name) and not path.is_symlink())
    return []


def _age_s(path: Path, now: float) -> float:
    with suppress(OSError):
        return now - path.lstat().st_mtime
    return 0.0
