"""Which expert to load next, which to evict, which to keep where: pure functions over plain values.

In a sweep (many live sequences) experts are loaded in order, layer by layer and round and round, so the window of the
next keys is known.  Otherwise (few sequences) the window has the experts that the router chose, then those that the
routers of the next layers are predicted to choose; every layer keeps the experts that it used last.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence

from rotary_batch.core import ExpertKey
from rotary_batch.model.roofline import SWEEP_SHARE, activated_share


def sweep_window(order: Sequence[ExpertKey], cursor: int, size: int) -> list[ExpertKey]:
    """The next `size` keys of a sweep from `cursor` on; after the last key comes the first."""
    return [order[(cursor + step) % len(order)] for step in range(min(size, len(order)))]


def next_to_load(window: Iterable[ExpertKey], present: Collection[ExpertKey]) -> ExpertKey | None:
    """The first key of the window that is in no slot."""
    return next((key for key in window if key not in present), None)


def eviction_victim(
    loaded: Iterable[ExpertKey], window: Collection[ExpertKey], incoming: ExpertKey, layer_quota: int | None = None
) -> ExpertKey | None:
    """The key outside the window to evict for `incoming`; None = there is none.

    `loaded` are the keys that are not held, least recently used first.  Without a quota (a sweep) the first one is
    evicted.  With one, a layer that has its quota evicts its own: LRU over all layers would evict each expert just
    before it is needed again.
    """
    candidates = [key for key in loaded if key not in window]
    if layer_quota is None or not candidates:
        return candidates[0] if candidates else None
    num_loaded = Counter(key.layer for key in candidates)
    own = [key for key in candidates if key.layer == incoming.layer]
    if own and num_loaded[incoming.layer] >= layer_quota:
        return own[0]
    return next((key for key in candidates if num_loaded[key.layer] > layer_quota), candidates[0])


def prefers_sweep(num_rows: int, num_experts: int, top_k: int) -> bool:
    """Whether `num_rows` rows are expected to choose most experts of a layer (under uniform routing)."""
    return activated_share(num_rows, num_experts, top_k) >= SWEEP_SHARE


def assign_tiers(
    order: Sequence[ExpertKey], num_residents: int, num_hosted: int
) -> tuple[frozenset[ExpertKey], frozenset[ExpertKey]]:
    """The experts that stay in device memory, and those that stay in host memory.

    Both sets are spread evenly over the layers, so that no layer stalls.  They are fixed: on a cyclic scan a fixed set
    hits its share, LRU nothing.
    """
    across_layers = sorted(order, key=lambda key: (key.expert, key.layer))
    return frozenset(across_layers[:num_residents]), frozenset(across_layers[num_residents:][:num_hosted])
