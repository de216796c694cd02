"""What a step, a prompt token and a generated token cost, learned from the steps of a run.  Plain arithmetic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log, log10
from typing import NamedTuple

HALF_LIFE_S = 90.0  # of what a step has cost, in seconds of steps: other programs come and go
# What a step and a generated token may cost in prompt tokens, and what they do while no step has told.
STEP_COSTS = (10.0, 30.0, 100.0, 300.0, 1e3, 3e3, 1e4, 3e4, 1e5)
GENERATED_COSTS = (1.0, 2.0, 3.0, 5.0, 7.0, 10.0, 15.0, 20.0, 30.0, 50.0, 100.0)
USUAL = (100.0, 10.0)
_PRIOR = 0.5  # how much worse, in squared logarithms, what is usual may explain the steps than what is ten times it


class StepWork(NamedTuple):
    """One step, as the meter sees it."""

    seconds: float  # since the step before, writing pages included
    prompt_tokens: int
    generated: Mapping[int, int]  # item -> tokens of it
    ended: Sequence[int]  # items that are answered or have failed
    prompts: Mapping[int, int]  # item -> prompt tokens, of every sequence that the engine had
    is_full: bool = False  # the engine had no room for one more


class Costs(NamedTuple):
    """Seconds."""

    step: float
    prompt_token: float
    generated_token: float


class Pace(NamedTuple):
    """How fast a whole run was: what the forecast of the next one is computed from."""

    step_s: float
    prompt_token_s: float
    generated_token_s: float
    step_tokens: float  # generated in a step for each sequence that generates; more than 1 with accepted drafts
    most_prompt_tokens: int  # read in one step
    read_share: float  # of the prompt tokens: prompts may begin alike, which is read once
    full_batch: float  # sequences when there was no room for one more; 0 = there always was
    seconds: float  # of the steps that this was learned from


class StepCosts:
    """Learns the costs from steps.

    Their proportions are those that explain best how much longer or shorter each step was than the one before it:
    between two steps the machine does not change, while over minutes other programs slow it down and let it go.  Their
    height is that of the last minutes.
    """

    def __init__(self) -> None:
        shapes = [(step, generated) for step in STEP_COSTS for generated in GENERATED_COSTS]
        self._errors = {one: _PRIOR * _distance(one) for one in shapes}
        self._before: dict[tuple[float, float], float] = {}  # logarithm of the speed of the step before
        self._recent_s = 0.0
        self._recent = (0.0, 0.0, 0.0)  # steps, prompt tokens, generated tokens
        self.all_s = 0.0
        self._all = (0.0, 0.0, 0.0)

    def add(self, step: StepWork) -> None:
        """Count one step."""
        if step.seconds <= 0:
            return
        generated = sum(step.generated.values())
        for shape in self._errors:
            speed = log((shape[0] + step.prompt_tokens + shape[1] * generated) / step.seconds)
            self._errors[shape] += min(1.0, (speed - self._before.get(shape, speed)) ** 2)
            self._before[shape] = speed
        keep = 0.5 ** (step.seconds / HALF_LIFE_S)
        self._recent_s = keep * self._recent_s + step.seconds
        counted = zip(self._recent, (1, step.prompt_tokens, generated), strict=True)
        self._recent = tuple(keep * before + now for before, now in counted)
        self.all_s += step.seconds
        steps, prompt_tokens, all_generated = self._all
        self._all = (steps + 1, prompt_tokens + step.prompt_tokens, all_generated + generated)

    def costs(self) -> Costs:
        """The costs of the last minutes; all 0 before the first step."""
        return self._of(self._recent, self._recent_s)

    def mean_costs(self) -> Costs:
        """The costs of all steps."""
        return self._of(self._all, self.all_s)

    def _of(self, work: tuple[float, float, float], seconds: float) -> Costs:
        of_step, of_generated = min(self._errors, key=self._errors.__getitem__)
        steps, prompt_tokens, generated = work
        units = of_step * steps + prompt_tokens + of_generated * generated
        unit_s = seconds / units if units else 0.0
        return Costs(of_step * unit_s, unit_s, of_generated * unit_s)


def _distance(shape: tuple[float, float]) -> float:
    return sum(log10(cost / usual) ** 2 for cost, usual in zip(shape, USUAL, strict=True))
