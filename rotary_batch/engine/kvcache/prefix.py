"""Beginnings that prompts share: computed once, stored once.

Knows token ids and ranges of the arena, which it takes in device memory; knows nothing of attention.  All prompts of
a job begin with the same instructions.  The store finds that out by itself: a prompt that begins like a recent one
makes their common part a prefix, and from then on prompts that begin with it use its keys.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence

from rotary_batch.engine.kvcache.arena import KvArena

MIN_TOKENS = 24  # shorter beginnings cost more bookkeeping than they save
MAX_PREFIXES = 8
NUM_RECENT = 16  # prompts that a new one is compared with


class Prefix:
    """One stored beginning and the sequences that use it."""

    def __init__(self, token_ids: tuple[int, ...], kv_start: int) -> None:
        self.token_ids = token_ids
        self.kv_start = kv_start
        self.num_cached = 0  # how much of it the arena holds; the sequence that made it computes it
        self.num_users = 0

    @property
    def num_tokens(self) -> int:
        """Its length."""
        return len(self.token_ids)


class PrefixStore:
    """The prefixes of one engine."""

    def __init__(self, kv: KvArena) -> None:
        self._kv = kv
        self._prefixes: list[Prefix] = []  # least recently used first
        self._recent: deque[tuple[int, ...]] = deque(maxlen=NUM_RECENT)

    def find(self, prompt_ids: tuple[int, ...], *, without: Collection[Prefix] = ()) -> Prefix | None:
        """The longest stored prefix of a prompt, except `without`; at least one token of the prompt stays its own."""
        stored = [prefix for prefix in self._prefixes if prefix not in without]
        fitting = [p for p in stored if p.num_tokens < len(prompt_ids) and _begins(prompt_ids, p.token_ids)]
        return max(fitting, key=lambda prefix: prefix.num_tokens, default=None)

    def adopt(self, prompt_ids: tuple[int, ...]) -> Prefix | None:
        """Count a user of the prompt's prefix, which is made here when a recent prompt began the same way."""
        prefix = self.find(prompt_ids) or self._make(prompt_ids)
        self._recent.append(prompt_ids)
        if prefix is not None:
            prefix.num_users += 1
            self._prefixes.remove(prefix)
            self._prefixes.append(prefix)
        return prefix

    def _make(self, prompt_ids: tuple[int, ...]) -> Prefix | None:
        length = max((_common_tokens(prompt_ids, other) for other in self._recent), default=0)
        length = min(length, len(prompt_ids) - 1)
        if length < MIN_TOKENS:
            return None
        if len(self._prefixes) >= MAX_PREFIXES:
            unused = self.unused()
            if not unused:
                return None
            self.evict(unused[0])
        if not self._kv.has_room(length, on_device=True):
            return None
        prefix = Prefix(prompt_ids[:length], self._kv.take(length, on_device=True))
        self._prefixes.append(prefix)
        return prefix

    def leave(self, prefix: Prefix) -> None:
        """A user is gone; the prefix stays for those to come."""
        prefix.num_users -= 1
        if prefix.num_users == 0 and prefix.num_cached < prefix.num_tokens:
            self.evict(prefix)  # its maker failed before it was complete

    def unused(self) -> list[Prefix]:
        """Prefixes that no sequence uses, least recently used first."""
        return [prefix for prefix in self._prefixes if prefix.num_users == 0]

    def evict(self, prefix: Prefix) -> None:
        """Free a prefix that no sequence uses."""
        self._prefixes.remove(prefix)
        self._kv.give_back(prefix.kv_start, prefix.num_tokens)


def _begins(token_ids: Sequence[int], beginning: Sequence[int]) -> bool:
    return token_ids[: len(beginning)] == beginning


def _common_tokens(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    """Length of the common beginning, by bisection: comparing slices runs in C."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
