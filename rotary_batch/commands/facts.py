"""What `verify` finds: one fact a line, whether it is as it should be, and the command that mends it."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple


class State(StrEnum):
    """Whether something is as it should be."""

    AGREES = "agrees"
    DIFFERS = "differs"  # a command brings it up to date
    DAMAGED = "damaged"
    UNKNOWN = "not judged"


class Fact(NamedTuple):
    """One thing that was compared."""

    about: str  # database, schema, queue, sources, pages or pack
    path: str
    state: State
    words: str
    mend: str | None = None  # what to do


def exit_code(facts: Iterable[Fact]) -> int:
    """3 when something is damaged, 4 when something differs, else 0."""
    states = {fact.state for fact in facts}
    return 3 if State.DAMAGED in states else 4 if State.DIFFERS in states else 0
