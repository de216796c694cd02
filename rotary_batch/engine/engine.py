"""The rotary engine: admits requests, and takes every live sequence through all layers at each step."""

from __future__ import annotations

import time
from collections.abc import Collection
from collections.abc import Sequence as Seq
from dataclasses import dataclass, replace

import torch

from rotary_batch.core import Completion, ErrorClass, Failure, Request, StepReport
from rotary_batch.engine.attention.base import QuerySegment
from rotary_batch.engine.decoder import Decoder
from rotary_batch.engine.delta.base import StateSegment
from rotary_batch.engine.delta.states import StateArena
from rotary_batch.engine.graphs import DecodeGraphs
from rotary_batch.engine.kvcache.arena import KvArena
from rotary_batch.engine.offload.source import ExpertSource
from rotary_batch.engine.offload.tiers import Tier
from rotary_batch.engine.runtime.memory import trim_malloc
from rotary_batch.engine.runtime.trace import Trace
from rotary_batch.engine.sampling import Choice, choose
from rotary_batch.engine.scheduler import ScheduledTokens, Scheduler, kv_tokens
from rotary_batch.engine.sequence import Sequence
from rotary_batch.errors import DeviceMemoryError, PromptError
from rotary_batch.model.answers import AnswerForm
from rotary_batch.model.engine_options import EngineOptions
from rotary_batch.model.footprint import Footprint
from rotary_batch.model.manifest import Manifest
from rotary_batch.model.memory_plan import MIN_PREFILL_TOKENS, MemoryPlan
from rotary_batch.model.rates import Rates
from rotary_batch.model.roofline import max_draft_tokens, step_roofline

