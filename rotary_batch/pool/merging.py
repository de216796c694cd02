"""One report of the reports of several engines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from rotary_batch.core import Loss, StepReport


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
        prefill_tokens=sum(one.prefill_tokens for one in reports),
        reprefill_tokens=sum(one.reprefill_tokens for one in reports),
        decode_tokens=sum(one.decode_tokens for one in reports),
        step_s=max((one.step_s for one in reports), default=0.0),
        roofline_s=max((one.roofline_s for one in reports), default=0.0),
        counters=dict(totals),
        tier=next((one.tier for one in reports), ""),
    )
