"""The ring: slots in device memory that experts are loaded into and evicted from.

It manages keys, slots and their states.  Bytes are moved by prefetch.py, and policy.py decides what is loaded.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from enum import Enum
from itertools import islice
from typing import NamedTuple

from rotary_batch.core import ExpertKey
from rotary_batch.engine.offload.policy import eviction_victim, next_to_load
from rotary_batch.engine.runtime.trace import Trace


class SlotState(Enum):
    """FREE -> LOADING -> READY <-> HELD; only FREE and READY may take another key."""

    FREE = "free"
    LOADING = "loading"
    READY = "ready"
    HELD = "held"


class Load(NamedTuple):
    """A slab on its way into a slot."""

    key: ExpertKey
    slot: int


class Ring:
    """The state of every slot.

    Prefetchers call `claim_loads`, `finish_loads` and `fail`; the compute thread calls `set_window`, `hold` and
    `release`.  `_changed` guards every field and wakes all of them.
    """

    def __init__(self, num_slots: int, trace: Trace) -> None:
        if not num_slots >= 2:
            raise ValueError("a ring has at least 2 slots: one in use, one being filled")
        self.num_slots = num_slots
        self._trace = trace
        self._window: list[ExpertKey] = []  # wanted keys, most urgent first
        self._needed: set[ExpertKey] = set()  # those of them that the router has chosen
        self._layer_quota: int | None = None
        self._slots: dict[ExpertKey, int] = {}  # insertion order = order of last use
        self._states = [SlotState.FREE] * num_slots
        self._unused: set[ExpertKey] = set()  # keys not held since they were loaded
        self._predicted: set[ExpertKey] = set()  # those of them that were loaded because of a prediction
        self._feedback = [0, 0]  # predicted keys that were evicted unused, that were used
        self._error: BaseException | None = None
        self._closed = False
        self._changed = threading.Condition()

    def set_window(
        self, window: Sequence[ExpertKey], layer_quota: int | None = None, num_needed: int | None = None
    ) -> None:
        """Set the wanted keys, most urgent first; keys beyond the number of slots are ignored.

        Eviction leaves each layer `layer_quota` slots; None = any slot may be evicted.  The keys after the first
        `num_needed` are predictions; None = there are none.
        """
        with self._changed:
            self._window = list(window[: self.num_slots])
            self._needed = set(self._window[:num_needed])
            self._layer_quota = layer_quota
            self._changed.notify_all()

    def claim_loads(self, max_loads: int, *, wait: bool) -> list[Load]:
        """Claim slots for the next wanted keys; they are LOADING from now on.

        In a sweep `max_loads` are claimed at a time, unless the compute needs one of them soon.  With `wait`, blocks
        until there are loads.  An empty list means that the ring was closed, or that there is nothing to load.
        """
        with self._changed:
            while True:
                loads = [] if self._closed else self._claim_now(max_loads)
                if loads or self._closed or not wait:
                    return loads
                self._changed.wait()

    def _claim_now(self, max_loads: int) -> list[Load]:
        if self._layer_quota is not None:
            max_loads = 1  # an expert that is needed now must not wait for one that is only predicted
        elif max_loads > 1 and self._can_wait(max_loads):
            return []
        return list(islice(iter(self._claim, None), max_loads))

    def _can_wait(self, max_loads: int) -> bool:
        """Whether fewer keys are missing, all of them half a ring away: releases will make the batch full."""
        missing = [place for place, key in enumerate(self._window) if key not in self._slots]
        return 0 < len(missing) < max_loads and missing[0] >= self.num_slots // 2

    def _claim(self) -> Load | None:
        key = next_to_load(self._window, self._slots)
        slot = None if key is None else self._allocate_slot(key)
        if key is None or slot is None:
            return None
        self._states[slot] = SlotState.LOADING
        self._slots[key] = slot
        self._unused.add(key)
        if key not in self._needed:
            self._predicted.add(key)
        return Load(key, slot)

    def _allocate_slot(self, incoming: ExpertKey) -> int | None:
        """A free slot, if need be by eviction."""
        if SlotState.FREE in self._states:
            return self._states.index(SlotState.FREE)
        ready = [key for key, slot in self._slots.items() if self._states[slot] is SlotState.READY]
        victim = eviction_victim(ready, set(self._window), incoming, self._layer_quota)
        if victim is None:
            return None
        if victim in self._unused:
            self._trace.add("wasted_prefetches")
            self._unused.discard(victim)
        self._count_feedback(victim, used=False)
        return self._slots.pop(victim)

    def _count_feedback(self, key: ExpertKey, *, used: bool) -> None:
        if key in self._predicted:
            self._predicted.discard(key)
            self._feedback[used] += 1

    def forget_predictions(self) -> None:
        """Give no feedback on earlier predictions: a sweep uses and evicts every expert."""
        with self._changed:
            self._predicted.clear()
            self._feedback = [0, 0]

    def take_prefetch_feedback(self) -> tuple[int, int]:
        """How many predicted slabs were evicted unused, and used, since the last call."""
        with self._changed:
            num_unused, num_used = self._feedback
            self._feedback = [0, 0]
            return num_unused, num_used

    def finish_loads(self, loads: Collection[Load]) -> None:
        """Make LOADING slots READY: their bytes have arrived."""
        with self._changed:
            for _, slot in loads:
                assert self._states[slot] is SlotState.LOADING, f"slot {slot} is {self._states[slot]}"
                self._states[slot] = SlotState.READY
            self._changed.notify_all()

    def fail(self, error: BaseException) -> None:
        """Let every waiting and later `hold` raise the error, because loading cannot go on."""
        with self._changed:
            self._error = error
            self._changed.notify_all()

    def hold(self, key: ExpertKey, load_inline: Callable[[], None] | None = None) -> int:
        """Claim the slot of a key, waiting for its bytes; a key outside the window becomes the most urgent one.

        `load_inline` loads one wanted key in this thread, where there is no prefetcher.
        """
        return self.hold_all([key], load_inline)[0]

    def hold_all(self, keys: Sequence[ExpertKey], load_inline: Callable[[], None] | None = None) -> list[int]:
        """Claim the slots of several keys at once, at most as many as the ring has slots; nothing else is held."""
        with self._changed:
            for key in keys:
                self._count_hold(key)
                self._count_feedback(key, used=True)
            self._needed.update(keys)
            if any(key not in self._window for key in keys):
                others = [key for key in self._window if key not in keys]
                self._window = [*keys, *others][: self.num_slots]
                self._changed.notify_all()
        while load_inline is not None and not self._are_ready(keys):
            load_inline()
        with self._changed:
            self._changed.wait_for(lambda: self._error is not None or self._closed or all(map(self._ready, keys)))
            if self._error is not None:
                raise self._error
            assert not self._closed, "the ring was closed under a waiting compute thread"
            slots = [self._slots[key] for key in keys]
            for slot in slots:
                self._states[slot] = SlotState.HELD
            self._unused.difference_update(keys)
            return slots

    def _count_hold(self, key: ExpertKey) -> None:
        if self._ready(key):
            self._trace.add("ring_hits")
        else:
            self._trace.add("late_prefetches" if key in self._slots else "fetches")

    def _are_ready(self, keys: Sequence[ExpertKey]) -> bool:
        with self._changed:
            return all(map(self._ready, keys))

    def _ready(self, key: ExpertKey) -> bool:
        return key in self._slots and self._states[self._slots[key]] is SlotState.READY

    def release(self, *keys: ExpertKey) -> None:
        """End the claims: their slots are the most recently used ones, and their keys leave the window."""
        with self._changed:
            for key in keys:
                slot = self._slots.pop(key)
                assert self._states[slot] is SlotState.HELD, f"slot {slot} is {self._states[slot]}"
                self._states[slot] = SlotState.READY
                self._slots[key] = slot
            self._window = [other for other in self._window if other not in keys]
            self._changed.notify_all()

    def close(self) -> None:
        """Wake every thread for the last time; idempotent."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def check_integrity(self) -> None:
        """Assert that a FREE slot has no key, and every other slot exactly one."""
        with self._changed:
            taken = list(self._slots.values())
            assert len(taken) == len(set(taken)), "one slot, two keys"
            for slot, state in enumerate(self._states):
                assert (state is SlotState.FREE) == (slot not in taken), f"slot {slot} is {state}"
