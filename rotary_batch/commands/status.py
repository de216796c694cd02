"""`status`, `report`, `inspect` and `explain`: questions that change nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rotary_batch.commands.database import chosen, database_path
from rotary_batch.config import Settings
from rotary_batch.core import SourceFile
from rotary_batch.errors import InputError, UsageError
from rotary_batch.work import counts
from rotary_batch.work.index import load_files, stored_chunks, stored_symbols
from rotary_batch.work.lock import holder
from rotary_batch.work.rows import RunRow
from rotary_batch.work.store import WorkStore

KINDS = ("files", "symbols", "chunks", "items")


def status(store: WorkStore, settings: Settings, roots: Sequence[Path]) -> dict[str, Any]:
    """Where every repository stands, and whether a driver runs now."""
    run, driver = counts.last_run(store), holder(database_path(settings))
    return {
        "database": str(database_path(settings)),
        "driver_pid": driver,
        "repositories": [
            {
                "root": row.root,
                "model": row.model_name,
                "items": counts.states(store, row.id),
                "verdicts": counts.verdicts(store, row.id),
            }
            for row in chosen(store, roots)
        ],
        "last_run": run and {"id": run.id, "started_at": run.started_at, "outcome": _outcome(run, driver)},
    }


def _outcome(run: RunRow, driver: int | None) -> str:
    """A run that left no outcome goes on, or was killed."""
    return run.outcome or ("killed" if driver is None else "still running")


def report(store: WorkStore, settings: Settings) -> dict[str, Any]:
    """The last run.  Raises InputError when there was none."""
    run = counts.last_run(store)
    if run is None:
        raise InputError("no run yet; `rotary-batch drain` makes one")
    return {
        "run": run.id,
        "command": run.command,
        "started_at": run.started_at,
        "ended_at": run.ended_at,
        "outcome": _outcome(run, holder(database_path(settings))),
        "model": run.model_name,
        **run.stats,
    }


def inspect(store: WorkStore, kind: str, root: Path) -> Iterator[dict[str, Any]]:
    """What the index holds, one object after another.  Raises UsageError for an unknown kind."""
    if kind not in KINDS:
        raise UsageError(f"inspect {kind!r}: choose one of {', '.join(KINDS)}")
    (row,) = chosen(store, [root])
    if kind == "items":
        yield from counts.items(store, row.id)
        return
    if kind == "files":
        yield from (_file(file) for file in load_files(store, row.id).files)
        return
    names = _FIELDS[kind]
    things: Iterator[object] = (stored_symbols if kind == "symbols" else stored_chunks)(store, row.id)
    yield from ({name: getattr(thing, name) for name in names} for thing in things)


_FIELDS = {
    "symbols": (
        "path",
        "kind",
        "name",
        "qualified_name",
        "start_line",
        "end_line",
        "start_byte",
        "end_byte",
        "signature",
        "docstring",
    ),
    "chunks": ("path", "blob", "start_byte", "end_byte", "start_line", "end_line", "tokens", "symbols"),
}


def _file(file: SourceFile) -> dict[str, Any]:
    return {
        "path": file.path,
        "blob": file.blob,
        "bytes": file.nbytes,
        "language": file.language,
        "class": file.file_class.value,
        "reason": file.reason,
    }


def explain(settings: Settings, root: Path, path: str) -> dict[str, Any]:
    """Why a file is or is not read.  Raises InputError when there is no such file."""
    from rotary_batch.repo.files import PathPatterns, classify  # here, because the other questions do not need git
    from rotary_batch.repo.git import open_repository

    repository = open_repository(root, worktree=settings.worktree, docs_dir=settings.out)
    patterns = PathPatterns(settings.include, settings.exclude)
    for file in classify(repository, docs_dir=settings.out, patterns=patterns):
        if file.path == path:
            return _file(file)
    raise InputError(f"{path}: not among the files of {root}; paths are relative to it, and git must know the file")


def to_json(value: object) -> str:
    """The way that every --json answer is written."""
    # DEL is the one control character that JSON lets through.
    return json.dumps(value, ensure_ascii=True, default=str).replace("\x7f", "\\u007f")
