"""How far a run is, and how long it still takes.  Plain arithmetic: no clock, no database, no terminal.

What is left is counted in seconds: each prompt token, each generated token and each step costs what it has cost so far.
The three costs are learned apart (`step_costs`), because a run ends with few live sequences: short steps of expensive
tokens.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import exp, log, sqrt
from typing import Any, NamedTuple

from rotary_batch.commands.step_costs import USUAL, Costs, Pace, StepCosts, StepWork
from rotary_batch.core import Unit
from rotary_batch.work.rows import UnitWork

ESTIMATE_FROM = 0.05  # of this run's work; before, the costs are those of a few prompts
SMOOTH_S = 8.0  # how fast what is shown follows the estimate
FEW_ANSWERS = 8  # with fewer of a unit, their length is that of all units, as a share of the token limit
UNKNOWN_LENGTH = 0.25  # that share while there is no answer at all


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How far a run is, after a step."""

    share: float  # of all work, that of earlier runs included
    num_done: int  # items that are answered or parked
    num_items: int
    tokens_per_s: float
    bound_share: float | None  # None = the machine was not measured
    left_s: float | None  # None = too little is done to tell
    stops_in_s: float | None = None  # when a deadline ends the run before that
    max_items: int | None = None  # `--limit`, when it ends the run before that

    def as_dict(self) -> dict[str, Any]:
        """The form in the database and the log."""
        return {name: round(value, 4) if isinstance(value, float) else value for name, value in asdict(self).items()}


class _Left(NamedTuple):
    """What is left to do."""

    num_items: int
    prompt_tokens: float
    generated_tokens: float
    steps: float


@dataclass(slots=True)
class Meter:
    """Adds up the steps of a run."""

    _work: Sequence[UnitWork]
    _step_costs: StepCosts = field(default_factory=StepCosts)
    _prompts: dict[int, int] = field(default_factory=dict)  # item -> prompt tokens, of live sequences
    _generated: dict[int, int] = field(default_factory=dict)  # item -> tokens, of those that have begun
    _ended: list[int] = field(default_factory=list)  # prompt tokens of items that ended since the queue was read
    _lengths: Counter[int] = field(default_factory=Counter)  # of the answers that ended in this run, in tokens
    _read: int = 0  # prompt tokens read, and those of the prompts they are from: prompts may share their beginning
    _asked: int = 0
    _most_read: int = 0  # prompt tokens of one step
    _written: tuple[int, int] = (0, 0)  # tokens generated, and how often a sequence generated any in a step
    _full: tuple[int, int] = (0, 0)  # sequences in steps without room for one more, and those steps
    _units: float = 0.0  # of work in this run, as it usually costs
    _recent_s: float = 0.0
    _recent_tokens: float = 0.0
    _shown_s: float | None = None
    _share: float = 0.0

    def renew(self, work: Sequence[UnitWork]) -> None:
        """Take the state of the queue as it is after the last step."""
        self._work = work
        self._ended.clear()

    def add(self, step: StepWork) -> None:
        """Count one step."""
        self._step_costs.add(step)
        self._read += step.prompt_tokens
        self._most_read = max(self._most_read, step.prompt_tokens)
        tokens, times = self._written
        self._written = (tokens + sum(step.generated.values()), times + len(step.generated))
        if step.is_full:
            self._full = (self._full[0] + len(step.prompts), self._full[1] + 1)
        for item, count in step.generated.items():
            if item not in self._generated:
                self._asked += step.prompts[item]
            self._generated[item] = self._generated.get(item, 0) + count
        self._prompts = dict(step.prompts)
        # A run that was paused handed its sequences back, and may have taken others.
        self._generated = {item: count for item, count in self._generated.items() if item in self._prompts}
        for item in step.ended:
            self._ended.append(self._prompts.pop(item))
            self._lengths[self._generated.pop(item, 0)] += 1
        self._add_time(step)

    def _add_time(self, step: StepWork) -> None:
        generated = sum(step.generated.values())
        self._units += _units(1, step.prompt_tokens, generated)
        keep = exp(-step.seconds / SMOOTH_S)
        self._recent_s = keep * self._recent_s + step.seconds
        self._recent_tokens = keep * self._recent_tokens + step.prompt_tokens + generated
        left_s = self._left_s()
        if left_s is not None and self._shown_s is not None:
            expected_s = max(0.0, self._shown_s - step.seconds)
            keep = exp(-step.seconds / min(SMOOTH_S, max(1.0, left_s / 20)))
            left_s = keep * expected_s + (1 - keep) * left_s
        self._shown_s = left_s

    def pace(self) -> Pace:
        """How fast the run was so far."""
        costs = self._step_costs.mean_costs()
        return Pace(
            *costs,
            step_tokens=self._written[0] / max(1, self._written[1]),
            most_prompt_tokens=self._most_read,
            read_share=min(1.0, self._read / self._asked) if self._asked else 1.0,
            full_batch=self._full[0] / max(1, self._full[1]),
            seconds=self._step_costs.all_s,
        )

    @property
    def num_items(self) -> int:
        """All items that there are and that are expected, as of when the queue was read last."""
        return sum(one.num_open + one.num_done + one.num_parked for one in self._work)

    @property
    def tokens_per_s(self) -> float:
        """Prompt tokens and generated tokens, lately."""
        return self._recent_tokens / self._recent_s if self._recent_s else 0.0

    def left_s(self, max_items: int | None = None) -> float | None:
        """Seconds until all open items are done, or `max_items` of them; None = too little is done to tell."""
        num_open = self._left().num_items
        if self._shown_s is None or max_items is None or max_items >= num_open:
            return self._shown_s
        return self._shown_s * max_items / num_open

    def share(self) -> float:
        """The share of all work that is done, that of earlier runs included; it never falls."""
        costs, left, lengths = self._step_costs.costs(), self._left(), expected_lengths(self._work)
        if not left.num_items:
            return 1.0
        if not costs.prompt_token + costs.generated_token:
            costs = Costs(USUAL[0], 1.0, USUAL[1])
        asked = sum(one.known_tokens + one.unknown_tokens for one in self._work)
        answered = sum(one.output_tokens + one.num_open * lengths[one.unit] for one in self._work)
        total_s = costs.prompt_token * asked + costs.generated_token * answered
        left_s = costs.prompt_token * left.prompt_tokens + costs.generated_token * left.generated_tokens
        self._share = max(self._share, 1 - left_s / total_s if total_s else 0.0)
        return self._share

    def _left_s(self) -> float | None:
        left = self._left()
        units_left = _units(left.steps, left.prompt_tokens, left.generated_tokens)
        if self._units < ESTIMATE_FROM * (self._units + units_left):
            return None
        costs, is_shared = self._step_costs.costs(), self._asked > self._read
        return (
            costs.step * left.steps
            + costs.prompt_token * left.prompt_tokens * (self._read / self._asked if is_shared else 1.0)
            + costs.generated_token * left.generated_tokens
        )

    def _left(self) -> _Left:
        lengths = expected_lengths(self._work)
        num_queued = sum(one.num_open for one in self._work)
        num_open = max(0, num_queued - len(self._ended))
        asked = sum(one.prompt_tokens + one.unknown_tokens for one in self._work)
        asked -= sum(self._ended) + sum(self._prompts[item] for item in self._generated)
        mean = sum(one.num_open * lengths[one.unit] for one in self._work) / max(1, num_queued)
        mean *= bias(self._lengths, sorted(self._generated.values()))
        # An answer that is longer than the mean still goes on for a while.
        begun = sum(min(count, 2 * mean / 3) for count in self._generated.values())
        answers = max(0.0, num_open * mean - begun)
        steps = self._steps(asked, answers, mean, num_open, lengths)
        return _Left(num_open, max(0.0, asked), answers, steps)

    def _steps(self, asked: float, answers: float, mean: float, num_open: int, lengths: Mapping[Unit, float]) -> float:
        """How many steps are left: with a full batch, then until the last of it ends, then up to the root."""
        if not num_open:
            return 0.0
        batch = min(num_open, max(1, len(self._prompts)))
        full = max(answers * (num_open - batch) / num_open / batch, asked / max(1, self._most_read))
        last = min(answers, mean + spread(self._work) * sqrt(2 * log(batch)))  # the longest of a batch
        above = sum(one.num_levels * lengths[one.unit] for one in self._work if one.num_open)
        return full + last + (above if num_open > 1 else 0.0)


