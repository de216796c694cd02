"""The index of a repository in the database: files, symbols, references, chunks."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rotary_batch.core import Chunk, FileClass, ParsedFile, SourceFile, Symbol
from rotary_batch.work.graph import outline_symbol, save_names
from rotary_batch.work.page_stamps import forget_file
from rotary_batch.work.rows import RepositoryRow
from rotary_batch.work.search import save_entries
from rotary_batch.work.store import WorkStore

_SYMBOL = (
    "path, kind, name, qualified_name, start_line, end_line, start_byte, end_byte, signature, docstring, bases, "
    "decorators, is_public"
)
_CHUNK = "path, blob, start_byte, end_byte, start_line, end_line, tokens, symbols, breadcrumb"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFiles:
    """The files of a repository in path order, and what parsing them gave for each as a whole."""

    files: tuple[SourceFile, ...]
    docstrings: dict[str, str]
    fallbacks: dict[str, str]


def repositories(store: WorkStore) -> list[RepositoryRow]:
    """All indexed repositories."""
    rows = store.db.execute("select * from repository order by root").fetchall()
    names = RepositoryRow.__dataclass_fields__
    typed = [{name: row[name] for name in names} for row in rows]
    return [
        RepositoryRow(
            **row
            | {name: bool(row[name]) for name in ("worktree", "job_by_name", "demonstration", "model_by_flag")}
            | {"notes": tuple(json.loads(row["notes"]))}
        )
        for row in typed
    ]


def save_repository(store: WorkStore, row: RepositoryRow) -> int:
    """Insert or update the row of a root; returns its id."""
    with store.transaction():
        saved = store.db.execute(
            """insert into repository (root, name, commit_id, worktree, docs_dir, model_name, pack_dir, plan_key,
                                       link_template, job, job_by_name, demonstration, model_digest, model_by_flag,
                                       notes)
               values (:root, :name, :commit_id, :worktree, :docs_dir, :model_name, :pack_dir, :plan_key,
                       :link_template, :job, :job_by_name, :demonstration, :model_digest, :model_by_flag, :notes)
               on conflict (root) do update set name = excluded.name, commit_id = excluded.commit_id,
                 worktree = excluded.worktree, docs_dir = excluded.docs_dir, model_name = excluded.model_name,
                 pack_dir = excluded.pack_dir, plan_key = excluded.plan_key, link_template = excluded.link_template,
                 job = excluded.job, job_by_name = excluded.job_by_name, demonstration = excluded.demonstration,
                 model_digest = excluded.model_digest,
                 model_by_flag = excluded.model_by_flag, notes = excluded.notes
               returning id""",
            asdict(row) | {"notes": json.dumps(row.notes)},
        ).fetchone()
        return int(saved["id"])


def move_repository(store: WorkStore, repository_id: int, root: str) -> None:
    """Give the row of a repository another root."""
    with store.transaction():
        store.db.execute("update repository set root = ? where id = ?", [root, repository_id])


def delete_repository(store: WorkStore, repository_id: int) -> tuple[int, int]:
    """Delete a repository with everything that is stored of it, in one transaction; returns numbers of items, results.

    Results that items of other repositories need too are kept.
    """
    given = {"id": repository_id}
    with store.transaction():
        results = store.db.execute(
            """delete from result where key in (select key from item where repository_id = :id)
               and key not in (select key from item where repository_id <> :id and key is not null)""",
            given,
        )
        items = store.db.execute("delete from item where repository_id = :id and part_of is null", given)
        store.db.execute("delete from repository where id = :id", given)
    return items.rowcount, results.rowcount


def commit_of(store: WorkStore, root: str) -> str | None:
    """The commit of the last index."""
    row = store.db.execute("select commit_id from repository where root = ?", [root]).fetchone()
    return None if row is None else row[0]


def known_sources(store: WorkStore, root: str, plan_key: str) -> dict[str, str]:
    """Path -> blob of every source file that is stored with its items under this key.

    A file is stored in one transaction with its items.  A file with chunks but without items is left out, to be read
    again.
    """
    rows = store.db.execute(
        """select path, blob from file join repository on repository.id = repository_id
           where root = ? and file.plan_key = ? and (
             exists (select 1 from item where item.repository_id = file.repository_id and item.path = file.path)
             or not exists (select 1 from chunk
                            where chunk.repository_id = file.repository_id and chunk.path = file.path))""",
        [root, plan_key],
    )
    return {row["path"]: row["blob"] for row in rows}


def stored_files(store: WorkStore, root: str) -> dict[str, SourceFile]:
    """Path -> file, as of the last index."""
    rows = store.db.execute(
        "select file.* from file join repository on repository.id = repository_id where root = ?", [root]
    )
    return {row["path"]: _file(row) for row in rows}


def is_planned(store: WorkStore, root: str, plan_key: str) -> bool:
    """Whether the last index under this key was completed, and no earlier version left items of other jobs."""
    row = store.db.execute(
        """select 1 from repository where root = ? and plan_key = ? and not exists
             (select 1 from item where repository_id = repository.id and item.job <> repository.job)""",
        [root, plan_key],
    ).fetchone()
    return row is not None


def finish_plan(
    store: WorkStore, repository_id: int, plan_key: str, others: Iterable[SourceFile], gone: Iterable[str]
) -> None:
    """Within the transaction that plans the roll-ups: update files that are not parsed, mark the plan as complete."""
    db = store.db
    remove = "delete from file where repository_id = ? and path = ?"
    for path in gone:
        forget_file(store, repository_id, path)
        db.execute(remove, [repository_id, path])
    for file in others:
        if file.file_class is not FileClass.SOURCE:  # deletes what was parsed of it before
            forget_file(store, repository_id, file.path)
            db.execute(remove, [repository_id, file.path])
        _save_file(store, repository_id, file)
    db.execute("update file set rolled_up = 1 where repository_id = ? and rolled_up = 0", [repository_id])
    db.execute("update repository set plan_key = ? where id = ?", [plan_key, repository_id])


def texts(store: WorkStore, repository_id: int) -> dict[str, str]:
    """Path -> what a file that is not a source says of its folder."""
    rows = store.db.execute(
        "select path, docstring from file where repository_id = ? and class <> ? and docstring is not null",
        [repository_id, FileClass.SOURCE],
    )
    return {row["path"]: row["docstring"] for row in rows}


def save_texts(store: WorkStore, repository_id: int, texts: Mapping[str, str]) -> None:
    """Within a transaction: store what READMEs say; their files are stored already."""
    store.db.executemany(
        "update file set docstring = nullif(?, '') where repository_id = ? and path = ?",
        [(text, repository_id, path) for path, text in texts.items()],
    )


def not_rolled_up(store: WorkStore, repository_id: int) -> set[str]:
    """Files that were stored since the roll-ups above them were planned."""
    rows = store.db.execute("select path from file where repository_id = ? and rolled_up = 0", [repository_id])
    return {row["path"] for row in rows}


def _save_file(store: WorkStore, repository_id: int, file: SourceFile) -> None:
    store.db.execute(
        """insert into file (repository_id, path, blob, nbytes, language, class, reason) values (?, ?, ?, ?, ?, ?, ?)
           on conflict do update set blob = excluded.blob, nbytes = excluded.nbytes, language = excluded.language,
             class = excluded.class, reason = excluded.reason,
             docstring = case when blob = excluded.blob then docstring end""",
        [repository_id, file.path, file.blob, file.nbytes, file.language, file.file_class.value, file.reason],
    )


def save_parsed(store: WorkStore, repository_id: int, one: ParsedFile, plan_key: str) -> None:
    """Within a transaction: store a source file and what parsing it gave."""
    db, path = store.db, one.file.path
    forget_file(store, repository_id, path)
    _save_file(store, repository_id, one.file)
    db.execute(
        """update file set docstring = ?, fallback = ?, plan_key = ?, rolled_up = 0
           where repository_id = ? and path = ?""",
        [one.docstring, one.fallback, plan_key, repository_id, path],
    )
    for table in ("symbol", "reference", "chunk", "call"):
        db.execute(f"delete from {table} where repository_id = ? and path = ?", [repository_id, path])
    db.executemany(
        f"insert or ignore into symbol (repository_id, {_SYMBOL}) values (?{', ?' * 13})",
        [(repository_id, *_symbol_row(symbol)) for symbol in one.symbols],
    )
    db.executemany(
        """insert into reference (repository_id, path, name, line, start_byte, caller_start_byte, receiver)
           values (?, ?, ?, ?, ?, ?, ?)""",
        [
            (repository_id, path, r.name, r.line, r.start_byte, r.caller and r.caller.start_byte, r.receiver)
            for r in one.references
        ],
    )
    save_names(store, repository_id, path, one.imports, one.value_types)
    db.executemany(
        f"insert into chunk (repository_id, {_CHUNK}) values (?{', ?' * 9})",
        [(repository_id, *_chunk_row(chunk)) for chunk in one.chunks],
    )
    save_entries(store, repository_id, one)


def _symbol_row(symbol: Symbol) -> tuple[object, ...]:
    values = {name: getattr(symbol, name) for name in _SYMBOL.split(", ")}
    lists = {name: json.dumps(values[name]) for name in ("bases", "decorators")}
    return tuple((values | lists | {"is_public": int(symbol.is_public)}).values())


def symbol_of_row(row: sqlite3.Row) -> Symbol:
    """A symbol from a row that has its columns, among others."""
    return _symbol({name: row[name] for name in _SYMBOL.split(", ")})


def _symbol(row: sqlite3.Row | dict[str, Any]) -> Symbol:
    values = dict(row)
    lists = {name: tuple(json.loads(values[name])) if values[name] != "[]" else () for name in ("bases", "decorators")}
    return Symbol(**values | lists | {"is_public": bool(values["is_public"])})


def _chunk_row(chunk: Chunk) -> tuple[object, ...]:
    values = {name: getattr(chunk, name) for name in _CHUNK.split(", ")}
    return tuple((values | {"symbols": json.dumps(chunk.symbols)}).values())


def load_files(store: WorkStore, repository_id: int) -> StoredFiles:
    """Read the files of a repository."""
    files = store.db.execute("select * from file where repository_id = ? order by path", [repository_id]).fetchall()
    return StoredFiles(
        files=tuple(_file(row) for row in files),
        docstrings={row["path"]: row["docstring"] for row in files if row["docstring"]},
        fallbacks={row["path"]: row["fallback"] for row in files if row["fallback"]},
    )


def stored_file(store: WorkStore, repository_id: int, path: str) -> SourceFile:
    """One file that is stored."""
    query = "select * from file where repository_id = ? and path = ?"
    return _file(store.db.execute(query, [repository_id, path]).fetchone())


def stored_docstring(store: WorkStore, repository_id: int, path: str) -> str | None:
    """What a file as a whole says."""
    query = "select docstring from file where repository_id = ? and path = ?"
    row = store.db.execute(query, [repository_id, path]).fetchone()
    return None if row is None else row[0]


def stored_symbols(store: WorkStore, repository_id: int, path: str | None = None) -> Iterator[Symbol]:
    """The symbols of one file or of all, in path order."""
    return (_symbol(row) for row in _rows(store, "symbol", _SYMBOL, repository_id, path))


def stored_chunks(store: WorkStore, repository_id: int, path: str | None = None) -> Iterator[Chunk]:
    """The chunks of one file or of all, in path order."""
    rows = _rows(store, "chunk", _CHUNK, repository_id, path)
    return (Chunk(**dict(row) | {"symbols": tuple(json.loads(row["symbols"]))}) for row in rows)


def stored_chunk(store: WorkStore, repository_id: int, path: str, start_byte: int) -> Chunk:
    """One chunk that is stored."""
    query = f"select {_CHUNK} from chunk where repository_id = ? and path = ? and start_byte = ?"
    row = store.db.execute(query, [repository_id, path, start_byte]).fetchone()
    return Chunk(**dict(row) | {"symbols": tuple(json.loads(row["symbols"]))})


def chunk_spans(store: WorkStore, repository_id: int) -> Iterator[tuple[str, int, int]]:
    """(path, start byte, end byte) of every chunk, in path order."""
    query = "select path, start_byte, end_byte from chunk where repository_id = ? order by path, start_byte"
    return ((row[0], row[1], row[2]) for row in store.db.execute(query, [repository_id]))


def plan_chunks_again(store: WorkStore, repository_id: int, paths: Iterable[str]) -> None:
    """Within a transaction: the context of the chunks of some files is to be planned again, and of their neighbours.

    Neighbours use them or are used by them.
    """
    for path in paths:
        store.db.execute(
            """update chunk set waits_for = null where repository_id = :id and path in (
                 select :path union select path from call where repository_id = :id and callee_path = :path
                 union select callee_path from call indexed by call_by_caller
                   where repository_id = :id and path = :path)""",
            {"id": repository_id, "path": path},
        )


def planned_chunks(store: WorkStore, repository_id: int) -> dict[tuple[str, int], str]:
    """(path, start byte) of the chunks whose context is planned -> what they may wait for."""
    query = "select path, start_byte, waits_for from chunk where repository_id = ? and waits_for is not null"
    return {(row[0], row[1]): row[2] for row in store.db.execute(query, [repository_id])}


def set_chunk_planned(store: WorkStore, repository_id: int, path: str, start_byte: int, waits_for: str) -> None:
    """Within a transaction: the context of a chunk is planned."""
    store.db.execute(
        "update chunk set waits_for = ? where repository_id = ? and path = ? and start_byte = ?",
        [waits_for, repository_id, path, start_byte],
    )


def set_plan_key(store: WorkStore, repository_id: int, plan_key: str) -> None:
    """Mark the plan as complete."""
    with store.transaction():
        store.db.execute("update repository set plan_key = ? where id = ?", [plan_key, repository_id])


def _rows(store: WorkStore, table: str, columns: str, repository_id: int, path: str | None) -> sqlite3.Cursor:
    condition, values = ("", []) if path is None else ("and path = ?", [path])
    query = f"select {columns} from {table} where repository_id = ? {condition} order by path, start_byte"
    return store.db.execute(query, [repository_id, *values])


def stored_graph(store: WorkStore, repository_id: int) -> Iterator[dict[str, Any]]:
    """The calls of a repository with names and lines, in the order of the references."""
    rows = store.db.execute(
        """select caller_path, caller, caller_line, callee_path, callee, callee_line from graph
           where repository_id = ? order by caller_path, call_id""",
        [repository_id],
    )
    return (dict(row) for row in rows)


def stored_outline(store: WorkStore, repository_id: int, path: str | None = None) -> Iterator[Symbol]:
    """The symbols of one file or of all, in path order, without docstrings, decorators and signatures of functions."""
    rows = store.db.execute(
        f"""select path, kind, name, nullif(qualified_name, name), start_line, end_line, start_byte, end_byte,
             case when kind in ('function', 'method', 'constructor') then '' else signature end,
             docstring is not null, nullif(bases, '[]'), null, is_public
           from symbol where repository_id = ? {"" if path is None else "and path = ?"} order by path, start_byte""",
        [repository_id] if path is None else [repository_id, path],
    )
    return map(outline_symbol, rows)


def count_rows(store: WorkStore, table: str, repository_id: int) -> int:
    """The number of symbols or chunks."""
    query = f"select count(*) as n from {table} where repository_id = ?"
    return int(store.db.execute(query, [repository_id]).fetchone()["n"])


def _file(row: sqlite3.Row) -> SourceFile:
    return SourceFile(
        path=row["path"],
        blob=row["blob"],
        nbytes=row["nbytes"],
        language=row["language"],
        file_class=FileClass(row["class"]),
        reason=row["reason"],
    )
