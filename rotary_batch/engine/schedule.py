"""Who joins the next revolution: every decode row, and prompt spans up to a budget of tokens.

Knows sequences and counts; knows nothing of tensors.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from rotary_batch.core import Completion, NewTokens, Request


@dataclass(slots=True)
class Sequence:
    """One live request: its tokens so far, how many of them the KV arena holds."""

    request: Request
    kv_start: int
    kv_tokens: int  # the size of its range
    token_ids: list[int]  # prompt and generated
    logprob_sum: float
    num_cached: int = 0
    fresh: list[int] = field(default_factory=list)  # generated in this revolution

    @property
    def num_pending(self) -> int:
        """Tokens that have to pass the layers before the next one can be chosen."""
        return len(self.token_ids) - self.num_cached

    @property
    def num_generated(self) -> int:
        """Generated tokens, those of earlier runs included."""
        return len(self.token_ids) - len(self.request.prompt_ids)

    def accept(self, token_id: int, logprob: float, stop_ids: frozenset[int]) -> Completion | None:
        """Take the chosen token; the completion when it is the last."""
        self.logprob_sum += logprob
        if token_id in stop_ids:
            return self._complete("stop")
        self.token_ids.append(token_id)
        self.fresh.append(token_id)
        return self._complete("length") if self.num_generated >= self.request.max_new_tokens else None

    def _complete(self, reason: str) -> Completion:
        generated = tuple(self.token_ids[len(self.request.prompt_ids) :])
        return Completion(
            request_id=self.request.request_id,
            token_ids=generated,
            logprob_sum=self.logprob_sum,
            num_scored=len(generated) + (reason == "stop"),
            reason="stop" if reason == "stop" else "length",
        )

    def take_fresh(self) -> NewTokens | None:
        """What this revolution added, once."""
        fresh, self.fresh = tuple(self.fresh), []
        if not fresh:
            return None
        return NewTokens(request_id=self.request.request_id, token_ids=fresh, logprob_sum=self.logprob_sum)


@dataclass(frozen=True, slots=True)
class Span:
    """The tokens of one sequence that join one revolution."""

    sequence: Sequence
    num_tokens: int

    @property
    def is_last(self) -> bool:
        """Whether the next token can be chosen after it."""
        return self.num_tokens == self.sequence.num_pending

    @property
    def is_decode(self) -> bool:
        """Whether it is the one token chosen in the revolution before."""
        return self.sequence.num_pending == 1 and self.sequence.num_cached >= len(self.sequence.request.prompt_ids)


def plan_revolution(live: Iterable[Sequence], prefill_budget_tokens: int, span_tokens: int | None) -> list[Span]:
    """All decode rows, then prompts in the order of admission, at most `span_tokens` of one sequence."""
    sequences = list(live)
    spans = [span for sequence in sequences if (span := Span(sequence, 1)).is_decode]
    left = prefill_budget_tokens
    for sequence in sequences:
        if left <= 0:
            break
        if not Span(sequence, 1).is_decode:
            count = min(sequence.num_pending, left, span_tokens or left)
            spans.append(Span(sequence, count))
            left -= count
    return spans
