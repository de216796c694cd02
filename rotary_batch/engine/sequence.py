"""One live request: its tokens, and how many of them are in the KV cache."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from rotary_batch.core import Completion, NewTokens, Reason, Request
from rotary_batch.engine.delta.states import SequenceState
from rotary_batch.engine.drafting import PromptLookup
from rotary_batch.engine.kvcache.prefix import Prefix
from rotary_batch.engine.stopping import end_of
from rotary_batch.model.answers import AnswerForm


@dataclass(slots=True)
class Sequence:
    """A request at work.  Its KV cache is its prefix's range, if it has a prefix, then its own range.

    Where layers have states, `state` is what its cached tokens made of them.
    """

    request: Request
    kv_start: int  # of its own range
    kv_tokens: int  # length of its own range
    token_ids: list[int]  # prompt and generated
    logprob_sum: float
    state: SequenceState | None = None
    prefix: Prefix | None = None
    makes_prefix: bool = False  # whether its own prompt tokens fill the prefix's range
    num_cached: int = 0
    new_ids: list[int] = field(default_factory=list)  # generated in this step
    lookup: PromptLookup = field(default_factory=PromptLookup)

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
        """How many more tokens it may generate."""
        return self.request.max_new_tokens - self.num_generated

    @property
    def is_decoding(self) -> bool:
        """Whether only the token chosen in the step before is left to compute."""
        return self.num_pending == 1 and self.num_cached >= len(self.request.prompt_ids)

    def note_cached(self, count: int) -> None:
        """Count `count` more of its tokens as cached, also for the prefix that it makes."""
        self.num_cached += count
        if self.prefix is not None and self.makes_prefix:
            self.prefix.note_cached(self.num_cached, self.state)

    def is_ready(self, completed: Collection[Prefix] = ()) -> bool:
        """Whether its next rows have before them, in the KV cache, what they need of others.

        `completed` prefixes are so when the rows before them in this step are computed.  It takes over what nobody
        makes, and begins with what another sequence computed.
        """
        prefix = self.prefix
        if prefix is None:
            return True
        if not prefix.is_complete and not prefix.has_maker:
            self.make_prefix()
        if self.makes_prefix:
            settled = prefix.settle_base(self.num_cached, self.state)
            self.num_cached = self.num_cached if settled is None else settled
            return settled is not None
        return prefix.is_complete or any(prefix is one for one in completed)

    def make_prefix(self) -> None:
        """Compute its prefix, from where the last one that did has stopped."""
        assert self.prefix is not None
        self.makes_prefix = self.prefix.has_maker = True
        self.num_cached = self.prefix.num_cached
        if self.state and self.prefix.state:
            self.state.copy_from(self.prefix.state)

    def leave_prefix(self) -> None:
        """Leave an unfinished prefix to others."""
        if self.prefix is not None and self.makes_prefix and not self.prefix.is_complete:
            self.prefix.leave(self.num_cached, self.state)

    def skip_shared_prefix(self) -> None:
        """Count the prefix as cached, because another sequence computed it, and begin with the state at its end."""
        prefix = self.prefix
        if prefix is not None and not self.makes_prefix and self.num_cached < prefix.num_tokens:
            self.num_cached = prefix.num_tokens
            if self.state and prefix.state:
                self.state.copy_from(prefix.state)

    @property
    def next_copied_state(self) -> int:
        """How many tokens it may compute before a state has to be copied, where layers have any."""
        prefix = self.prefix
        if prefix is None or not self.makes_prefix or prefix.is_complete:
            return self.num_pending
        return prefix.next_copied_state(self.num_cached)

    def restart(self) -> None:
        """Compute all of its tokens again, after a step that broke off: its state may hold some of that step."""
        if self.state is None:
            return
        self.num_cached = 0
        self.state.clear()
        if self.prefix is not None and self.prefix.is_complete:
            self.makes_prefix = False  # others use it: it is not written again

    def accept(self, token_id: int, logprob: float, stop_ids: frozenset[int], answers: AnswerForm) -> Completion | None:
        """Append the chosen token; the completion when it ends the sequence."""
        self.logprob_sum += logprob
        if token_id in stop_ids:
            return self._complete("stop", num_scored=self.num_generated + 1)
        self.token_ids.append(token_id)
        self.new_ids.append(token_id)
        prompt_ids = self.request.prompt_ids
        if (end := end_of(self.token_ids[len(prompt_ids) :], prompt_ids, self.request.stop, answers)) is not None:
            return self._complete(end.reason, surplus=end.surplus)
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

    def take_new_tokens(self) -> NewTokens | None:
        """What this step generated, once; None when that is nothing."""
        new_ids, self.new_ids = tuple(self.new_ids), []
        if not new_ids:
            return None
        return NewTokens(request_id=self.request.request_id, token_ids=new_ids, logprob_sum=self.logprob_sum)
