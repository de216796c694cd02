"""What a run did so far, and its state after each step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from rotary_batch.core import Loss, StepReport
from rotary_batch.pages.files import PageFailure, SyncResult
from rotary_batch.work.rows import Failed, Finished


@dataclass(slots=True)
class NodeStats:
    """What a node of a cluster did so far."""

    answers: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    step_s: float = 0.0  # of all its engines
    engines_lost: int = 0  # with items that were live
    items_leased_again: int = 0


@dataclass(slots=True)
class RunStats:
    """What a run did so far; stored with the run, shown while it goes on."""

    revolutions: int = 0
    done: int = 0
    reused: int = 0
    parked: int = 0
    retried: int = 0
    verdicts: dict[str, int] = field(default_factory=dict)
    ended: dict[str, int] = field(default_factory=dict)  # answers by what ended them
    sentences: int = 0  # of new answers, that were held against the code
    sentences_shown: int = 0
    reasons: dict[str, int] = field(default_factory=dict)  # kind -> new answers of which something is not shown for it
    prefill_tokens: int = 0
    reprefill_tokens: int = 0
    reprefill_s: float = 0.0  # its share of step_s, by tokens
    decode_tokens: int = 0
    step_s: float = 0.0
    roofline_s: float = 0.0  # the least the same steps could have taken; 0 = the machine was not measured
    rates_raised: float = 1.0  # by how much, because steps were faster than the roofline
    device: str = ""
    numerics: str = ""
    kv: str = ""
    max_batch: int = 0  # as set; 0 = the default
    drain_s: float = 0.0  # since work on the queue began: with opening the model, without indexing
    pace: dict[str, float] = field(default_factory=dict)  # of `commands.meter.Pace`
    forecast: dict[str, Any] = field(default_factory=dict)  # made when work on the queue began
    pages_written: int = 0
    conflicts: list[str] = field(default_factory=list)
    pages_failed: list[PageFailure] = field(default_factory=list)
    paused_s: float = 0.0
    yielded_s: float = 0.0  # waited for other programs
    engines_died: int = 0  # with items that were live
    nodes: dict[str, NodeStats] = field(default_factory=dict)  # of a cluster
    memory_ran_out: int = 0  # times, on the device
    energy_j: float | None = None  # of the card, pauses left out; None = it does not count it
    tier: str = ""  # where experts came from, and how
    engine: dict[str, float] = field(default_factory=dict)

    def add_step(self, report: StepReport) -> None:
        """Count one step."""
        self.revolutions += report.revolutions
        self.prefill_tokens += report.prefill_tokens
        self.reprefill_tokens += report.reprefill_tokens
        self.decode_tokens += report.decode_tokens
        step_tokens = max(1, report.prefill_tokens + report.decode_tokens)
        self.reprefill_s += report.step_s * min(1.0, report.reprefill_tokens / step_tokens)
        self.step_s += report.step_s
        self.roofline_s += report.roofline_s
        self.tier = report.tier
        self.engine = dict(report.counters)
        for one in report.nodes:
            node = self.nodes.setdefault(one.node, NodeStats())
            node.answers += one.answers
            node.prompt_tokens += one.prompt_tokens
            node.generated_tokens += one.generated_tokens
            node.step_s += one.step_s

    def add_loss(self, loss: Loss, items_leased_again: int) -> None:
        """Count an engine that died with items."""
        self.engines_died += 1
        if loss.node:
            node = self.nodes.setdefault(loss.node, NodeStats())
            node.engines_lost += 1
            node.items_leased_again += items_leased_again

    def add_finished(self, finished: Finished) -> None:
        """Count one answer."""
        self.done += 1
        _count(self.verdicts, finished.validation.verdict.value)
        _count(self.ended, finished.completion.reason)
        self.sentences += finished.validation.num_sentences
        self.sentences_shown += finished.validation.num_kept
        for kind in sorted({reason.partition(":")[0] for reason in finished.validation.reasons}):
            _count(self.reasons, kind)

    def add_failed(self, failed: Failed) -> None:
        """Count one attempt that gave no answer."""
        self.parked += failed.retry_at is None
        self.retried += failed.retry_at is not None

    def add_pages(self, result: SyncResult) -> None:
        """Count pages; each conflict and failure is listed once."""
        self.pages_written += len(result.written)
        self.conflicts += [page for page in result.conflicts if page not in self.conflicts]
        self.pages_failed += [failure for failure in result.failed if failure not in self.pages_failed]

    def as_dict(self) -> dict[str, Any]:
        """The form in the database, in reports and in `--json`, where the roofline is called `bound_s`."""
        return {"bound_s" if name == "roofline_s" else name: value for name, value in asdict(self).items()}


def _count(numbers: dict[str, int], name: str) -> None:
    numbers[name] = numbers.get(name, 0) + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The state of a run after a step."""

    stats: RunStats
    report: StepReport
    prompts: Mapping[int, int]  # item -> prompt tokens that it reads, of every sequence that the engine had in the step
    num_live: int
    num_allowed: int | None  # items that may still end in this run; None = all
    elapsed_s: float
    is_full: bool = False  # items wait that the engine had no room for