REGROW_STEPS = 50  # without running out of memory, to try twice as much again; doubled when that was too early


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A pack in memory: its weights, where its experts come from, and its KV cache."""

    manifest: Manifest
    footprint: Footprint
    decoder: Decoder
    experts: ExpertSource
    tier: Tier
    kv: KvArena
    states: StateArena | None  # where layers have any
    graphs: DecodeGraphs | None  # where decode steps can be recorded
    stop_ids: frozenset[int]
    answers: AnswerForm

    def close(self) -> None:
        """Stop the prefetchers, free the memory; idempotent."""
        if self.graphs is not None:
            self.graphs.close()
        self.experts.close()
        self.tier.close()
        self.kv.close()


class RotaryEngine:
    """Implements `core.Engine`.  One thread uses it; the prefetchers are its only others."""

    def __init__(
        self, model: LoadedModel, memory_plan: MemoryPlan, rates: Rates | None, options: EngineOptions, trace: Trace
    ) -> None:
        self.model = model
        self.options = options
        self.manifest = model.manifest
        self.footprint = model.footprint
        self.memory_plan = memory_plan
        self._planned: MemoryPlan | None = None  # before device memory ran out
        self._calm_steps, self._regrow_steps, self._has_regrown = 0, REGROW_STEPS, False
        self._has_generated = False  # any token
        self.rates = rates  # of this machine; None = there is no roofline
        self.trace = trace
        self.stop_ids = model.stop_ids
        self.scheduler = Scheduler(
            model.kv,
            context_tokens=model.manifest.context_tokens,
            vocab_size=model.manifest.geometry.vocab_size,
            share_prefixes=options.share_prefixes,
            states=model.states,
        )

    @property
    def device(self) -> torch.device:
        """The device that computes."""
        return self.model.kv.device

    @property
    def tier_name(self) -> str:
        """Where experts come from, and how."""
        return self.model.tier.name if self.memory_plan.num_slots else "all resident"

    @property
    def kv_nbytes(self) -> int:
        """Device memory of the KV cache."""
        return self.model.kv.nbytes

    def use_rates(self, rates: Rates) -> None:
        """Compute the roofline from these from now on."""
        self.rates = rates

    def num_fitting(self, num_tokens: int) -> int:
        """How many sequences of `num_tokens` tokens of KV cache fit when nothing else is live."""
        ranges, states = self.model.kv.num_ranges(num_tokens), self.model.states
        return ranges if states is None else min(ranges, states.num_states)

    @property
    def numerics_mode(self) -> str:
        """exact or fast."""
        return self.model.decoder.numerics.mode

    @property
    def num_live(self) -> int:
        """How many admitted sequences are unfinished."""
        return len(self.scheduler.live)

    def has_room(self, request: Request) -> bool:
        """Whether `admit` would take the request now, or refuse it for ever."""
        if kv_tokens(request) > self.scheduler.max_tokens:
            return True  # else it would wait, and all that is behind it
        return self.num_live < self.memory_plan.batch and self.scheduler.has_room(request)

    def admit(self, request: Request) -> None:
        """Take a request.

        Raises PromptError when it can never fit or asks for no new token, ValueError when there is no room now.
        """
        self.scheduler.admit(request)

    def drop(self, request_ids: Collection[int]) -> None:
        """Forget live sequences."""
        self.scheduler.retire(request_ids)

    def skip_prompts(self) -> bool:
        """Count every prompt token but the last of each as cached, whatever the arena holds; whether any was left.

        For measurements of decoding alone, where the contents of the KV cache do not matter.
        """
        left = [(one, len(one.request.prompt_ids) - 1 - one.num_cached) for one in self.scheduler.live]
        for sequence, count in left:
            sequence.note_cached(max(0, count))
        return any(count > 0 for _, count in left)

    @torch.inference_mode()
    def step(self) -> StepReport:
        """Run one step for every live sequence; with nothing live, do nothing."""
        start_s = time.perf_counter()
        scheduled = self.scheduler.schedule_step(
            max_prefill_tokens=self.memory_plan.prefill_tokens,
            span_tokens=self.options.prefill_span,
            draft_tokens=self._num_drafts(),
        )
        if not scheduled:
            return StepReport(counters=self.trace.totals())
        try:
            choices = self._next_choices(scheduled)
        except torch.OutOfMemoryError:
            choices = None
        if choices is None:  # here, because within `except` the traceback keeps the tensors of the step
            return self._shrink(scheduled)
        self._regrow()
        prefill = [part for part in scheduled if not part.sequence.is_decoding]
        prefill_tokens = sum(part.num_tokens for part in prefill)
        reprefill_tokens = sum(part.num_tokens for part in prefill if part.sequence.request.generated_ids)
        if prefill and self.device.type == "cpu":
            trim_malloc()
        roofline_s = self._roofline_s(scheduled)  # before its tokens are counted as cached
        completions, failures = self._accept_all(choices, scheduled)
        new_tokens = [new for part in scheduled if (new := part.sequence.take_new_tokens())]
        failures = self._classed(failures, has_generated=bool(new_tokens))
        self.scheduler.retire({done.request_id for done in completions} | {lost.request_id for lost in failures})
        return StepReport(
            new_tokens=tuple(new_tokens),
            completions=tuple(completions),
            failures=tuple(failures),
            prefill_tokens=prefill_tokens,
            reprefill_tokens=reprefill_tokens,
            decode_tokens=sum(len(new.token_ids) for new in new_tokens),
            step_s=time.perf_counter() - start_s,
            roofline_s=roofline_s,
            counters=self.trace.totals(),
            tier=self.tier_name,
        )

    def _classed(self, failures: list[Failure], *, has_generated: bool) -> list[Failure]:
        """Several failures where no sequence ever got a token are not those of items."""
        self._has_generated |= has_generated
        if self._has_generated or len(failures) < 2:
            return failures
        return [replace(one, error_class=ErrorClass.BAD_MODEL) for one in failures]

    def _num_drafts(self) -> int:
        """Draft tokens of each sequence: as planned, unless they would make a sweep of few rows.

        None where layers have states: a state that has read a wrong one cannot be rolled back.
        """
        if self.model.states is not None:
            return 0
        geometry, most = self.manifest.geometry, self.memory_plan.draft_tokens
        if not self.memory_plan.num_slots:
            return most
        return max_draft_tokens(most, self.num_live, geometry.num_experts, geometry.top_k)

    def _roofline_s(self, scheduled: Seq[ScheduledTokens]) -> float:
        """The least time that this step could have taken; 0 without rates."""
        if self.rates is None:
            return 0.0
        decoding = [part.sequence for part in scheduled if part.sequence.is_decoding]
        num_decode = len(decoding)
        num_prefill = sum(part.num_rows for part in scheduled) - num_decode
        prefixes = {one.prefix for one in decoding if one.prefix}  # each is read once for all
        own_tokens = sum(one.num_cached - (one.prefix.num_tokens if one.prefix else 0) for one in decoding)
        mean_context = (own_tokens + sum(one.num_tokens for one in prefixes)) / max(1, num_decode)
        return step_roofline(self.footprint, self.memory_plan, self.rates, num_decode, num_prefill, mean_context).step_s

    def _shrink(self, scheduled: Seq[ScheduledTokens]) -> StepReport:
        """Go on with fewer rows after device memory ran out in mid-step, when nothing is lost yet but states.

        First with half the prompt tokens of a step, then with half the sequences; the others are to be asked again.
        Raises DeviceMemoryError with a single one.
        """
        self._planned = self._planned or self.memory_plan
        self._regrow_steps *= 1 + self._has_regrown
        self._calm_steps, self._has_regrown = 0, False
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        for part in scheduled:
            part.sequence.restart()
        has_prefill = any(not part.sequence.is_decoding for part in scheduled)
        if has_prefill and self.memory_plan.prefill_tokens > MIN_PREFILL_TOKENS:
            self.memory_plan = self.memory_plan._replace(prefill_tokens=self.memory_plan.prefill_tokens // 2)
            return self.step()
        live = self.scheduler.live
        num_kept = len(live) // 2
        error = f"--device {self.options.device}: out of memory with {len(live)} live sequences"
        if not num_kept:
            raise DeviceMemoryError(f"{error}; close what else uses it, or give a smaller --device-memory")
        self.memory_plan = self.memory_plan._replace(batch=num_kept)
        lost = [
            Failure(
                request_id=one.request.request_id,
                error=error,
                error_class=ErrorClass.TEMPORARY,
                is_attempt=False,
            )
            for one in live[num_kept:]
        ]
        self.scheduler.retire({failure.request_id for failure in lost})
        return StepReport(failures=tuple(lost), counters=self.trace.totals(), tier=self.tier_name)

    def _regrow(self) -> None:
        """After some steps without running out of memory, try twice as much again, up to the plan."""
        now, planned = self.memory_plan, self._planned
        if planned is None:
            return
        self._calm_steps += 1
        if self._calm_steps < self._regrow_steps:
            return
        self._calm_steps, self._has_regrown = 0, True
        batch, tokens = min(planned.batch, 2 * now.batch), min(planned.prefill_tokens, 2 * now.prefill_tokens)
        self.memory_plan = now._replace(batch=batch, prefill_tokens=tokens)
        if self.memory_plan == planned:
            self._planned = None

    def _rows(self, scheduled: Seq[ScheduledTokens]) -> tuple[list[int], list[QuerySegment], list[int]]:
        """Token ids and segments of all rows, and the first row of each part."""
        segments: list[QuerySegment] = []
        first_rows: list[int] = []
        token_ids: list[int] = []
        for part in scheduled:
            first_rows.append(len(token_ids))
            segments += part.segments(len(token_ids))
            token_ids += part.token_ids()
        return token_ids, segments, first_rows

    def _forward(self, scheduled: Seq[ScheduledTokens]) -> tuple[torch.Tensor, list[int]]:
        """Final hidden states [T, H] of all rows, and the first row of each part."""
        token_ids, segments, first_rows = self._rows(scheduled)
        states: list[StateSegment] = []
        if self.model.states is not None:
            states = [part.state_segment(row) for part, row in zip(scheduled, first_rows, strict=True)]
        ids = torch.tensor(token_ids, dtype=torch.int64).to(self.device)
        decoder = self.model.decoder
        with decoder.numerics.threads_for(len(ids) * self.manifest.geometry.hidden_size):
            return decoder.forward(ids, segments, self.model.kv, states), first_rows

    def _next_choices(self, scheduled: Seq[ScheduledTokens]) -> list[Choice]:
        """What comes after each part that is the last of its sequence, and after each of its drafts."""
        if self.model.graphs is not None and all(part.sequence.is_decoding for part in scheduled):
            token_ids, segments, _ = self._rows(scheduled)
            if choices := self.model.graphs.choices(token_ids, segments):
                return choices
        hidden, first_rows = self._forward(scheduled)
        chosen_after = [
            first + part.num_tokens - 1 + n
            for part, first in zip(scheduled, first_rows, strict=True)
            if part.is_last
            for n in range(1 + len(part.drafts))
        ]
        rows = torch.tensor(chosen_after, dtype=torch.int64).to(hidden.device)
        return choose(hidden[rows], self.model.decoder.logits)

    def _accept_all(
        self, choices: Seq[Choice], scheduled: Seq[ScheduledTokens]
    ) -> tuple[list[Completion], list[Failure]]:
        """Take the token after each last part, and after each of its drafts that turned out right."""
        remaining = iter(choices)
        completions: list[Completion] = []
        failures: list[Failure] = []
        for part in scheduled:
            own = [next(remaining) for _ in range(1 + len(part.drafts))] if part.is_last else []
            part.sequence.note_cached(part.num_tokens)
            ended = self._accept(part, own)
            if isinstance(ended, Completion):
                completions.append(ended)
            elif ended is not None:
                failures.append(ended)
        return completions, failures

    def _accept(self, part: ScheduledTokens, choices: Seq[Choice]) -> Completion | Failure | None:
        """Take chosen tokens as long as the drafts before them were right."""
        sequence, accepted, ended = part.sequence, 0, None
        for n, choice in enumerate(choices):
            if choice.token_id is None:
                return _not_finite(sequence)
            ended = sequence.accept(choice.token_id, choice.logprob, self.stop_ids, self.model.answers)
            if ended or n == len(part.drafts) or choice.token_id != part.drafts[n]:
                break
            sequence.note_cached(1)
            accepted += 1
        if part.drafts:
            sequence.lookup.note_accepted(accepted)
            self.trace.add("drafted_tokens", len(part.drafts))
            self.trace.add("accepted_tokens", accepted)
        return ended

    def generate(self, prompts: Seq[Seq[int]], max_new_tokens: int) -> list[list[int]]:
        """Greedy continuations of prompts, in their order, prompt and stop token not included.

        Raises PromptError for one that does not fit; nothing of the others is left live then.
        """
        requests = [
            Request(request_id=place, prompt_ids=tuple(ids), max_new_tokens=max_new_tokens)
            for place, ids in enumerate(prompts)
        ]
        try:
            generated = self._run_all(requests)
        finally:
            self.scheduler.retire({request.request_id for request in requests})
        return [generated[place] for place in range(len(prompts))]

    def _run_all(self, requests: Seq[Request]) -> dict[int, list[int]]:
        """The new tokens of requests that are numbered by their places."""
        waiting, generated = list(requests), dict[int, list[int]]()
        while waiting or self.num_live:
            while waiting and (self.has_room(waiting[0]) or not self.num_live):
                self.admit(waiting.pop(0))
            report = self.step()
            for failure in report.failures:
                if not failure.retry:
                    raise PromptError(f"prompt {failure.request_id}: {failure.error}")
                waiting.append(requests[failure.request_id])
            generated |= {done.request_id: list(done.token_ids) for done in report.completions}
        return generated

    @torch.inference_mode()
    def logits(self, token_ids: Seq[int]) -> torch.Tensor:
        """float32 logits [tokens, vocabulary] of one sequence, prefilled in parts as `step` does.

        Raises PromptError when it cannot fit, ValueError when there is no room now.
        """
        request = Request(request_id=-1, prompt_ids=tuple(token_ids), max_new_tokens=1)
        sequence = self.scheduler.admit(request, share_prefix=False)  # every position is wanted
        parts = []
        try:
            while sequence.num_pending:
                count = min(sequence.num_pending, self.options.prefill_span or self.memory_plan.prefill_tokens)
                hidden, _ = self._forward([ScheduledTokens(sequence, count)])
                sequence.note_cached(count)
                parts.append(self.model.decoder.logits(hidden))
        finally:
            self.scheduler.retire({request.request_id})
        return torch.cat(parts)

    def close(self) -> None:
        """Stop the prefetchers, free the memory; idempotent."""
        self.scheduler.live.clear()
        self.model.close()


def _not_finite(sequence: Sequence) -> Failure:
    at = len(sequence.token_ids)
    return Failure(
        request_id=sequence.request.request_id,
        error=f"logits are not finite at token {at}",
        error_class=ErrorClass.BAD_ITEM,
    )
