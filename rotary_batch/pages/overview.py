"""What is known of a repository as a whole, from the index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rotary_batch.core import FactOf, Symbol

MAX_MOST_USED = 15
MAX_MAIN_FUNCTIONS = 1000
MAX_FILES = 300  # in the order of use


class MostUsed(NamedTuple):
    """A symbol, and how many others use it."""

    symbol: Symbol
    num_users: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """Figures and lists of the first page, and of the page for people who are new."""

    main_functions: Sequence[Symbol] = ()
    most_used: Sequence[MostUsed] = ()
    most_used_files: Sequence[str] = ()  # by the number of uses from other files
    facts: Sequence[FactOf] = ()  # what files say of building, testing and entering the project
    central_files: Sequence[str] = ()  # by PageRank
    num_symbols: int = 0
    num_described: int = 0  # of them with words of their author
