"""The targets of Makefiles and the recipes of justfiles."""

from __future__ import annotations

import re
from collections.abc import Iterator

from rotary_batch.core import Fact, FactKind

MAX_RECIPE_LINES = 3  # of a target, that are told
# Targets that people name: no patterns, no files, nothing that is computed.
_TARGETS = re.compile(r"([A-Za-z0-9][\w.-]*(?:[ ]+[A-Za-z0-9][\w.-]*)*)[ ]*::?(?![=:])(?P<rest>.*)")
_ENDING = re.compile(r"\.\w{1,4}$")  # of a file
_RECIPE = re.compile(r"@?([A-Za-z][\w-]*)((?:[ ]+[^:\s]+)*)[ ]*:(?!=)(?P<rest>.*)")


def makefile(text: str) -> Iterator[Fact]:
    """The targets of a Makefile, each with the beginning of its recipe and the comment in its line."""
    rows = text.replace("\\\n", " ").split("\n")
    for number, row in enumerate(rows):
        found = _TARGETS.fullmatch(row)
        if found is None or "=" in found["rest"].partition("#")[0].partition(";")[0]:
            continue
        words, recipe = found["rest"].partition("#")[2].lstrip("#").strip(), _recipe(rows, number + 1, "\t")
        for target in found[1].split():
            if not _ENDING.search(target):
                yield Fact(FactKind.COMMAND, f"make {target}", recipe, words)


def justfile(text: str) -> Iterator[Fact]:
    """The recipes of a justfile that need no argument."""
    rows = text.split("\n")
    for number, row in enumerate(rows):
        found = _RECIPE.fullmatch(row)
        if found and all("=" in argument for argument in found[2].split()):
            yield Fact(FactKind.COMMAND, f"just {found[1]}", _recipe(rows, number + 1, " "))


def _recipe(rows: list[str], start: int, mark: str) -> str:
    shown: list[str] = []
    for place in range(start, len(rows)):  # no slice: a copy for each of 100,000 targets takes 20 s
        row = rows[place]
        if len(shown) == MAX_RECIPE_LINES or (row.strip() and not row.startswith((mark, "\t"))):
            break
        if line := row.strip().lstrip("@-+").strip():
            shown.append(line)
    return "; ".join(shown)
