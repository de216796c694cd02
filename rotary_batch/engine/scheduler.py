"""Which requests are live, and which of their tokens join the next step.

Every decode token joins, and prompt tokens up to a limit, in the order of admission.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from collections.abc import Sequence as Seq
from dataclasses import dataclass

from rotary_batch.core import Request
from rotary_batch.engine.attention.base import QuerySegment
from rotary_batch.engine.delta.base import StateSegment
from rotary_batch.engine.delta.states import StateArena
from rotary_batch.engine.kvcache.arena import KvArena, RangeSize
from rotary_batch.engine.kvcache.prefix import Prefix, PrefixStore
from rotary_batch.engine.sequence import Sequence
from rotary_batch.errors import PromptError


@dataclass(frozen=True, slots=True)
class ScheduledTokens:
    """The tokens of one sequence that join a step, and drafts of what may follow them."""

    sequence: Sequence
    num_tokens: int
    drafts: tuple[int, ...] = ()

    @property
    def is_last(self) -> bool:
        """Whether the next token can be chosen after them."""
        return self.num_tokens == self.sequence.num_pending

    @property
    def num_rows(self) -> int:
        """Rows of the batch, drafts included."""
        return self.num_tokens + len(self.drafts)

    def token_ids(self) -> list[int]:
        """The ids of its rows."""
        sequence = self.sequence
        return [*sequence.token_ids[sequence.num_cached : sequence.num_cached + self.num_tokens], *self.drafts]

    def segments(self, first_row: int) -> Iterator[QuerySegment]:
        """Where the KV cache of its rows is; split where a prefix that the sequence makes meets its own range."""
        sequence, prefix = self.sequence, self.sequence.prefix
        begin, end = sequence.num_cached, sequence.num_cached + self.num_rows
        if prefix is None:
            yield QuerySegment(first_row, self.num_rows, begin, sequence.kv_start)
            return
        border = min(max(begin, prefix.num_tokens), end)
        if begin < border:
            yield QuerySegment(first_row, border - begin, begin, prefix.kv_start)
        if border < end:
            first_row += border - begin
            yield QuerySegment(first_row, end - border, border, sequence.kv_start, prefix.kv_start, prefix.num_tokens)

    def state_segment(self, first_row: int) -> StateSegment:
        """Which state its rows advance, where layers have states."""
        assert self.sequence.state is not None
        return StateSegment(first_row, self.num_rows, self.sequence.state.index)


class Scheduler:
    """The live sequences of one engine, their ranges of the KV cache, and their states where layers have any."""

    def __init__(
        self,
        kv: KvArena,
        *,
        context_tokens: int,
        vocab_size: int,
        share_prefixes: bool,
        states: StateArena | None = None,
    ) -> None:
        self._kv = kv
        self._states = states
        self._vocab_size = vocab_size
        self._prefixes = PrefixStore(kv, states) if share_prefixes else None
        self.max_tokens = min(context_tokens, kv.max_range_tokens)  # of one sequence
        self.live: list[Sequence] = []

    def has_room(self, request: Request) -> bool:
        """Whether the request would get KV cache now; `admit` evicts prefixes that no sequence uses for it."""
        return self._evictions_for(request, self._prefixes) is not None

    def admit(self, request: Request, *, share_prefix: bool = True) -> Sequence:
        """Reserve KV cache for a request; without `share_prefix` it neither uses nor makes a prefix.

        Raises PromptError when it can never fit or asks for no new token, ValueError when there is no room now.
        """
        self._require_possible(request)
        shared = self._prefixes if share_prefix else None
        evicted = self._evictions_for(request, shared)
        if evicted is None:
            raise ValueError(f"request {request.request_id}: no room now")
        for prefix in evicted:
            assert self._prefixes is not None
            self._prefixes.evict(prefix)
        sequence = self._place(request, shared)
        self.live.append(sequence)
        return sequence

    def _require_possible(self, request: Request) -> None:
        if kv_tokens(request) > self.max_tokens or not request.prompt_ids:
            raise PromptError(
                f"request {request.request_id}: {len(request.prompt_ids)} prompt tokens and {request.max_new_tokens} "
                f"new ones; the model and its KV memory hold {self.max_tokens}"
            )
        if min(request.prompt_ids) < 0 or max(request.prompt_ids) >= self._vocab_size:
            raise PromptError(
                f"request {request.request_id}: has token ids outside the vocabulary of {self._vocab_size}"
            )
        if len(request.generated_ids) >= request.max_new_tokens:
            raise PromptError(f"request {request.request_id}: no new token is left of {request.max_new_tokens}")

    def _evictions_for(self, request: Request, shared: PrefixStore | None) -> list[Prefix] | None:
        """Which prefixes to evict, those to be evicted first, so that the request fits; None when it does not.

        The one that it shares goes last, with all others.
        """
        unused = self._prefixes.unused() if self._prefixes else []
        found = shared.find(request.prompt_ids) if shared else None
        wanted = self._wanted_ranges(request, shared, found)
        others = [prefix for prefix in unused if prefix is not found]
        for count in range(len(others) + 1):
            if self._fits(wanted, others[:count]):
                return others[:count]
        if shared is None or len(others) == len(unused):
            return None
        rest = shared.find(request.prompt_ids, without=unused)
        return unused if self._fits(self._wanted_ranges(request, shared, rest), unused) else None

    def _wanted_ranges(self, request: Request, shared: PrefixStore | None, found: Prefix | None) -> list[RangeSize]:
        """What to allocate for a request whose longest stored prefix is `found`: a new prefix, its own range."""
        stored = found.num_tokens if found else 0
        declared = shared.declared_tokens(request) if shared else 0
        if declared > stored:
            return [RangeSize(declared, on_device=True), RangeSize(kv_tokens(request) - declared)]
        return [RangeSize(kv_tokens(request) - stored)]

    def _fits(self, wanted: Seq[RangeSize], evicted: Collection[Prefix]) -> bool:
        """Whether there is a range, and where layers have any a state, for each of `wanted`."""
        if self._states is not None and self._states.num_free + len(evicted) < len(wanted):
            return False
        missing = sum(one.num_tokens for one in wanted) - sum(one.num_tokens for one in evicted)
        return missing <= self._kv.free_tokens and self._kv.has_room(
            wanted, freed=[(one.kv_start, one.num_tokens) for one in evicted]
        )

    def _place(self, request: Request, shared: PrefixStore | None) -> Sequence:
        """Reserve what the request needs beyond the prefix that it shares."""
        prompt_ids = request.prompt_ids
        prefix = shared.find(prompt_ids) if shared else None
        ranges = self._wanted_ranges(request, shared, prefix)
        is_new = len(ranges) > 1
        if shared and is_new:
            prefix = shared.declare(prompt_ids[: ranges[0].num_tokens])
        own_tokens = ranges[-1].num_tokens
        start = self._kv.allocate(own_tokens)
        state = self._states.allocate() if self._states else None
        tokens = [*prompt_ids, *request.generated_ids]
        sequence = Sequence(request, start, own_tokens, tokens, request.logprob_sum, state)
        if shared is None:
            return sequence
        if prefix is None and (prefix := shared.detect(prompt_ids)):  # the beginning moves to a range of its own
            is_new = True
            sequence.kv_tokens -= prefix.num_tokens
            self._kv.free(start + sequence.kv_tokens, prefix.num_tokens)
        if prefix is not None:
            self._share(sequence, prefix, shared, is_new=is_new)
        return sequence

    def _share(self, sequence: Sequence, prefix: Prefix, shared: PrefixStore, *, is_new: bool) -> None:
        sequence.prefix = prefix
        shared.acquire(prefix)
        if is_new:
            sequence.make_prefix()
            if prefix.is_declared:
                shared.find_base(prefix)

    def schedule_step(
        self, *, max_prefill_tokens: int, span_tokens: int | None = None, draft_tokens: int = 0
    ) -> list[ScheduledTokens]:
        """All decode tokens, each with up to `draft_tokens` drafts, then prompt tokens up to `max_prefill_tokens`.

        At most `span_tokens` prompt tokens are of one sequence; None = no such limit.  Where layers have states there
        must be no drafts: a state that has read a wrong one cannot be rolled back.
        """
        decode = [
            ScheduledTokens(one, 1, one.lookup.draft(one.token_ids, min(draft_tokens, one.num_left - 1)))
            if draft_tokens
            else ScheduledTokens(one, 1)
            for one in self.live
            if one.is_decoding
        ]
        return [*decode, *self._schedule_prefill(max_prefill_tokens, span_tokens)]

    def _schedule_prefill(self, max_tokens: int, span_tokens: int | None) -> Iterator[ScheduledTokens]:
        """A sequence waits while another one computes the prefix that it shares.

        Where layers have states, a step ends where a prefix does, and its sharers begin in the next one: the state at
        its end is copied between steps.
        """
        completed: list[Prefix] = []  # at the end of this step
        for sequence in [one for one in self.live if not one.is_decoding]:
            if max_tokens <= 0:
                return
            if not sequence.is_ready(completed):
                continue
            sequence.skip_shared_prefix()
            count = min(sequence.num_pending, max_tokens, span_tokens or max_tokens)
            if self._states:
                count = min(count, sequence.next_copied_state)
            yield ScheduledTokens(sequence, count)
            max_tokens -= count
            prefix = sequence.prefix if sequence.makes_prefix and not self._states else None
            if prefix and sequence.num_cached + count >= prefix.num_tokens:
                completed.append(prefix)

    def retire(self, request_ids: Collection[int]) -> None:
        """Free what sequences reserved; a complete prefix stays for prompts to come."""
        for sequence in [one for one in self.live if one.request.request_id in request_ids]:
            self._kv.free(sequence.kv_start, sequence.kv_tokens)
            self.live.remove(sequence)
            sequence.leave_prefix()
            if sequence.prefix is not None and self._prefixes is not None:
                self._prefixes.release(sequence.prefix)
            if sequence.state is not None:
                sequence.state.free()


def kv_tokens(request: Request) -> int:
    """Tokens of KV cache that a request needs: the last new token is chosen, never cached."""
    return len(request.prompt_ids) + request.max_new_tokens - 1
