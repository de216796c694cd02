"""Slots in device memory that expert weights pass through.

Knows keys, slots and their states; knows nothing of Mixtral, of bytes, of where a slab comes from, or of how the
window of wanted keys came about.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from enum import Enum
from itertools import islice
from typing import NamedTuple

from rotary_batch.core import ExpertKey
from rotary_batch.engine.offload.policy import next_to_load, to_give_up
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

    Rotors call `next_loads`, `loaded` and `failed`; the compute thread calls `aim`, `hold` and `release`.
    `_changed` guards every field and wakes all.
    """

    def __init__(self, num_slots: int, trace: Trace) -> None:
        if not num_slots >= 2:
            raise ValueError("a ring has at least 2 slots: one in use, one being filled")
        self.num_slots = num_slots
        self._trace = trace
        self._window: list[ExpertKey] = []  # wanted keys, most urgent first
        self._needed: set[ExpertKey] = set()  # those of them that are sure to be asked for
        self._layer_quota: int | None = None
        self._slots: dict[ExpertKey, int] = {}  # insertion order = order of last use
        self._states = [SlotState.FREE] * num_slots
        self._unused: set[ExpertKey] = set()  # keys not held since they were loaded
        self._guessed: set[ExpertKey] = set()  # those of them that were loaded on a guess
        self._outcomes = [0, 0]  # guesses that turned out wrong, right
        self._error: BaseException | None = None
        self._closed = False
        self._changed = threading.Condition()

    def aim(self, window: Sequence[ExpertKey], layer_quota: int | None = None, num_needed: int | None = None) -> None:
        """Say what is wanted, most urgent first; at most as many keys as slots are looked at.

        `layer_quota` slots are left to each layer when slots are given up; None = any slot will do.  Behind the first
        `num_needed` keys come guesses; None = there are none.
        """
        with self._changed:
            self._window = list(window[: self.num_slots])
            self._needed = set(self._window[:num_needed])
            self._layer_quota = layer_quota
            self._changed.notify_all()

    def next_loads(self, at_most: int, *, wait: bool) -> list[Load]:
        """Claim slots for the next wanted keys (they are LOADING from now on), at most so many.

        In a sweep they come `at_most` at a time while the compute has enough before it.  With `wait`, blocks until
        there are some; none means that the ring was closed, or nothing to do.
        """
        with self._changed:
            while True:
                found = [] if self._closed else self._claims(at_most)
                if found or self._closed or not wait:
                    return found
                self._changed.wait()

    def _claims(self, at_most: int) -> list[Load]:
        if self._layer_quota is not None:
            at_most = 1  # what is asked for now must not wait for what may be asked for next
        elif at_most > 1 and self._can_wait(at_most):
            return []
        return list(islice(iter(self._claim, None), at_most))

    def _can_wait(self, at_most: int) -> bool:
        """Whether less than a bundle is missing, and all behind half a ring: releases will make the bundle whole."""
        missing = [place for place, key in enumerate(self._window) if key not in self._slots]
        return 0 < len(missing) < at_most and missing[0] >= self.num_slots // 2

    def _claim(self) -> Load | None:
        key = next_to_load(self._window, self._slots)
        slot = None if key is None else self._empty_slot(key)
        if key is None or slot is None:
            return None
        self._states[slot] = SlotState.LOADING
        self._slots[key] = slot
        self._unused.add(key)
        if key not in self._needed:
            self._guessed.add(key)
        return Load(key, slot)

    def _empty_slot(self, wanted: ExpertKey) -> int | None:
        if SlotState.FREE in self._states:
            return self._states.index(SlotState.FREE)
        ready = [key for key, slot in self._slots.items() if self._states[slot] is SlotState.READY]
        victim = to_give_up(ready, set(self._window), wanted, self._layer_quota)
        if victim is None:
            return None
        if victim in self._unused:
            self._trace.add("wasted_prefetches")
            self._unused.discard(victim)
        self._note_outcome(victim, right=False)
        return self._slots.pop(victim)

    def _note_outcome(self, key: ExpertKey, *, right: bool) -> None:
        if key in self._guessed:
            self._guessed.discard(key)
            self._outcomes[right] += 1

    def forget_predictions(self) -> None:
        """From now on they count for nothing: a sweep asks for everything and gives up everything."""
        with self._changed:
            self._guessed.clear()
            self._outcomes = [0, 0]

    def take_prefetch_feedback(self) -> tuple[int, int]:
        """How many slabs that were loaded on a guess were given up unused, and used, since the last call."""
        with self._changed:
            wrong, right = self._outcomes
            self._outcomes = [0, 0]
            return wrong, right

    def loaded(self, loads: Collection[Load]) -> None:
        """The bytes of LOADING slots are there."""
        with self._changed:
            for _, slot in loads:
                assert self._states[slot] is SlotState.LOADING, f"slot {slot} is {self._states[slot]}"
                self._states[slot] = SlotState.READY
            self._changed.notify_all()

    def failed(self, error: BaseException) -> None:
        """Loading cannot go on; every waiting and later `hold` raises the error."""
        with self._changed:
            self._error = error
            self._changed.notify_all()

    def hold(self, key: ExpertKey, load_inline: Callable[[], None] | None = None) -> int:
        """Claim the slot that has the key, waiting for its bytes; a key outside the window goes to its front.

        `load_inline` loads one wanted slot in this thread; it stands in for a rotor.
        """
        with self._changed:
            self._count(key)
            self._note_outcome(key, right=True)
            self._needed.add(key)
            if key not in self._window:
                self._window = [key, *self._window[: self.num_slots - 1]]
                self._changed.notify_all()
        while load_inline is not None and not self._has_ready(key):
            load_inline()
        with self._changed:
            self._changed.wait_for(lambda: self._error is not None or self._closed or self._ready(key))
            if self._error is not None:
                raise self._error
            assert not self._closed, "the ring was closed under a waiting compute thread"
            slot = self._slots[key]
            self._states[slot] = SlotState.HELD
            self._unused.discard(key)
            return slot

    def _count(self, key: ExpertKey) -> None:
        if self._ready(key):
            self._trace.add("ring_hits")
        else:
            self._trace.add("late_prefetches" if key in self._slots else "fetches")

    def _has_ready(self, key: ExpertKey) -> bool:
        with self._changed:
            return self._ready(key)

    def _ready(self, key: ExpertKey) -> bool:
        return key in self._slots and self._states[self._slots[key]] is SlotState.READY

    def release(self, key: ExpertKey) -> None:
        """Give the slot back: it is the last used now, and wanted no longer."""
        with self._changed:
            slot = self._slots.pop(key)
            assert self._states[slot] is SlotState.HELD, f"slot {slot} is {self._states[slot]}"
            self._states[slot] = SlotState.READY
            self._slots[key] = slot
            self._window = [other for other in self._window if other != key]
            self._changed.notify_all()

    def close(self) -> None:
        """Wake the rotors for the last time; idempotent."""
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
