"""Prefixes that prompts share: computed once, stored once.

All prompts of a job begin with the same instructions.  The store detects that by itself: when a prompt begins like a
recent one, their common part becomes a prefix, and later prompts that begin with it use its KV cache.  Prefixes are
always in device memory.

Where layers have states, a prefix also has the state at its end, which each of its sharers begins with.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence

from rotary_batch.engine.delta.states import SequenceState, StateArena
from rotary_batch.engine.kvcache.arena import KvArena

MIN_TOKENS = 24  # shorter prefixes cost more bookkeeping than they save
MAX_PREFIXES = 8
NUM_RECENT = 16  # prompts that a new one is compared with


class Prefix:
    """One stored prefix and the number of sequences that use it."""

    def __init__(self, token_ids: tuple[int, ...], kv_start: int, state: SequenceState | None = None) -> None:
        self.token_ids = token_ids
        self.kv_start = kv_start
        self.state = state  # at its end, once all of it is cached
        self.num_cached = 0  # tokens that are in the arena; the sequence that created the prefix computes them
        self.ref_count = 0

    @property
    def num_tokens(self) -> int:
        """Its length."""
        return len(self.token_ids)

    @property
    def is_complete(self) -> bool:
        """Whether all of it is cached."""
        return self.num_cached >= self.num_tokens


class PrefixStore:
    """The prefixes of one engine."""

    def __init__(self, kv: KvArena, states: StateArena | None = None) -> None:
        self._kv = kv
        self._states = states
        self._prefixes: list[Prefix] = []  # least recently used first
        self._recent: deque[tuple[int, ...]] = deque(maxlen=NUM_RECENT)

    def find(self, prompt_ids: tuple[int, ...], *, without: Collection[Prefix] = ()) -> Prefix | None:
        """The longest stored prefix of a prompt, except `without`; it leaves at least one token of the prompt."""
        stored = [prefix for prefix in self._prefixes if prefix not in without]
        matching = [p for p in stored if p.num_tokens < len(prompt_ids) and _starts_with(prompt_ids, p)]
        return max(matching, key=lambda prefix: prefix.num_tokens, default=None)

    def acquire(self, prompt_ids: tuple[int, ...]) -> Prefix | None:
        """Count a user of the prompt's prefix.  A new prefix is created when a recent prompt began the same way."""
        prefix = self.find(prompt_ids) or self._create(prompt_ids)
        self._recent.append(prompt_ids)
        if prefix is not None:
            prefix.ref_count += 1
            self._prefixes.remove(prefix)
            self._prefixes.append(prefix)
        return prefix

    def _create(self, prompt_ids: tuple[int, ...]) -> Prefix | None:
        length = max((_common_tokens(prompt_ids, other) for other in self._recent), default=0)
        length = min(length, len(prompt_ids) - 1)
        if length < MIN_TOKENS:
            return None
        if len(self._prefixes) >= MAX_PREFIXES:
            unused = self.unused()
            if not unused:
                return None
            self.evict(unused[0])
        if not self._kv.has_room(length, on_device=True) or (self._states and not self._states.num_free):
            return None
        state = self._states.allocate() if self._states else None
        prefix = Prefix(prompt_ids[:length], self._kv.allocate(length, on_device=True), state)
        self._prefixes.append(prefix)
        return prefix

    def release(self, prefix: Prefix) -> None:
        """Count a user less.  A complete prefix stays for later prompts; an incomplete one without users is freed."""
        prefix.ref_count -= 1
        if prefix.ref_count == 0 and not prefix.is_complete:
            self.evict(prefix)

    def unused(self) -> list[Prefix]:
        """Prefixes that no sequence uses, least recently used first."""
        return [prefix for prefix in self._prefixes if prefix.ref_count == 0]

    def evict(self, prefix: Prefix) -> None:
        """Free a prefix that no sequence uses."""
        self._prefixes.remove(prefix)
        self._kv.free(prefix.kv_start, prefix.num_tokens)
        if prefix.state is not None:
            prefix.state.free()


def _starts_with(prompt_ids: Sequence[int], prefix: Prefix) -> bool:
    return prompt_ids[: prefix.num_tokens] == prefix.token_ids


def _common_tokens(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    """Length of the common prefix, by bisection: comparing slices runs in C."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