def _units(steps: float, prompt_tokens: float, generated_tokens: float) -> float:
    """Work as a number of prompt tokens."""
    return USUAL[0] * steps + prompt_tokens + USUAL[1] * generated_tokens


def expected_lengths(work: Sequence[UnitWork]) -> dict[Unit, float]:
    """How many tokens an answer of each unit has, going by those that are there."""
    limits = sum(one.num_done * one.max_new_tokens for one in work)
    share = sum(one.output_tokens for one in work) / limits if limits else UNKNOWN_LENGTH
    return {
        one.unit: 1  # the stop token
        + (one.output_tokens / one.num_done if one.num_done >= FEW_ANSWERS else share * one.max_new_tokens)
        for one in work
    }


def bias(ended: Mapping[int, int], live: Sequence[int]) -> float:
    """How much longer answers are than those that have ended: of those that began together, the short ones end first.

    `ended` is length -> number, `live` the lengths so far of the others, ascending.  The mean of all is the area under
    the Kaplan-Meier estimate of the share that is longer than a length.
    """
    num_left, survival, area, before = sum(ended.values()), 1.0, 0.0, 0
    if not num_left:
        return 1.0
    mean = sum(length * count for length, count in ended.items()) / num_left
    for length in sorted(ended):
        area += survival * (length - before)
        survival *= 1 - ended[length] / (num_left + len(live) - bisect_left(live, length))
        num_left, before = num_left - ended[length], length
    longest = live[-1] if live else 0
    return max(1.0, (area + survival * max(0, longest - before)) / mean) if mean else 1.0


def spread(work: Sequence[UnitWork]) -> float:
    """The standard deviation of the length of the answers that are there, in tokens."""
    count, total = sum(one.num_done for one in work), sum(one.output_tokens for one in work)
    squares = sum(one.output_squares for one in work)
    return sqrt(max(0.0, squares / count - (total / count) ** 2)) if count else 0.0
