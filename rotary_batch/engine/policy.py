"""Which key to load next, which slot to give up, which experts to keep: pure functions over plain values.

Sweep (many live sequences): the order is known, (layer, expert) round and round, so the window of the
next keys is known too.  Another policy differs in how it fills the window, not in these functions: one
that predicts (few sequences) passes the experts that the next layer's router asks for.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from rotary_batch.core import ExpertKey


def sweep_window(order: Sequence[ExpertKey], cursor: int, size: int) -> list[ExpertKey]:
    """The next `size` keys of a sweep from `cursor` on, over the end into the next revolution."""
    return [order[(cursor + step) % len(order)] for step in range(min(size, len(order)))]


def next_to_load(window: Iterable[ExpertKey], present: Collection[ExpertKey]) -> ExpertKey | None:
    """The first key of the window that no slot has."""
    return next((key for key in window if key not in present), None)


def to_give_up(loaded: Iterable[ExpertKey], window: Collection[ExpertKey]) -> ExpertKey | None:
    """A loaded, unheld key that the window does not want; the oldest load first."""
    return next((key for key in loaded if key not in window), None)


def choose_residents(order: Sequence[ExpertKey], count: int) -> frozenset[ExpertKey]:
    """A fixed set of `count` experts, spread evenly over the layers so that no layer becomes a bubble.

    Fixed, not least-recently-used: on a cyclic scan LRU hits nothing, a fixed set its share.
    """
    by_rank = sorted(order, key=lambda key: (key.expert, key.layer))
    return frozenset(by_rank[:count])
