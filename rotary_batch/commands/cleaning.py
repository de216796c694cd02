"""`gc`: delete what nothing needs any more, within a time, and say what that freed.

Each kind is deleted in small transactions, or file by file, so a kill at any moment loses nothing: what is left goes
the next time.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from rotary_batch.commands import leftovers as files
from rotary_batch.window import Window
from rotary_batch.work import compaction, unneeded
from rotary_batch.work.store import WorkStore


class Freed(NamedTuple):
    """What was deleted of one kind, or would be."""

    what: str
    number: int
    nbytes: int  # of the content, which for rows is less than what the database file loses


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleaned:
    """What a clean-up did."""

    database: str
    freed: list[Freed]
    database_nbytes_before: int
    database_nbytes: int
    free_nbytes: int  # within the database file, for the next nights
    is_complete: bool  # all that may go is gone

    def as_dict(self) -> dict[str, Any]:
        """Plain data for --json."""
        names = (name for name in self.__dataclass_fields__ if name != "freed")
        return {name: getattr(self, name) for name in names} | {"freed": [each._asdict() for each in self.freed]}


def would_free(store: WorkStore, now: float | None = None) -> Cleaned:
    """What `clean` would delete, with any time."""
    now = time.time() if now is None else now
    found = [
        Freed(each.what, len(each.paths), sum(map(files.nbytes_of, each.paths)))
        for each in files.leftovers(store.db.path, now, unneeded.old_reports(store))
    ]
    found += [Freed(kind.what, *unneeded.found(store, kind, now - files.UNUSED_S)) for kind in _KINDS]
    return _cleaned(store, found, compaction.file_nbytes(store), is_complete=False)


def clean(store: WorkStore, window: Window, now: float | None = None) -> Cleaned:
    """Delete until there is nothing left that may go, or the window closes.

    In a window that is open at the start, at least one batch of each kind of rows is deleted.
    """
    now = time.time() if now is None else now
    before, should_stop = compaction.file_nbytes(store), window.is_closed
    if should_stop():
        return _cleaned(store, [], before, is_complete=False)
    freed = [  # files first, since a full disk takes no transaction; a report goes before the record that names it
        Freed(each.what, *files.remove(each, should_stop))
        for each in files.leftovers(store.db.path, now, unneeded.old_reports(store))
    ]
    unneeded.note_unused(store, now, should_stop)
    freed += [Freed(kind.what, *unneeded.delete(store, kind, now - files.UNUSED_S, should_stop)) for kind in _KINDS]
    is_complete = not should_stop()
    if is_complete:
        compaction.compact(store, _seconds_left(window), should_stop)
    return _cleaned(store, freed, before, is_complete=is_complete)


_KINDS = (*unneeded.UNNEEDED, unneeded.OLD_RUNS)


def _seconds_left(window: Window) -> float:
    left = window.seconds_left
    return float("inf") if left is None else left


def _cleaned(store: WorkStore, freed: list[Freed], before: int, *, is_complete: bool) -> Cleaned:
    return Cleaned(
        database=os.fspath(Path(store.db.path)),
        freed=_by_kind(freed),
        database_nbytes_before=before,
        database_nbytes=compaction.file_nbytes(store),
        free_nbytes=compaction.free_nbytes(store),
        is_complete=is_complete,
    )


def _by_kind(freed: list[Freed]) -> list[Freed]:
    """One entry for a kind, whatever tables it is in."""
    sums: dict[str, Freed] = {}
    for each in freed:
        so_far = sums.setdefault(each.what, Freed(each.what, 0, 0))
        sums[each.what] = so_far._replace(number=so_far.number + each.number, nbytes=so_far.nbytes + each.nbytes)
    return list(sums.values())
