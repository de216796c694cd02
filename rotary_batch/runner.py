"""The night: admit ready items, step the engine, commit what it wrote, project finished pages.

Knows the order of things and when to stop; knows only the protocol of the engine, and nothing of
prompts, of SQL or of Markdown.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from rotary_batch.core import StepReport
from rotary_batch.work.rows import Claim, Finished

CLAIM_BATCH = 16  # one transaction claims this many; what the engine has no room for yet waits here
RETRY_AFTER_S = 2.0  # doubled at every further attempt


class Desk(Protocol):
    """What the planner does for the runner: prepare the next items, turn answers into results."""

    def advance(self) -> int:
        """Give every item whose inputs are complete its prompt; answer how many became ready."""
        ...

    def finish(self, claim: Claim, completion_text_of: object) -> Finished:
        """Judge an answer."""
        ...


@dataclass(slots=True, kw_only=True)
class Tally:
    """What a run did so far; stored with the run, shown while it goes on."""

    revolutions: int = 0
    done: int = 0
    parked: int = 0
    retried: int = 0
    shown: int = 0
    withheld: dict[str, int] = field(default_factory=dict)  # by verdict
    prefill_tokens: int = 0
    reprefill_tokens: int = 0
    decode_tokens: int = 0
    step_s: float = 0.0
    engine: dict[str, float] = field(default_factory=dict)

    def add_step(self, report: StepReport) -> None:
        """Count one revolution."""
        self.revolutions += 1
        self.prefill_tokens += report.prefill_tokens
        self.reprefill_tokens += report.reprefill_tokens
        self.decode_tokens += report.decode_tokens
        self.step_s += report.step_s
        self.engine = dict(report.counters)
