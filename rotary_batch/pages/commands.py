"""How a project is built and tested: commands that its files name, quoted as code."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from rotary_batch.core import Fact, FactKind, FactOf
from rotary_batch.pages.links import Links
from rotary_batch.pages.page import IndexView
from rotary_batch.pages.page_paths import parent_of
from rotary_batch.pages.sanitise import code, fenced, inline

MAX_FILES = 6  # of each kind, the nearest to the top
MAX_COMMANDS = 12  # of one file
# The last words of commands that people look for, the first ones first.
_WANTED = ("test", "tests", "check", "build", "install", "setup", "lint", "run", "start", "dev", "docs", "all")


def commands_by_file(facts: Iterable[FactOf], kind: FactKind) -> Mapping[str, Sequence[Fact]]:
    """Path -> the commands of one kind, the most wanted first; files nearest to the top first."""
    found: dict[str, list[Fact]] = {}
    for one in facts:
        if one.fact.kind is kind:
            found.setdefault(one.path, []).append(one.fact)
    nearest = sorted(found, key=lambda path: (path.count("/"), path))[:MAX_FILES]
    return {path: found[path] if kind is FactKind.CI else sorted(found[path], key=_place) for path in nearest}


def command_blocks(view: IndexView, links: Links) -> Iterator[str]:
    """A table for each file that names commands, then what continuous integration runs."""
    facts = view.overview().facts
    tables = list(commands_by_file(facts, FactKind.COMMAND).items())
    ci = list(commands_by_file(facts, FactKind.CI).items())
    if tables or ci:
        yield "These commands are quoted from files of the project. None of them was run to write this page."
    for path, commands in tables:
        yield f"From {_named(view, links, path)}{_place_to_run(path)}:"
        yield _table(commands)
    for path, commands in ci:
        lines = [command.name for command in commands[:MAX_COMMANDS]]
        yield f"Continuous integration, from {_named(view, links, path)}{_more(commands)}:"
        yield fenced("\n".join(lines), "sh")


def _named(view: IndexView, links: Links, path: str) -> str:
    return f"[{code(path)}]({links.page('/', path)})" if path in view.sources else code(path)


def _place_to_run(path: str) -> str:
    folder = parent_of(path)
    return f", to run in {code(folder)}" if folder else ""


def _table(commands: Sequence[Fact]) -> str:
    shown = commands[:MAX_COMMANDS]
    rows = [f"| {code(command.name)} | {inline(command.words) or code(command.code)} |" for command in shown]
    if len(commands) > len(shown):
        rows.append(f"| and {len(commands) - len(shown)} more |  |")
    return "\n".join(["| Command | What it does |", "| --- | --- |", *rows])


def _more(commands: Sequence[Fact]) -> str:
    return f" (the first {MAX_COMMANDS} of {len(commands)})" if len(commands) > MAX_COMMANDS else ""


def _place(command: Fact) -> int:
    word = command.name.rpartition(" ")[2].rpartition(":")[2]
    return _WANTED.index(word) if word in _WANTED else len(_WANTED)
