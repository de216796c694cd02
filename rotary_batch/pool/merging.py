"""One report of the reports of several engines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from rotary_batch.core import Loss, NewTokens, StepReport


def merged(
    reports: Sequence[StepReport], losses: tuple[Loss, ...], counters: Sequence[Mapping[str, float]]
) -> StepReport:
    """What all did.  The engines work at the same time, so the longest step counts; `counters` are those of all."""
    totals: Counter[str] = Counter()
    for each in counters:
        totals.update(each)
    if len(reports) == 1:
        return replace(reports[0], losses=losses, counters=dict(totals))
    return StepReport(
        new_tokens=tuple(new for one in reports for new in one.new_tokens),
        completions=tuple(done for one in reports for done in one.completions),
        failures=tuple(lost for one in reports for lost in one.failures),
        losses=losses,
        nodes=tuple(node for one in reports for node in one.nodes),
        revolutions=max((one.revolutions for one in reports), default=0),
        prefill_tokens=sum(one.prefill_tokens for one in reports),
        reprefill_tokens=sum(one.reprefill_tokens for one in reports),
        decode_tokens=sum(one.decode_tokens for one in reports),
        step_s=max((one.step_s for one in reports), default=0.0),
        roofline_s=max((one.roofline_s for one in reports), default=0.0),
        counters=dict(totals),
        tier=next((one.tier for one in reports), ""),
    )


def in_sequence(reports: Sequence[StepReport]) -> StepReport:
    """What one engine did in several steps, as one step.  Each sequence has its tokens in one piece."""
    tokens: dict[int, NewTokens] = {}
    for new in (new for one in reports for new in one.new_tokens):
        before = tokens[new.request_id].token_ids if new.request_id in tokens else ()
        tokens[new.request_id] = replace(new, token_ids=(*before, *new.token_ids))
    return StepReport(
        new_tokens=tuple(tokens.values()),
        completions=tuple(done for one in reports for done in one.completions),
        failures=tuple(lost for one in reports for lost in one.failures),
        revolutions=sum(one.revolutions for one in reports),
        prefill_tokens=sum(one.prefill_tokens for one in reports),
        reprefill_tokens=sum(one.reprefill_tokens for one in reports),
        decode_tokens=sum(one.decode_tokens for one in reports),
        step_s=sum(one.step_s for one in reports),
        roofline_s=sum(one.roofline_s for one in reports),
        counters=reports[-1].counters,
        tier=reports[-1].tier,
    )
