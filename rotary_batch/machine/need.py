"""What other programs need of the machine, as a number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

Resource = Literal["processors", "memory", "card"]
PRESSED = 1.0  # from here on others need it


class Need(NamedTuple):
    """How much others need a resource; from `PRESSED` on they get it, and it is what `why` says."""

    resource: Resource
    pressure: float
    why: str  # a clause, such as `other programs use 75 % of the processors`
    frees: bool = False  # whether it takes memory to be given back; else the work slows down


Source = Callable[[], Need | None]  # None = it cannot be told now
