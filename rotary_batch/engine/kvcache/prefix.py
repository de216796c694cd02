"""Prefixes that prompts share: computed once, stored once.

There are two levels.  A request may say how many of its tokens its siblings share: the whole text of a chunk of code,
of which each of them is asked something else.  And all prompts of a job begin with the same instructions, which the
store detects by itself: when a prompt begins like a recent one, their common part becomes a prefix.  A declared prefix
begins with a detected one by a copy of its KV cache, so a sequence has one prefix and its own range, no more.  Prefixes
are always in device memory.

Where layers have states, a prefix also has the state at its end, which each of its sharers begins with.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection

from rotary_batch.core import Request
from rotary_batch.engine.delta.states import SequenceState, StateArena
from rotary_batch.engine.kvcache.arena import KvArena, RangeSize

MIN_TOKENS = 24  # shorter prefixes cost more bookkeeping than they save
MAX_DETECTED = 8
NUM_RECENT = 16  # prompts that a new one is compared with


class Prefix:
    """One stored prefix and the number of sequences and longer prefixes that use it.

    One of its sequences at a time makes it.  What that one left, when it is gone too early, the next goes on from.
    """

    def __init__(
        self, kv: KvArena, token_ids: tuple[int, ...], state: SequenceState | None, *, is_declared: bool
    ) -> None:
        """Raises ValueError when the device has no room."""
        self._kv = kv
        self.token_ids = token_ids
        self.is_declared = is_declared
        self.kv_start = kv.allocate(len(token_ids), on_device=True)
        self.state = state  # at its end, once all of it is cached; or where its last maker stopped
        self.num_cached = 0  # tokens that are in its range
        self.ref_count = 0
        self.has_maker = False
        self.base: Prefix | None = None  # what it begins with, until it has passed its end
        self.makes_base = False  # whether the base, which nobody else makes, is copied from it

    @property
    def num_tokens(self) -> int:
        """Its length."""
        return len(self.token_ids)

    @property
    def is_complete(self) -> bool:
        """Whether all of it is cached."""
        return self.num_cached >= self.num_tokens

    def begin_with(self, base: Prefix) -> None:
        """It begins with `base`, and waits for it until that is complete or nobody makes it."""
        self.base = base
        base.ref_count += 1

    def settle_base(self, num_cached: int, state: SequenceState | None) -> int | None:
        """Begin with what the base has, if that is more than the `num_cached` tokens that its maker has.

        The number of cached tokens, whose state then is `state`; None while another one makes the base.
        """
        base = self.base
        if base is None or self.makes_base:
            return num_cached
        if base.has_maker and not base.is_complete:
            return None
        if base.num_cached > num_cached:
            num_cached = base.num_cached
            self._kv.copy(base.kv_start, self.kv_start, num_cached)
            self.num_cached = max(self.num_cached, num_cached)
            if state and base.state:
                state.copy_from(base.state)
        if base.is_complete:
            self._leave_base(base)
        else:
            self.makes_base = base.has_maker = True
        return num_cached

    def note_cached(self, num_cached: int, state: SequenceState | None) -> None:
        """Its maker has cached `num_cached` tokens of its prompt, which made `state`.

        At the end of the prefix, and at the end of its base, the state is copied for those who share it.
        """
        self.num_cached = max(self.num_cached, min(num_cached, self.num_tokens))
        if state and self.state and num_cached == self.num_tokens:
            self.state.copy_from(state)
        base = self.base
        if base is not None and num_cached >= base.num_tokens:
            if self.makes_base:
                self._kv.copy(self.kv_start, base.kv_start, base.num_tokens)
                base.note_cached(num_cached, state)
            self._leave_base(base)

    def _leave_base(self, base: Prefix) -> None:
        base.ref_count -= 1
        self.base, self.makes_base = None, False

    def next_copied_state(self, num_cached: int) -> int:
        """How many more tokens its maker may compute before a state has to be copied."""
        ends = [self.num_tokens, *([self.base.num_tokens] if self.base else [])]
        return min(end - num_cached for end in ends if end > num_cached)

    def leave(self, num_cached: int, state: SequenceState | None) -> None:
        """Its maker is gone, and leaves `num_cached` tokens and their state."""
        self.has_maker = False
        self.num_cached = num_cached
        if state and self.state:
            self.state.copy_from(state)
        if self.base is not None and self.makes_base:
            self.makes_base = self.base.has_maker = False


class PrefixStore:
    """The prefixes of one engine."""

    def __init__(self, kv: KvArena, states: StateArena | None = None) -> None:
        self._kv = kv
        self._states = states
        self._prefixes: list[Prefix] = []  # least recently used first
        self._recent: deque[tuple[int, ...]] = deque(maxlen=NUM_RECENT)

    def declared_tokens(self, request: Request) -> int:
        """How many tokens its declared prefix has; 0 where it has none, or the engine could never hold one."""
        count = min(request.shared_tokens, len(request.prompt_ids) - 1)
        has_room = count <= self._kv.device_tokens and (self._states is None or self._states.num_states > 1)
        return count if count >= MIN_TOKENS and has_room else 0

    def find(self, prompt_ids: tuple[int, ...], *, without: Collection[Prefix] = ()) -> Prefix | None:
        """The longest stored prefix of a prompt, except `without`; it leaves at least one token of the prompt."""
        matching = [one for one in self._prefixes if _is_prefix(one.token_ids, prompt_ids) and one not in without]
        return max(matching, key=lambda prefix: prefix.num_tokens, default=None)

    def declare(self, token_ids: tuple[int, ...]) -> Prefix:
        """A new prefix, which begins with the longest stored one.  Raises ValueError when there is no room."""
        prefix = self._add(token_ids, is_declared=True)
        self._recent.append(token_ids)
        return prefix

    def find_base(self, prefix: Prefix) -> None:
        """Let a new prefix begin with a stored one, or with what it has in common with a recent prompt."""
        others = [one for one in self._recent if one is not prefix.token_ids]
        base = self.find(prefix.token_ids) or self._detect(prefix.token_ids, others)
        if base is not None:
            self._note_used(base)
            prefix.begin_with(base)

    def detect(self, prompt_ids: tuple[int, ...]) -> Prefix | None:
        """A new prefix if a recent prompt began the same way, and there is room."""
        found = self._detect(prompt_ids, self._recent)
        self._recent.append(prompt_ids)
        return found

    def _detect(self, prompt_ids: tuple[int, ...], others: Collection[tuple[int, ...]]) -> Prefix | None:
        length = max((_common_tokens(prompt_ids, other) for other in others), default=0)
        length = min(length, len(prompt_ids) - 1)
        if length < MIN_TOKENS:
            return None
        detected = [prefix for prefix in self._prefixes if not prefix.is_declared]
        if len(detected) >= MAX_DETECTED:
            unused = [prefix for prefix in detected if prefix.ref_count == 0]
            if not unused:
                return None
            self.evict(unused[0])
        has_state = self._states is None or self._states.num_free > 0
        if not has_state or not self._kv.has_room([RangeSize(length, on_device=True)]):
            return None
        return self._add(prompt_ids[:length], is_declared=False)

    def _add(self, token_ids: tuple[int, ...], *, is_declared: bool) -> Prefix:
        state = self._states.allocate() if self._states else None
        prefix = Prefix(self._kv, token_ids, state, is_declared=is_declared)
        self._prefixes.append(prefix)
        return prefix

    def acquire(self, prefix: Prefix) -> None:
        """Count a user more."""
        prefix.ref_count += 1
        self._note_used(prefix)

    def _note_used(self, prefix: Prefix) -> None:
        self._prefixes.remove(prefix)
        self._prefixes.append(prefix)

    def release(self, prefix: Prefix) -> None:
        """Count a user less.  A complete prefix stays for later prompts; an incomplete one without users is freed."""
        prefix.ref_count -= 1
        if prefix.ref_count == 0 and not prefix.is_complete:
            self.evict(prefix)

    def unused(self) -> list[Prefix]:
        """Prefixes that nobody uses, in the order in which to evict them: declared first, least recently used first."""
        unused = [prefix for prefix in self._prefixes if prefix.ref_count == 0]
        return sorted(unused, key=lambda prefix: not prefix.is_declared)

    def evict(self, prefix: Prefix) -> None:
        """Free a prefix that nobody uses."""
        self._prefixes.remove(prefix)
        self._kv.free(prefix.kv_start, prefix.num_tokens)
        if prefix.state is not None:
            prefix.state.free()
        if prefix.base is not None:
            self.release(prefix.base)


def _is_prefix(token_ids: tuple[int, ...], prompt_ids: tuple[int, ...]) -> bool:
    """Whether a prompt goes on after these tokens; the last one is compared first, as most prefixes differ there."""
    length = len(token_ids)
    return length < len(prompt_ids) and prompt_ids[length - 1] == token_ids[-1] and prompt_ids[:length] == token_ids


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
