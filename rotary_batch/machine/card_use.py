"""What other programs need of the card: memory that they take, and memory that is left for them."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from rotary_batch.machine.need import Need
from rotary_batch.machine.nvml import CardMemory
from rotary_batch.sizes import size_text

LEAST_FREE = 0.02  # of the card's memory; with less, a program that starts finds none
PRESSED_GROWTH = 0.04  # of it, taken by others of late
SETTLED_S = 900.0


class CardReader(Protocol):
    """The part of `nvml.Card` that is asked here."""

    def memory(self) -> CardMemory | None:
        """How much there is, and how much nobody uses."""
        ...

    def others_nbytes(self) -> int | None:
        """Memory that other processes use."""
        ...


@dataclass
class CardRoom:
    """Whether others need the card's memory: hardly any is free.  While this run holds it, that takes it all back."""

    card: CardReader

    def __call__(self) -> Need | None:
        """What others need now."""
        memory = self.card.memory()
        if memory is None:
            return None
        least = LEAST_FREE * memory.total_nbytes
        why = f"{size_text(memory.free_nbytes)} of the card's memory are free for other programs"
        return Need("card", least / max(1, memory.free_nbytes), why, frees=True)


@dataclass
class CardGuests:
    """Whether others began to use the card: they have more of its memory than before.

    What they have for a quarter of an hour without a change is as usual from then on: a program that was left open.
    """

    card: CardReader
    clock: Callable[[], float] = time.monotonic
    _usual_nbytes: int = field(default=0, init=False)
    _last_nbytes: int = field(default=0, init=False)
    _changed_at: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self._usual_nbytes = self._last_nbytes = self.card.others_nbytes() or 0
        self._changed_at = self.clock()

    def __call__(self) -> Need | None:
        """What others took of late."""
        memory, others, now = self.card.memory(), self.card.others_nbytes(), self.clock()
        if memory is None or others is None:
            return None
        pressed = PRESSED_GROWTH * memory.total_nbytes
        if abs(others - self._last_nbytes) > pressed / 2:
            self._last_nbytes, self._changed_at = others, now
        if now - self._changed_at > SETTLED_S:
            self._usual_nbytes = others
        grown = max(0, others - self._usual_nbytes)
        return Need("card", grown / pressed, f"other programs took {size_text(grown)} of the card's memory")
