"""Who joins the next revolution: every decode row, and prompt spans up to a budget of tokens.

Knows sequences and counts; knows nothing of tensors.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from rotary_batch.core import Completion, NewTokens, Reason, Request
from rotary_batch.engine.attention.base import QuerySegment
from rotary_batch.engine.drafting import Lookup
from rotary_batch.engine.kvcache.prefix import Prefix
from rotary_batch.engine.stopping import loop_tokens
from rotary_batch.sentences import num_sentences


@dataclass(slots=True)
class Sequence:
    """One live request: its tokens so far, how many of them the KV arena holds."""

    request: Request
    kv_start: int
    kv_tokens: int  # the size of its own range
    token_ids: list[int]  # prompt and generated
    logprob_sum: float
    prefix: Prefix | None = None
    makes_prefix: bool = False  # whether its own prompt spans fill the prefix's range
    num_cached: int = 0
    fresh: list[int] = field(default_factory=list)  # generated in this revolution
    lookup: Lookup = field(default_factory=Lookup)

    @property
    def num_pending(self) -> int:
        """Tokens that have to pass the layers before the next one can be chosen."""
        return len(self.token_ids) - self.num_cached

    @property
    def num_generated(self) -> int:
        """Generated tokens, those of earlier runs included."""
        return len(self.token_ids) - len(self.request.prompt_ids)

    @property
    def num_left(self) -> int:
        """New tokens that it may still choose."""
        return self.request.max_new_tokens - self.num_generated

    def accept(
        self, token_id: int, logprob: float, stop_ids: frozenset[int], pieces: Mapping[int, str]
    ) -> Completion | None:
        """Take the chosen token; the completion when it is the last.  `pieces` are the texts of tokens."""
        self.logprob_sum += logprob
        if token_id in stop_ids:
            return self._complete("stop", num_scored=self.num_generated + 1)
        self.token_ids.append(token_id)
        self.fresh.append(token_id)
        guard, generated = self.request.guard, self.token_ids[len(self.request.prompt_ids) :]
        if guard.max_sentences is not None:
            text = "".join(pieces.get(token, "") for token in generated)
            if num_sentences(text) > guard.max_sentences:
                return self._complete("sentences", surplus=1)  # the word that would begin one more
        if guard.stops_loops and (surplus := loop_tokens(generated)):
            return self._complete("loop", surplus=surplus)
        return self._complete("length") if self.num_left <= 0 else None

    def _complete(self, reason: Reason, *, surplus: int = 0, num_scored: int | None = None) -> Completion:
        generated = tuple(self.token_ids[len(self.request.prompt_ids) :])
        return Completion(
            request_id=self.request.request_id,
            token_ids=generated[: len(generated) - surplus],
            logprob_sum=self.logprob_sum,
            num_scored=num_scored or len(generated),
            reason=reason,
        )

    def take_fresh(self) -> NewTokens | None:
        """What this revolution added, once."""
        fresh, self.fresh = tuple(self.fresh), []
        if not fresh:
            return None
        return NewTokens(request_id=self.request.request_id, token_ids=fresh, logprob_sum=self.logprob_sum)


@dataclass(frozen=True, slots=True)
class Span:
    """The tokens of one sequence that join one revolution, and tokens that may come after them."""

    sequence: Sequence
    num_tokens: int
    drafts: tuple[int, ...] = ()

    @property
    def is_last(self) -> bool:
        """Whether the next token can be chosen after it."""
        return self.num_tokens == self.sequence.num_pending

    @property
    def is_decode(self) -> bool:
        """Whether it is the one token chosen in the revolution before."""
        return self.sequence.num_pending == 1 and self.sequence.num_cached >= len(self.sequence.request.prompt_ids)

    @property
    def num_rows(self) -> int:
        """Rows that it takes."""
        return self.num_tokens + len(self.drafts)

    def token_ids(self) -> list[int]:
        """The ids of its rows."""
        sequence = self.sequence
        return [*sequence.token_ids[sequence.num_cached : sequence.num_cached + self.num_tokens], *self.drafts]

    def rows(self, first_row: int) -> Iterator[QuerySegment]:
        """Where its keys lie; a span that crosses from a prefix of its own making into its own range is cut there."""
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


def schedule_step(
    live: Iterable[Sequence], prefill_budget_tokens: int, span_tokens: int | None, draft_tokens: int = 0
) -> list[Span]:
    """All decode rows, then prompts in the order of admission, at most `span_tokens` of one sequence.

    A sequence waits while another one computes the prefix that it shares.
    """
    sequences = list(live)
    spans = [
        Span(sequence, 1, sequence.lookup.draft(sequence.token_ids, min(draft_tokens, sequence.num_left - 1)))
        if draft_tokens
        else span
        for sequence in sequences
        if (span := Span(sequence, 1)).is_decode
    ]
    left = prefill_budget_tokens
    made: set[int] = set()  # prefixes that are complete at the end of this revolution
    for sequence in sequences:
        if left <= 0:
            break
        if not Span(sequence, 1).is_decode and _is_ready(sequence, made):
            count = min(sequence.num_pending, left, span_tokens or left)
            spans.append(Span(sequence, count))
            left -= count
            if sequence.makes_prefix and sequence.prefix and sequence.num_cached + count >= sequence.prefix.num_tokens:
                made.add(id(sequence.prefix))
    return spans


def _is_ready(sequence: Sequence, made: set[int]) -> bool:
    """Whether its prefix will be there when its rows look at it; then its own part is all that is left to do."""
    prefix = sequence.prefix
    if prefix is None or sequence.makes_prefix:
        return True
    if prefix.num_cached < prefix.num_tokens and id(prefix) not in made:
        return False
    sequence.num_cached = max(sequence.num_cached, prefix.num_tokens)
    return True
