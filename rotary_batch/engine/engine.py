"""The rotary engine: admits requests, and at each step takes every live sequence through one revolution.

Knows how a step goes together, and who is live; what a step consists of is in the modules below.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from collections.abc import Sequence as Seq

import torch

from rotary_batch.core import Completion, Failure, Request, StepReport
from rotary_batch.engine.attention.base import QuerySegment
from rotary_batch.engine.decoder import Mixtral
from rotary_batch.engine.kvcache.arena import KvArena
from rotary_batch.engine.kvcache.prefix import Prefix, PrefixStore
from rotary_batch.engine.offload.source import ExpertSource
from rotary_batch.engine.offload.tiers import Tier
from rotary_batch.engine.runtime.memory import trim_malloc
from rotary_batch.engine.runtime.trace import Trace
from rotary_batch.engine.sampling import Choice, choose
from rotary_batch.engine.scheduler import Sequence, Span, schedule_step
from rotary_batch.errors import PromptError
from rotary_batch.model.footprint import Footprint
from rotary_batch.model.manifest import Manifest
from rotary_batch.model.memory_plan import MIN_PREFILL_TOKENS
from rotary_batch.model.rates import Rates
from rotary_batch.model.roofline import MemoryPlan, bound, drafts_at_most


class RotaryEngine:
    """Implements `core.Engine`.  One thread uses it; the rotors are its only others."""

    def __init__(  # noqa: PLR0913 - the parts of an engine, put together in opening.py
        self,
        *,
        manifest: Manifest,
        decoder: Mixtral,
        experts: ExpertSource,
        tier: Tier,
        kv: KvArena,
        trace: Trace,
        stop_ids: frozenset[int],
        pieces: Mapping[int, str],
        budget: MemoryPlan,
        footprint: Footprint,
        rates: Rates | None,
        span_tokens: int | None,
        share_prefixes: bool,
    ) -> None:
        self.manifest = manifest
        self.trace = trace
        self._decoder = decoder
        self._experts = experts
        self._tier = tier
        self._kv = kv
        self.stop_ids = stop_ids
        self._pieces = pieces
        self.budget = budget
        self.footprint = footprint
        self._rates = rates
        self._span_tokens = span_tokens
        self._prefixes = PrefixStore(kv) if share_prefixes else None
        self._live: list[Sequence] = []

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self._kv.device

    @property
    def tier_name(self) -> str:
        """Where experts come from, and how."""
        return self._tier.name if self.budget.num_slots else "all resident"

    @property
    def kv_nbytes(self) -> int:
        """Device memory of keys and values."""
        return self._kv.nbytes

    @property
    def rates(self) -> Rates | None:
        """What its bound is computed from."""
        return self._rates

    def use_rates(self, rates: Rates) -> None:
        """Compute the bound from these."""
        self._rates = rates

    def num_fitting(self, kv_tokens: int) -> int:
        """How many sequences of so many tokens fit when nothing else is live."""
        return self._kv.num_ranges(kv_tokens)

    @property
    def numerics_mode(self) -> str:
        """exact or fast."""
        return self._decoder.numerics.mode

    @property
    def num_live(self) -> int:
        """How many admitted sequences are unfinished."""
        return len(self._live)

    def has_room(self, request: Request) -> bool:
        """Answer whether `admit` would take the request now, or refuse it for ever."""
        if _kv_tokens(request) > self._limit_tokens:
            return True  # else it would wait, and all that is behind it
        if len(self._live) >= self.budget.batch:
            return False
        need = _kv_tokens(request) - self._shared_tokens(request)
        while not self._kv.has_room(need):
            if self._prefixes is None or not self._prefixes.evict_one():
                return False
            need = _kv_tokens(request) - self._shared_tokens(request)
        return True

    @property
    def _limit_tokens(self) -> int:
        return min(self.manifest.context_tokens, self._kv.max_range_tokens)

    def _shared_tokens(self, request: Request) -> int:
        prefix = self._prefixes.find(request.prompt_ids) if self._prefixes else None
        return prefix.num_tokens if prefix else 0

    def admit(self, request: Request) -> None:
        """Take a request.

        Raises PromptError when it can never fit or asks for no new token, ValueError when there is no room now.
        """
        need = _kv_tokens(request)
        limit = self._limit_tokens
        if need > limit or not request.prompt_ids:
            raise PromptError(
                f"request {request.request_id}: {len(request.prompt_ids)} prompt tokens and {request.max_new_tokens} "
                f"new ones; the model and its KV memory hold {limit}"
            )
        vocabulary = self.manifest.geometry.vocab_size
        if min(request.prompt_ids) < 0 or max(request.prompt_ids) >= vocabulary:
            raise PromptError(f"request {request.request_id}: has token ids outside the vocabulary of {vocabulary}")
        if len(request.generated_ids) >= request.max_new_tokens:
            raise PromptError(f"request {request.request_id}: no new token is left of {request.max_new_tokens}")
        self._live.append(self._place(request))

    def _place(self, request: Request) -> Sequence:
        """Reserve what the request needs beyond the prefix that it shares."""
        tokens = [*request.prompt_ids, *request.generated_ids]
        prefix = self._prefixes.find(request.prompt_ids) if self._prefixes else None
        own = _kv_tokens(request) - (prefix.num_tokens if prefix else 0)
        start = self._kv.allocate(own)
        sequence = Sequence(request, start, own, tokens, request.logprob_sum)
        if self._prefixes is None:
            return sequence
        sequence.prefix = self._prefixes.acquire(request.prompt_ids)
        if prefix is None and sequence.prefix is not None:  # found just now: the beginning moves to a range of its own
            sequence.makes_prefix = True
            sequence.kv_tokens = own - sequence.prefix.num_tokens
            self._kv.free(start + sequence.kv_tokens, sequence.prefix.num_tokens)
        return sequence

    def skip_prompts(self) -> bool:
        """Count all prompts as read but for their last tokens, whatever the arena holds; answer whether any was left.

        For measurements of decoding alone, where what keys hold does not matter.
        """
        left = [(sequence, len(sequence.request.prompt_ids) - 1 - sequence.num_cached) for sequence in self._live]
        for sequence, count in left:
            _note_cached(sequence, max(0, count))
        return any(count > 0 for _, count in left)

    @torch.inference_mode()
    def step(self) -> StepReport:
        """Run one revolution; with nothing live, do nothing."""
        start_s = time.perf_counter()
        spans = schedule_step(self._live, self.budget.prefill_tokens, self._span_tokens, self._num_drafts())
        if not spans:
            return StepReport(counters=self.trace.totals())
        try:
            choices = self._next_choices(spans)
        except torch.OutOfMemoryError:
            choices = None
        if choices is None:  # here, because within `except` the traceback keeps the tensors of the revolution
            return self._shrink(spans)
        prefill = [span for span in spans if not span.is_decode]
        resumed = sum(span.num_tokens for span in prefill if span.sequence.request.generated_ids)
        num_prefill = sum(span.num_tokens for span in prefill)
        if prefill and self.device.type == "cpu":
            trim_malloc()
        bound_s = self._bound_s(spans)
        completions, failures = self._accept_all(choices, spans)
        new_tokens = [new for span in spans if (new := span.sequence.take_fresh())]
        self._retire({done.request_id for done in completions} | {lost.request_id for lost in failures})
        return StepReport(
            new_tokens=tuple(new_tokens),
            completions=tuple(completions),
            failures=tuple(failures),
            prefill_tokens=num_prefill,
            reprefill_tokens=resumed,
            decode_tokens=sum(len(new.token_ids) for new in new_tokens),
            step_s=time.perf_counter() - start_s,
            bound_s=bound_s,
            counters=self.trace.totals(),
            tier=self.tier_name,
        )

    def _num_drafts(self) -> int:
        """Draft tokens of each sequence: as planned, unless they would make a sweep of few rows."""
        geometry, most = self.manifest.geometry, self.budget.draft_tokens
        if not self.budget.num_slots:
            return most
        return drafts_at_most(most, len(self._live), geometry.num_experts, geometry.top_k)

    def _bound_s(self, spans: Seq[Span]) -> float:
        """The least that this revolution could have taken; asked before its tokens are counted as cached."""
        if self._rates is None:
            return 0.0
        decoding = [span.sequence.num_cached for span in spans if span.is_decode]
        prefill = sum(span.num_rows for span in spans) - len(decoding)
        context = sum(decoding) / max(1, len(decoding))
        return bound(self.footprint, self.budget, self._rates, len(decoding), prefill, context).revolution_s

    def _shrink(self, spans: Seq[Span]) -> StepReport:
        """Device memory ran out in mid-revolution: nothing is lost, so go on with fewer rows.

        First with half the prompt tokens a revolution, then with half the sequences; the others fail and are retried.
        """
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if any(not span.is_decode for span in spans) and self.budget.prefill_tokens > MIN_PREFILL_TOKENS:
            self.budget = self.budget._replace(prefill_tokens=self.budget.prefill_tokens // 2)
            return self.step()
        kept = len(self._live) // 2
        self.budget = self.budget._replace(batch=max(1, kept))
        error = f"out of device memory with {len(self._live)} live sequences"
        lost = [Failure(request_id=s.request.request_id, error=error, retry=kept > 0) for s in self._live[kept:]]
        self._retire({failure.request_id for failure in lost})
        return StepReport(failures=tuple(lost), counters=self.trace.totals(), tier=self.tier_name)

    def _revolve(self, spans: Seq[Span]) -> tuple[torch.Tensor, list[int]]:
        """Final hidden states of all rows, and the first row of each span."""
        rows: list[QuerySegment] = []
        first_rows: list[int] = []
        token_ids: list[int] = []
        for span in spans:
            first_rows.append(len(token_ids))
            rows += span.rows(len(token_ids))
            token_ids += span.token_ids()
        ids = torch.tensor(token_ids, dtype=torch.int64).to(self._kv.device)
        with self._decoder.numerics.threads_for(len(ids) * self.manifest.geometry.hidden_size):
            return self._decoder.forward(ids, rows, self._kv), first_rows

    def _next_choices(self, spans: Seq[Span]) -> list[Choice]:
        """What comes after each span that ends, and after each of its drafts."""
        hidden, first_rows = self._revolve(spans)
        last = [
            first + span.num_tokens - 1 + n
            for span, first in zip(spans, first_rows, strict=True)
            if span.is_last
            for n in range(1 + len(span.drafts))
        ]
        rows = torch.tensor(last, dtype=torch.int64).to(hidden.device)
        return choose(hidden[rows], self._decoder.logits)

    def _accept_all(self, found: Seq[Choice], spans: Seq[Span]) -> tuple[list[Completion], list[Failure]]:
        """Take the token after each span that ends, and after each of its drafts that turned out right."""
        choices = iter(found)
        completions: list[Completion] = []
        failures: list[Failure] = []
        for span in spans:
            is_last = span.is_last
            _note_cached(span.sequence, span.num_tokens)
            ended = self._accept(span, [next(choices) for _ in range(1 + len(span.drafts))] if is_last else [])
            if isinstance(ended, Completion):
                completions.append(ended)
            elif ended is not None:
                failures.append(ended)
        return completions, failures

    def _accept(self, span: Span, choices: Seq[Choice]) -> Completion | Failure | None:
        """Take chosen tokens as long as the drafts before them were right."""
        sequence, accepted, ended = span.sequence, 0, None
        for n, choice in enumerate(choices):
            if choice.token_id is None:
                return _not_finite(sequence)
            ended = sequence.accept(choice.token_id, choice.logprob, self.stop_ids, self._pieces)
            if ended or n == len(span.drafts) or choice.token_id != span.drafts[n]:
                break
            _note_cached(sequence, 1)
            accepted += 1
        if span.drafts:
            sequence.lookup.note_accepted(accepted)
            self.trace.add("drafted_tokens", len(span.drafts))
            self.trace.add("accepted_tokens", accepted)
        return ended

    def _retire(self, request_ids: set[int]) -> None:
        for sequence in [s for s in self._live if s.request.request_id in request_ids]:
            self._kv.free(sequence.kv_start, sequence.kv_tokens)
            self._live.remove(sequence)
            if sequence.prefix is not None and self._prefixes is not None:
                self._prefixes.release(sequence.prefix)
                if sequence.makes_prefix:
                    self._transfer(sequence.prefix)

    def _transfer(self, prefix: Prefix) -> None:
        """A sequence that waits for an unfinished prefix whose maker is gone makes it now."""
        heir = next((sequence for sequence in self._live if sequence.prefix is prefix), None)
        if heir is not None and prefix.num_cached < prefix.num_tokens:
            heir.makes_prefix, heir.num_cached = True, prefix.num_cached

    def generate(self, prompts: Seq[Seq[int]], max_new_tokens: int) -> list[list[int]]:
        """Greedy continuations of prompts, in their order, prompt and stop token not included.

        Raises PromptError for one that does not fit; nothing of the others is left live then.
        """
        requests = [
            Request(request_id=place, prompt_ids=tuple(ids), max_new_tokens=max_new_tokens)
            for place, ids in enumerate(prompts)
        ]
        try:
            found = self._run_all(requests)
        finally:
            self._retire({request.request_id for request in requests})
        return [found[place] for place in range(len(prompts))]

    def _run_all(self, requests: Seq[Request]) -> dict[int, list[int]]:
        """The new tokens of requests that are numbered by their places."""
        waiting, found = list(requests), dict[int, list[int]]()
        while waiting or self.num_live:
            while waiting and (self.has_room(waiting[0]) or not self.num_live):
                self.admit(waiting.pop(0))
            report = self.step()
            for failure in report.failures:
                if not failure.retry:
                    raise PromptError(f"prompt {failure.request_id}: {failure.error}")
                waiting.append(requests[failure.request_id])
            found |= {done.request_id: list(done.token_ids) for done in report.completions}
        return found

    @torch.inference_mode()
    def logits(self, token_ids: Seq[int]) -> torch.Tensor:
        """float32 logits [tokens, vocabulary] of one sequence, prefilled in spans as `step` does.

        Raises PromptError when it cannot fit, ValueError when there is no room now.
        """
        request = Request(request_id=-1, prompt_ids=tuple(token_ids), max_new_tokens=1)
        if (need := _kv_tokens(request)) <= self._limit_tokens:
            while not self._kv.has_room(need) and self._prefixes and self._prefixes.evict_one():
                pass
        stored, self._prefixes = self._prefixes, None  # every position is wanted, so nothing may be shared
        try:
            self.admit(request)
            sequence, parts = self._live[-1], []
            while sequence.num_pending:
                count = min(sequence.num_pending, self._span_tokens or self.budget.prefill_tokens)
                hidden, _ = self._revolve([Span(sequence, count)])
                _note_cached(sequence, count)
                parts.append(self._decoder.logits(hidden))
        finally:
            self._retire({-1})
            self._prefixes = stored
        return torch.cat(parts)

    def close(self) -> None:
        """Stop the rotor, free the memory; idempotent."""
        self._live.clear()
        self._experts.close()
        self._tier.close()
        self._kv.close()


def _note_cached(sequence: Sequence, count: int) -> None:
    """So many more of its tokens are in the arena."""
    sequence.num_cached += count
    prefix = sequence.prefix
    if prefix is not None and sequence.makes_prefix:
        prefix.num_cached = max(prefix.num_cached, min(sequence.num_cached, prefix.num_tokens))


def _kv_tokens(request: Request) -> int:
    """The last new token is chosen, never cached."""
    return len(request.prompt_ids) + request.max_new_tokens - 1


def _not_finite(sequence: Sequence) -> Failure:
    at = len(sequence.token_ids)
    return Failure(request_id=sequence.request.request_id, error=f"logits are not finite at token {at}", retry=False)
