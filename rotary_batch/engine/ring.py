"""Slots in device memory that expert weights pass through.

Knows keys, slots and their states; knows nothing of Mixtral, of bytes, or of where a slab comes from.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from enum import Enum

from rotary_batch.core import ExpertKey
from rotary_batch.engine.policy import next_to_load, sweep_window, to_give_up
from rotary_batch.engine.trace import Trace


class SlotState(Enum):
    """FREE -> LOADING -> READY <-> HELD; only FREE and READY may take another key."""

    FREE = "free"
    LOADING = "loading"
    READY = "ready"
    HELD = "held"


class Ring:
    """The state of every slot.

    The rotor calls `next_load`, `loaded` and `failed`; the compute thread calls `hold` and `release`.
    `_changed` guards every field and wakes both.
    """

    def __init__(self, order: Sequence[ExpertKey], num_slots: int, trace: Trace) -> None:
        if not num_slots >= 2:
            raise ValueError("a ring has at least 2 slots: one in use, one being filled")
        self._order = list(order)
        self._position = {key: place for place, key in enumerate(self._order)}
        self._num_slots = min(num_slots, len(self._order))
        self._trace = trace
        self._cursor = 0  # position in `order` of the key that compute wants next
        self._slots: dict[ExpertKey, int] = {}  # insertion order = load order
        self._states = [SlotState.FREE] * self._num_slots
        self._used: set[ExpertKey] = set()  # keys held since they were loaded
        self._error: BaseException | None = None
        self._closed = False
        self._changed = threading.Condition()

    @property
    def num_slots(self) -> int:
        """How many slots there are; never more than keys."""
        return self._num_slots

    def next_load(self, *, wait: bool) -> tuple[ExpertKey, int] | None:
        """Claim a slot for the next wanted key (it is LOADING from now on).

        With `wait`, blocks until there is one; None means that the ring was closed, or nothing to do.
        """
        with self._changed:
            while True:
                found = None if self._closed else self._claim()
                if found is not None or self._closed or not wait:
                    return found
                self._changed.wait()

    def _claim(self) -> tuple[ExpertKey, int] | None:
        window = sweep_window(self._order, self._cursor, self._num_slots)
        key = next_to_load(window, self._slots)
        slot = None if key is None else self._empty_slot(set(window))
        if key is None or slot is None:
            return None
        self._states[slot] = SlotState.LOADING
        self._slots[key] = slot
        return key, slot

    def _empty_slot(self, window: set[ExpertKey]) -> int | None:
        if SlotState.FREE in self._states:
            return self._states.index(SlotState.FREE)
        ready = [key for key, slot in self._slots.items() if self._states[slot] is SlotState.READY]
        victim = to_give_up(ready, window)
        if victim is None:
            return None
        if victim not in self._used:
            self._trace.add("wasted_prefetches")
        self._used.discard(victim)
        return self._slots.pop(victim)

    def loaded(self, slot: int) -> None:
        """The bytes of a LOADING slot are there."""
        with self._changed:
            assert self._states[slot] is SlotState.LOADING, f"slot {slot} is {self._states[slot]}"
            self._states[slot] = SlotState.READY
            self._changed.notify_all()

    def failed(self, error: BaseException) -> None:
        """Loading cannot go on; every waiting and later `hold` raises the error."""
        with self._changed:
            self._error = error
            self._changed.notify_all()

    def hold(self, key: ExpertKey, load_inline: Callable[[], None] | None = None) -> int:
        """Claim the slot that has the key, waiting for its bytes; turns the ring to the key.

        `load_inline` loads one wanted slot in this thread; it stands in for a rotor.
        """
        with self._changed:
            self._cursor = self._position[key]
            self._changed.notify_all()
            ready = key in self._slots and self._states[self._slots[key]] is SlotState.READY
        self._trace.add("ring_hits" if ready else "fetches")
        while load_inline is not None and not self._has_ready(key):
            load_inline()
        with self._changed:
            self._changed.wait_for(lambda: self._error is not None or self._closed or self._ready(key))
            if self._error is not None:
                raise self._error
            assert not self._closed, "the ring was closed under a waiting compute thread"
            slot = self._slots[key]
            self._states[slot] = SlotState.HELD
            self._used.add(key)
            return slot

    def _has_ready(self, key: ExpertKey) -> bool:
        with self._changed:
            return self._ready(key)

    def _ready(self, key: ExpertKey) -> bool:
        return key in self._slots and self._states[self._slots[key]] is SlotState.READY

    def release(self, key: ExpertKey) -> None:
        """Give the slot back; the ring turns to the next key, so this one may be given up."""
        with self._changed:
            slot = self._slots[key]
            assert self._states[slot] is SlotState.HELD, f"slot {slot} is {self._states[slot]}"
            self._states[slot] = SlotState.READY
            self._cursor = (self._position[key] + 1) % len(self._order)
            self._changed.notify_all()

    def close(self) -> None:
        """Wake the rotor for the last time; idempotent."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def check_integrity(self) -> None:
        """Assert the laws: a slot has at most one key, a FREE slot none, every other slot exactly one."""
        with self._changed:
            taken = list(self._slots.values())
            assert len(taken) == len(set(taken)), "one slot, two keys"
            for slot, state in enumerate(self._states):
                assert (state is SlotState.FREE) == (slot not in taken), f"slot {slot} is {state}"
