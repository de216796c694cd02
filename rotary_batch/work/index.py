"""The index of a repository in the database: files, symbols, references, chunks.

Knows how core values become rows and back; knows nothing of items.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rotary_batch.core import Chunk, FileClass, ParsedFile, Reference, SourceFile, Symbol, SymbolId
from rotary_batch.work.rows import RepositoryRow
from rotary_batch.work.store import WorkStore

_SYMBOL = "path, kind, name, qualified_name, start_line, end_line, start_byte, end_byte, signature, docstring"
_CHUNK = "path, blob, start_byte, end_byte, start_line, end_line, tokens, symbols, breadcrumb"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredIndex:
    """Everything that is known of a repository, in path order."""

    files: tuple[SourceFile, ...]
    docstrings: dict[str, str]
    fallbacks: dict[str, str]
    symbols: tuple[Symbol, ...]
    references: tuple[Reference, ...]
    chunks: tuple[Chunk, ...]


def repositories(store: WorkStore) -> list[RepositoryRow]:
    """All indexed repositories."""
    rows = store.db.execute("select * from repository order by root").fetchall()
    names = RepositoryRow.__dataclass_fields__
    typed = [{name: row[name] for name in names} for row in rows]
    return [
        RepositoryRow(**row | {"worktree": bool(row["worktree"]), "notes": tuple(json.loads(row["notes"]))})
        for row in typed
    ]


def save_repository(store: WorkStore, row: RepositoryRow) -> int:
    """Insert or refresh the row of a root; answer its id."""
    with store.transaction():
        found = store.db.execute(
            """insert into repository (root, name, commit_id, worktree, docs_dir, model_name, pack_dir, plan_key,
                                       link_template, job, notes)
               values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
               on conflict (root) do update set name = excluded.name, commit_id = excluded.commit_id,
                 worktree = excluded.worktree, docs_dir = excluded.docs_dir, model_name = excluded.model_name,
                 pack_dir = excluded.pack_dir, plan_key = excluded.plan_key, link_template = excluded.link_template,
                 job = excluded.job, notes = excluded.notes
               returning id""",
            [
                row.root, row.name, row.commit_id, int(row.worktree), row.docs_dir, row.model_name, row.pack_dir,
                row.plan_key, row.link_template, row.job, json.dumps(row.notes),
            ],
        ).fetchone()  # fmt: skip
        return int(found["id"])


def known_files(store: WorkStore, repository_id: int) -> dict[str, tuple[str, str | None]]:
    """Path -> (blob, plan key) of every file that was parsed."""
    rows = store.db.execute(
        "select path, blob, plan_key from file where repository_id = ? and plan_key is not null", [repository_id]
    )
    return {row["path"]: (row["blob"], row["plan_key"]) for row in rows}


def replace_files(
    store: WorkStore, repository_id: int, files: Sequence[SourceFile], parsed: Iterable[ParsedFile], plan_key: str
) -> None:
    """Make the index what `files` says; rows of files that are neither parsed anew nor gone stay."""
    db = store.db
    with store.transaction():
        present = {file.path for file in files}
        old = {row["path"]: row for row in db.execute("select * from file where repository_id = ?", [repository_id])}
        db.executemany(
            "delete from file where repository_id = ? and path = ?",
            [(repository_id, path) for path in old.keys() - present],
        )
        for file in files:
            _save_file(store, repository_id, file, old.get(file.path))
        for one in parsed:
            _save_parsed(store, repository_id, one, plan_key)


def _save_file(store: WorkStore, repository_id: int, file: SourceFile, old: sqlite3.Row | None) -> None:
    row = (file.blob, file.nbytes, file.language, file.file_class.value, file.reason)
    if old is not None and row == tuple(old[name] for name in ("blob", "nbytes", "language", "class", "reason")):
        return
    store.db.execute("delete from file where repository_id = ? and path = ?", [repository_id, file.path])
    store.db.execute(
        "insert into file (repository_id, path, blob, nbytes, language, class, reason) values (?, ?, ?, ?, ?, ?, ?)",
        [repository_id, file.path, *row],
    )


def _save_parsed(store: WorkStore, repository_id: int, one: ParsedFile, plan_key: str) -> None:
    db, path = store.db, one.file.path
    db.execute(
        "update file set docstring = ?, fallback = ?, plan_key = ? where repository_id = ? and path = ?",
        [one.docstring, one.fallback, plan_key, repository_id, path],
    )
    for table in ("symbol", "reference", "chunk"):
        db.execute(f"delete from {table} where repository_id = ? and path = ?", [repository_id, path])
    db.executemany(
        f"insert or ignore into symbol (repository_id, {_SYMBOL}) values (?{', ?' * 10})",
        [(repository_id, *(getattr(s, name) for name in _SYMBOL.split(", "))) for s in one.symbols],
    )
    db.executemany(
        """insert into reference (repository_id, path, name, line, start_byte, caller_start_byte, receiver)
           values (?, ?, ?, ?, ?, ?, ?)""",
        [
            (repository_id, path, r.name, r.line, r.start_byte, r.caller and r.caller.start_byte, r.receiver)
            for r in one.references
        ],
    )
    db.executemany(
        f"insert into chunk (repository_id, {_CHUNK}) values (?{', ?' * 9})",
        [(repository_id, *_chunk_row(chunk)) for chunk in one.chunks],
    )


def _chunk_row(chunk: Chunk) -> tuple[object, ...]:
    values = {name: getattr(chunk, name) for name in _CHUNK.split(", ")}
    return tuple((values | {"symbols": json.dumps(chunk.symbols)}).values())


def load_index(store: WorkStore, repository_id: int) -> StoredIndex:
    """Read everything back."""
    db, only = store.db, [repository_id]
    files = db.execute("select * from file where repository_id = ? order by path", only).fetchall()
    symbols = db.execute(f"select {_SYMBOL} from symbol where repository_id = ? order by path, start_byte", only)
    references = db.execute("select * from reference where repository_id = ? order by path, id", only)
    chunks = db.execute(f"select {_CHUNK} from chunk where repository_id = ? order by path, start_byte", only)
    return StoredIndex(
        files=tuple(_file(row) for row in files),
        docstrings={row["path"]: row["docstring"] for row in files if row["docstring"]},
        fallbacks={row["path"]: row["fallback"] for row in files if row["fallback"]},
        symbols=tuple(Symbol(**dict(row)) for row in symbols),
        references=tuple(_reference(row) for row in references),
        chunks=tuple(Chunk(**dict(row) | {"symbols": tuple(json.loads(row["symbols"]))}) for row in chunks),
    )


def _file(row: sqlite3.Row) -> SourceFile:
    return SourceFile(
        path=row["path"],
        blob=row["blob"],
        nbytes=row["nbytes"],
        language=row["language"],
        file_class=FileClass(row["class"]),
        reason=row["reason"],
    )


def _reference(row: sqlite3.Row) -> Reference:
    caller = None if row["caller_start_byte"] is None else SymbolId(row["path"], row["caller_start_byte"])
    names = ("path", "name", "line", "start_byte", "receiver")
    return Reference(caller=caller, **{name: row[name] for name in names})
