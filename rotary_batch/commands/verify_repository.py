"""What `verify` compares of one repository: its queue, its sources, its pages."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from rotary_batch.commands.drain import NOT_WHOLE
from rotary_batch.commands.facts import Fact, State
from rotary_batch.errors import RotaryError, StoppedError
from rotary_batch.pages.files import SyncResult
from rotary_batch.repo.git import open_repository
from rotary_batch.sizes import count
from rotary_batch.sync import docs_folder, open_unwritten_docs, sync_all
from rotary_batch.window import Window
from rotary_batch.work.index import stored_files
from rotary_batch.work.laws import LAWS, num_broken
from rotary_batch.work.rows import RepositoryRow
from rotary_batch.work.store import WorkStore


def repository_facts(store: WorkStore, row: RepositoryRow, window: Window, pid: int | None) -> Iterator[Fact]:
    """The facts about a repository; `pid` is the process of the driver that is at work, if there is one.

    `store` is a copy of the database, since comparing pages stores what was found out.
    """
    yield from _queue(store, row, pid)
    if not Path(row.root).is_dir():
        mend = f"if it was moved, `rotary-batch index` it there, else `rotary-batch forget {row.root}`"
        yield Fact("sources", row.root, State.DIFFERS, "no such folder", mend)
        return
    try:
        yield from _sources(store, row)
        yield from _pages(store, row, window, pid)
    except StoppedError:
        raise
    except RotaryError as error:  # of this repository; the others are judged all the same
        yield Fact("sources", row.root, State.DAMAGED, str(error))


def _queue(store: WorkStore, row: RepositoryRow, pid: int | None) -> Iterator[Fact]:
    for law in LAWS:
        number = num_broken(store, law, row.root, is_driven=pid is not None)
        if number:
            words = f"{count(number, 'item')} {law.broken}"
            yield Fact("queue", row.root, State.DIFFERS, words, law.mend.format(root=row.root))
        else:
            yield Fact("queue", row.root, State.AGREES, law.holds)


def _sources(store: WorkStore, row: RepositoryRow) -> Iterator[Fact]:
    """What is in the repository now, and what was indexed, by the ids of blobs."""
    entries = open_repository(Path(row.root), worktree=row.worktree, docs_dir=row.docs_dir).entries()
    docs = f"{row.docs_dir}/"
    now = {entry.path: entry.blob for entry in entries if not entry.path.startswith(docs)}
    stored = {path: file.blob for path, file in stored_files(store, row.root).items() if not path.startswith(docs)}
    changed = sorted(path for path in now.keys() | stored.keys() if now.get(path) != stored.get(path))
    for path in changed:
        what = "new" if path not in stored else "gone" if path not in now else "changed"
        words = f"{what} since it was indexed"
        yield Fact("sources", f"{row.root}/{path}", State.DIFFERS, words, f"`rotary-batch index {row.root}`")
    if not changed:
        where = "the working tree" if row.worktree else "the last commit" if row.commit_id else "the folder"
        yield Fact("sources", row.root, State.AGREES, f"{count(len(now), 'file')} as in {where}")


def _pages(store: WorkStore, row: RepositoryRow, window: Window, pid: int | None) -> Iterator[Fact]:
    """What `render` would do.  A driver writes pages after it has committed what they show, so then nobody knows."""
    folder = docs_folder(row)
    if pid is not None:
        words = f"process {pid} is at work, and may be writing them"
        yield Fact("pages", str(folder), State.UNKNOWN, words, "run verify again when it has ended")
    elif not row.plan_key:
        yield Fact("pages", str(folder), State.DIFFERS, NOT_WHOLE, f"`rotary-batch index {row.root}`")
    else:
        found = sync_all(store, row, should_stop=window.is_closed, open_folder=open_unwritten_docs)
        window.check()
        yield from _compared(row, folder, found)


def _compared(row: RepositoryRow, folder: Path, found: SyncResult) -> Iterator[Fact]:
    render = f"`rotary-batch render {row.root}`"
    missing = [page for page in found.written if not os.path.lexists(folder / page)]
    found_by_kind = (
        (missing, "missing", render),
        ([page for page in found.written if page not in missing], "not what the database has", render),
        (found.removed, "the page of something that is gone", render),
        (found.conflicts, "edited by a person", f"`rotary-batch render {row.root} --accept ours|theirs PAGE`"),
        (found.kept, "shows a text that the database lacks", f"`rotary-batch render {row.root} --overwrite`"),
    )
    problems = [(page, words, mend) for pages, words, mend in found_by_kind for page in pages]
    problems += [(failure.page, failure.reason, "move away what is there") for failure in found.failed]
    for page, words, mend in problems:
        yield Fact("pages", str(folder / page), State.DIFFERS, words, mend.replace("PAGE", page))
    if not problems:
        yield Fact("pages", str(folder), State.AGREES, f"{count(found.unchanged, 'page')} as the database has them")
