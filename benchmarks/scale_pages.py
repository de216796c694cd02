"""Rendering at scale: what a first, an idle, a whole and a small rendering of N files take.

    python -m benchmarks.scale_pages 10000

The index is made up: two functions and two calls a file, 50 files a folder.  Prints processor seconds, which other
work on the machine does not change much, and the most memory.  Syncs are left out: they are the disk's.
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from rotary_batch.commands.default_model import EMBEDDED
from rotary_batch.core import Chunk, FileClass, ParsedFile, Reference, SourceFile, Subject, Symbol, Unit
from rotary_batch.pages.files import SyncResult
from rotary_batch.sync import load_index_view, sync_all, sync_pending, sync_some
from rotary_batch.work.connection import open_database
from rotary_batch.work.index import finish_plan, repositories, save_parsed, save_repository
from rotary_batch.work.rows import RepositoryRow
from rotary_batch.work.schema import migrate
from rotary_batch.work.store import WorkStore

FILES_A_FOLDER = 50


def parsed(number: int, num_files: int) -> ParsedFile:
    folder = number // FILES_A_FOLDER
    path = f"pkg{folder % 100:02}/sub{folder // 100:03}/m{number:06}.py"
    file = SourceFile(
        path=path,
        blob=f"{number:040x}",
        nbytes=200,
        language="python",
        file_class=FileClass.SOURCE,
        reason="source code",
    )
    symbols = tuple(
        Symbol(
            path=path,
            kind="function",
            name=f"f{number}_{n}",
            qualified_name=f"f{number}_{n}",
            start_line=3 * n + 1,
            end_line=3 * n + 2,
            start_byte=90 * n,
            end_byte=90 * n + 80,
            signature=f"def f{number}_{n}(a, b)",
            docstring="Do what is to be done here.",
        )
        for n in range(2)
    )
    references = tuple(
        Reference(path=path, name=f"f{(number + n) % num_files}_0", line=2, start_byte=20 + n, caller=symbols[0].id)
        for n in (1, 2)
    )
    chunk = Chunk(
        path=path,
        blob=file.blob,
        start_byte=0,
        end_byte=200,
        start_line=1,
        end_line=6,
        tokens=50,
        symbols=tuple(symbol.name for symbol in symbols),
        breadcrumb="",
    )
    return ParsedFile(file=file, docstring=None, symbols=symbols, references=references, chunks=(chunk,), fallback=None)


def make_index(folder: Path, num_files: int) -> None:
    (folder / "repo").mkdir()
    db = open_database(folder / "work.db")
    migrate(db)
    store = WorkStore(db)
    row = RepositoryRow(
        root=str(folder / "repo"),
        name="large",
        commit_id=None,
        worktree=False,
        docs_dir="docs",
        model_name="m",
        pack_dir=str(EMBEDDED),
        plan_key="k",
        link_template=None,
        job="summarize",
    )
    row = replace(row, id=save_repository(store, row))
    with store.transaction():
        for number in range(num_files):
            save_parsed(store, row.id, parsed(number, num_files), "k")
        finish_plan(store, row.id, "k", [], [])
    db.close()


def timed(what: str, project: Callable[[], SyncResult]) -> None:
    start = time.process_time()
    done = project()
    seconds, peak = time.process_time() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"| {what} | {len(done.written):,} | {done.unchanged:,} | {seconds:.2f} | {peak / 1024:.0f} |", flush=True)


def main() -> None:
    num_files = int(sys.argv[1])
    os.fsync = lambda _descriptor: None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if (child := os.fork()) == 0:  # so that its memory is not counted
            make_index(folder, num_files)
            os._exit(0)
        os.waitpid(child, 0)
        store = WorkStore(open_database(folder / "work.db"))
        (row,) = repositories(store)
        print(
            f"{num_files:,} files\n\n| | written | unchanged | CPU s | peak MB |\n| --- | ---: | ---: | ---: | ---: |"
        )
        timed("first", lambda: sync_pending(store, row))
        timed("again, nothing changed", lambda: sync_pending(store, row))
        timed("`render`, nothing changed", lambda: sync_all(store, row))
        view = load_index_view(store, row)
        path = parsed(0, num_files).file.path
        timed("one answer, index loaded", lambda: sync_some(store, row, view, [Subject(Unit.FILE, path)]))
        timed("one answer more", lambda: sync_some(store, row, view, [Subject(Unit.FILE, path)]))
        store.db.close()


if __name__ == "__main__":
    main()
