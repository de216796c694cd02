"""The commands that continuous integration runs.  Read by lines and indentation: as much of YAML as they need."""

from __future__ import annotations

import re
from collections.abc import Iterator

from rotary_batch.core import Fact, FactKind

_RUN = re.compile(r"( *(?:- +)?)run: *(.*)")
_SCRIPT = re.compile(r"( *)(?:before_script|script|after_script): *(.*)")
_BLOCK = re.compile(r"[|>][+-]?\d?\s*(?:#.*)?$")
_ITEM = re.compile(r" *- +(.*)")
# Lines of a shell script that are not commands by themselves.
_SHELL_WORDS = "if|then|else|elif|fi|for|while|do|done|case|esac|set|exit|echo|export|cd"
_NO_COMMAND = re.compile(rf"(?:#|$|(?:{_SHELL_WORDS})\b|[{{}})]|\w+=)")


def workflow(text: str) -> Iterator[Fact]:
    """The `run` steps of a GitHub workflow."""
    rows = text.replace("\t", " ").split("\n")
    for number, row in enumerate(rows):
        if found := _RUN.fullmatch(row):
            block = _BLOCK.match(found[2])
            yield from _told(_inside(rows, number + 1, len(found[1])) if block else [_unquoted(found[2])])


def gitlab(text: str) -> Iterator[Fact]:
    """The scripts of the jobs of GitLab."""
    rows = text.replace("\t", " ").split("\n")
    for number, row in enumerate(rows):
        if (found := _SCRIPT.fullmatch(row)) is None:
            continue
        if found[2] and not _BLOCK.match(found[2]):
            yield from _told([_unquoted(found[2])])
            continue
        inside = _inside(rows, number + 1, len(found[1]), with_items=True)
        items = (_ITEM.fullmatch(line) for line in inside)
        yield from _told([_unquoted(item[1]) for item in items if item])


def _inside(rows: list[str], start: int, indentation: int, *, with_items: bool = False) -> list[str]:
    """The lines of a block; a list may be as far to the left as its name."""
    block: list[str] = []
    for place in range(start, len(rows)):  # no slice: a copy for each of 70,000 blocks takes 10 s
        row = rows[place]
        own = len(row) - len(row.lstrip())
        if row.strip() and own <= indentation and not (with_items and own == indentation and row.lstrip()[:1] == "-"):
            break
        block.append(row)
    return block


def _told(commands: list[str]) -> Iterator[Fact]:
    joined = "\n".join(commands).replace("\\\n", " ").split("\n")
    for command in (" ".join(line.split()) for line in joined):
        if not _NO_COMMAND.match(command):
            yield Fact(FactKind.CI, command)


def _unquoted(text: str) -> str:
    text = text.strip()
    is_quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
    return text[1:-1] if is_quoted else text
