"""What `index` did, in words."""

from __future__ import annotations

from rotary_batch.commands.index import IndexOutcome
from rotary_batch.commands.report_words import command, listed
from rotary_batch.core import FileClass
from rotary_batch.sizes import count

_NOT_READ = {  # class -> one, several
    FileClass.TEXT: ("in no language that is read", "in no language that is read"),
    FileClass.GENERATED: ("generated", "generated"),
    FileClass.VENDORED: ("other people's code", "other people's code"),
    FileClass.MINIFIED: ("minified", "minified"),
    FileClass.BINARY: ("binary", "binary"),
    FileClass.OVERSIZED: ("too large", "too large"),
    FileClass.LFS_POINTER: ("kept in Git LFS", "kept in Git LFS"),
    FileClass.SYMLINK: ("a symbolic link", "symbolic links"),
    FileClass.SUBMODULE: ("a submodule", "submodules"),
    FileClass.UNREADABLE: ("unreadable", "unreadable"),
    FileClass.IGNORED: ("left out by the settings", "left out by the settings"),
}


def did_nothing(outcome: IndexOutcome) -> bool:
    """Whether everything was as it is now."""
    pages, counts = outcome.sync_result, outcome.indexed.counts
    return not (outcome.indexed.parsed or counts.queued or counts.removed or pages.written or pages.removed)


def headline(outcome: IndexOutcome) -> str:
    """What was read and written."""
    indexed, pages = outcome.indexed, outcome.sync_result
    num_pages = _num_pages(pages.written)
    if did_nothing(outcome):
        return f"Nothing has changed; {count(outcome.pages_current, 'page is', 'pages are')} current."
    num_read = indexed.files.get(FileClass.SOURCE, 0) + indexed.files.get(FileClass.STUB, 0)
    num_files = sum(number for name, number in indexed.files.items() if name != FileClass.DOCS)
    read = f"{num_read:,} of {count(num_files, 'file')}"
    if indexed.parsed < indexed.files.get(FileClass.SOURCE, 0):
        read = f"{indexed.parsed:,} of {count(num_read, 'source file')} again, as the rest is unchanged"
    removed = _num_pages(pages.removed)
    gone = f", {removed:,} removed" if removed else ""
    symbols, queued = count(indexed.symbols, "symbol"), count(indexed.counts.queued, "item")
    return f"Read {read}: {symbols}, {queued} queued. {count(num_pages, 'page')} written{gone}."


def not_read(outcome: IndexOutcome) -> str:
    """Why other files were not read; empty when all were."""
    files = outcome.indexed.files
    unread = [(files[name], words) for name, words in _NOT_READ.items() if files.get(name)]
    reasons = [f"{number:,} {words[number > 1]}" for number, words in unread]
    return f"Not read: {listed(reasons)}." if reasons else ""


def next_step(outcome: IndexOutcome) -> str:
    """The commands to type next."""
    roots = [outcome.indexed.repository.root]
    if not outcome.num_open:
        return f"Next: {command('site', outcome.database, roots, '--serve')} shows the pages in a browser."
    run, plan = command("run", outcome.database, roots), command("plan", outcome.database, roots)
    return f"Next: {run} lets the model write; {plan} estimates how long that takes."


def _num_pages(paths: list[str]) -> int:
    return sum(path.endswith(".md") for path in paths)
