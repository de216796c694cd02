"""The rotary engine: admits requests, and at each step takes every live sequence through one revolution.

Knows how a step goes together; everything in it is a call to a module below.
"""

from __future__ import annotations

import time
from collections.abc import Sequence as Seq

import torch

from rotary_batch.core import Completion, Failure, Request, StepReport
from rotary_batch.engine.attention import Rows
from rotary_batch.engine.experts import ExpertSource
from rotary_batch.engine.kv import KvArena
from rotary_batch.engine.mixtral import Mixtral
from rotary_batch.engine.sampling import choose
from rotary_batch.engine.schedule import Sequence, Span, plan_revolution
from rotary_batch.engine.tiers import Tier
from rotary_batch.engine.trace import Trace
from rotary_batch.errors import PromptError
from rotary_batch.model.manifest import Manifest


class RotaryEngine:
    """Implements `core.Engine`.  One thread uses it; the rotor is its only other thread."""

    def __init__(  # noqa: PLR0913 - the parts of an engine, put together in opening.py
        self, *, manifest: Manifest, decoder: Mixtral, experts: ExpertSource, tier: Tier, kv: KvArena, trace: Trace,
        stop_ids: frozenset[int], max_batch: int, prefill_tokens: int, span_tokens: int | None,
    ) -> None:  # fmt: skip
        self.manifest = manifest
        self.trace = trace
        self.tier_name = tier.name
        self._decoder = decoder
        self._experts = experts
        self._tier = tier
        self._kv = kv
        self._stop_ids = stop_ids
        self._max_batch = max_batch
        self._prefill_tokens = prefill_tokens
        self._span_tokens = span_tokens
        self._live: list[Sequence] = []

    @property
    def num_live(self) -> int:
        """How many admitted sequences are unfinished."""
        return len(self._live)

    def has_room(self, request: Request) -> bool:
        """Answer whether `admit` would take the request now."""
        return len(self._live) < self._max_batch and self._kv.has_room(_kv_tokens(request))

    def admit(self, request: Request) -> None:
        """Take a request.  Raises PromptError when it can never fit, ValueError when there is no room now."""
        need = _kv_tokens(request)
        limit = min(self.manifest.context_tokens, self._kv.capacity_tokens)
        if need > limit or not request.prompt_ids:
            raise PromptError(
                f"request {request.request_id}: {len(request.prompt_ids)} prompt tokens and {request.max_new_tokens} "
                f"new ones; the model and its KV memory hold {limit}"
            )
        tokens = [*request.prompt_ids, *request.generated_ids]
        self._live.append(Sequence(request, self._kv.take(need), need, tokens, request.logprob_sum))

    @torch.inference_mode()
    def step(self) -> StepReport:
        """Run one revolution; with nothing live, do nothing."""
        start_s = time.perf_counter()
        spans = plan_revolution(self._live, self._prefill_tokens, self._span_tokens)
        if not spans:
            return StepReport(counters=self.trace.totals())
        hidden, rows = self._revolve(spans)
        prefill = [span for span in spans if not span.is_decode]
        resumed = sum(span.num_tokens for span in prefill if span.sequence.request.generated_ids)
        num_prefill = sum(span.num_tokens for span in prefill)
        completions, failures = self._choose(hidden, rows, spans)
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
            counters=self.trace.totals(),
        )

    def _revolve(self, spans: Seq[Span]) -> tuple[torch.Tensor, list[Rows]]:
        rows: list[Rows] = []
        token_ids: list[int] = []
        for span in spans:
            sequence = span.sequence
            rows.append(Rows(len(token_ids), span.num_tokens, sequence.num_cached, sequence.kv_start))
            token_ids += sequence.token_ids[sequence.num_cached : sequence.num_cached + span.num_tokens]
        ids = torch.tensor(token_ids, dtype=torch.int64).to(self._kv.keys.device)
        return self._decoder.revolve(ids, rows, self._kv), rows

    def _choose(
        self, hidden: torch.Tensor, rows: Seq[Rows], spans: Seq[Span]
    ) -> tuple[list[Completion], list[Failure]]:
        ending = [(span, row) for span, row in zip(spans, rows, strict=True) if span.is_last]
        last = torch.tensor([row.first_row + row.num_rows - 1 for _, row in ending], dtype=torch.int64)
        choices = choose(self._decoder.logits(hidden[last.to(hidden.device)]))
        for span in spans:
            span.sequence.num_cached += span.num_tokens
        completions, failures = [], []
        for (span, _), choice in zip(ending, choices, strict=True):
            if choice.token_id is None:
                failures.append(_not_finite(span.sequence))
            elif done := span.sequence.accept(choice.token_id, choice.logprob, self._stop_ids):
                completions.append(done)
        return completions, failures

    def _retire(self, request_ids: set[int]) -> None:
        for sequence in [s for s in self._live if s.request.request_id in request_ids]:
            self._kv.give_back(sequence.kv_start, sequence.kv_tokens)
            self._live.remove(sequence)

    def generate(self, prompts: Seq[Seq[int]], max_new_tokens: int) -> list[list[int]]:
        """Greedy continuations of prompts, in their order, prompt and stop token not included."""
        waiting = [
            Request(request_id=place, prompt_ids=tuple(ids), max_new_tokens=max_new_tokens)
            for place, ids in enumerate(prompts)
        ]
        found: dict[int, list[int]] = {}
        while waiting or self.num_live:
            while waiting and (self.has_room(waiting[0]) or not self.num_live):
                self.admit(waiting.pop(0))
            report = self.step()
            for failure in report.failures:
                raise PromptError(f"prompt {failure.request_id}: {failure.error}")
            found |= {done.request_id: list(done.token_ids) for done in report.completions}
        return [found[place] for place in range(len(prompts))]

    @torch.inference_mode()
    def logits(self, token_ids: Seq[int]) -> torch.Tensor:
        """float32 logits [tokens, vocabulary] of one sequence, prefilled in spans as `step` does."""
        request = Request(request_id=-1, prompt_ids=tuple(token_ids), max_new_tokens=1)
        self.admit(request)
        sequence, parts = self._live[-1], []
        while sequence.num_pending:
            count = min(sequence.num_pending, self._span_tokens or self._prefill_tokens)
            hidden, _ = self._revolve([Span(sequence, count)])
            sequence.num_cached += count
            parts.append(self._decoder.logits(hidden))
        self._retire({-1})
        return torch.cat(parts)

    def close(self) -> None:
        """Stop the rotor, free the memory; idempotent."""
        self._live.clear()
        self._experts.close()
        self._tier.close()


def _kv_tokens(request: Request) -> int:
    """The last new token is chosen, never cached."""
    return len(request.prompt_ids) + request.max_new_tokens - 1


def _not_finite(sequence: Sequence) -> Failure:
    at = len(sequence.token_ids)
    return Failure(request_id=sequence.request.request_id, error=f"logits are not finite at token {at}", retry=False)
