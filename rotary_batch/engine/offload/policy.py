"""Which key to load next, which slot to give up, which experts to keep: pure functions over plain values.

Sweep (many live sequences): the order is known, (layer, expert) round and round, so the window of the next keys is
known too.  Speculative (few sequences): the window holds what the router asked for and, behind it, what the next
layers' routers are guessed to ask for; every layer keeps what it used last.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence

from rotary_batch.core import ExpertKey
from rotary_batch.model.roofline import SWEEP_SHARE, touched_share


def sweep_window(order: Sequence[ExpertKey], cursor: int, size: int) -> list[ExpertKey]:
    """The next `size` keys of a sweep from `cursor` on, over the end into the next revolution."""
    return [order[(cursor + step) % len(order)] for step in range(min(size, len(order)))]


def next_to_load(window: Iterable[ExpertKey], present: Collection[ExpertKey]) -> ExpertKey | None:
    """The first key of the window that no slot has."""
    return next((key for key in window if key not in present), None)


def to_give_up(
    loaded: Iterable[ExpertKey], window: Collection[ExpertKey], wanted: ExpertKey, layer_quota: int | None = None
) -> ExpertKey | None:
    """A loaded, unheld key that the window does not want, for the sake of `wanted`.

    `loaded` comes least recently used first.  Without a quota the first will do (a sweep).  With one, a layer that
    has its quota gives up its own: over all layers LRU would drop each expert just before its turn comes again.
    """
    candidates = [key for key in loaded if key not in window]
    if layer_quota is None or not candidates:
        return candidates[0] if candidates else None
    share = Counter(key.layer for key in candidates)
    own = [key for key in candidates if key.layer == wanted.layer]
    if own and share[wanted.layer] >= layer_quota:
        return own[0]
    return next((key for key in candidates if share[key.layer] > layer_quota), candidates[0])


def prefers_sweep(num_rows: int, num_experts: int, top_k: int) -> bool:
    """Whether so many rows are expected to ask for most experts of a layer (uniform routing)."""
    return touched_share(num_rows, num_experts, top_k) >= SWEEP_SHARE


def choose_kept(
    order: Sequence[ExpertKey], num_residents: int, num_hosted: int
) -> tuple[frozenset[ExpertKey], frozenset[ExpertKey]]:
    """Two fixed sets, each spread evenly over the layers so that no layer becomes a bubble: residents, and hosted.

    Fixed, not least-recently-used: on a cyclic scan LRU hits nothing, a fixed set its share.
    """
    by_rank = sorted(order, key=lambda key: (key.expert, key.layer))
    return frozenset(by_rank[:num_residents]), frozenset(by_rank[num_residents:][:num_hosted])
