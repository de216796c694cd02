"""The estimate of the time left, over runs of simulated machines whose costs it does not know."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field

import pytest

from rotary_batch.commands.meter import Meter, bias, expected_lengths
from rotary_batch.commands.step_costs import StepWork
from rotary_batch.core import Unit
from rotary_batch.work.rows import UnitWork

PREFILL_TOKENS = 2048  # in a step, at most

# Seconds of a step, a prompt token and a generated token.
MACHINES = {
    "processor": (0.02, 3e-4, 3e-3),
    "weights pass through the device": (4.0, 1e-4, 1e-3),
    "weights fit": (0.05, 1e-4, 1e-3),
}


@dataclass
class Night:
    """Items of one unit that go through a batch."""

    costs: tuple[float, float, float]
    prompts: list[int]
    lengths: list[int]
    batch: int
    noise: float = 0.0
    dice: random.Random = field(default_factory=lambda: random.Random(3))

    def steps(self):
        """(the step, the state of the queue after it), until all is done."""
        waiting, live, ended = deque(range(len(self.prompts))), {}, []
        while waiting or live:
            while waiting and len(live) < self.batch:
                item = waiting.popleft()
                live[item] = [self.prompts[item], 0]
            room, generated, prompts = PREFILL_TOKENS, {}, {item: self.prompts[item] for item in live}
            for item, state in live.items():
                if state[0]:
                    count = min(room, state[0])
                    state[0], room = state[0] - count, room - count
                if not state[0]:
                    state[1], generated[item] = state[1] + 1, 1
            done = [item for item, state in live.items() if state[1] >= self.lengths[item]]
            for item in done:
                del live[item]
            ended += done
            read = PREFILL_TOKENS - room
            seconds = sum(c * n for c, n in zip(self.costs, (1, read, len(generated)), strict=True))
            seconds *= self.dice.lognormvariate(0, self.noise)
            yield StepWork(seconds, read, generated, done, prompts), [self.work(ended)]

    def work(self, ended):
        gone = set(ended)
        return UnitWork(
            unit=Unit.CHUNK,
            num_open=len(self.prompts) - len(gone),
            unknown_tokens=0,
            prompt_tokens=sum(n for item, n in enumerate(self.prompts) if item not in gone),
            known_tokens=sum(self.prompts),
            num_done=len(gone),
            num_parked=0,
            output_tokens=sum(self.lengths[item] - 1 for item in gone),
            output_squares=sum((self.lengths[item] - 1) ** 2 for item in gone),
            max_new_tokens=160,
            num_levels=0,
        )


def night(machine: str, num_items: int, length: float, noise: float = 0.1) -> Night:
    dice = random.Random(7)
    lengths = [max(2, min(160, round(dice.gauss(length, length / 3)))) for _ in range(num_items)]
    prompts = [max(20, round(dice.gauss(300, 80))) for _ in range(num_items)]
    return Night(MACHINES[machine], prompts, lengths, batch=128, noise=noise)


@pytest.mark.parametrize(
    ("machine", "num_items", "length"),
    [
        ("processor", 700, 12),
        ("processor", 3000, 60),
        ("weights fit", 700, 12),
        ("weights fit", 3000, 60),
        # With answers so short that every step reads all the prompt tokens that it may, only the end tells that a step
        # costs so much by itself.
        ("weights pass through the device", 3000, 60),
    ],
)
def test_from_a_tenth_of_the_work_on_the_time_left_is_right_within_a_quarter(machine, num_items, length):
    steps = list(night(machine, num_items, length).steps())
    total_s = sum(step.seconds for step, _ in steps)
    meter, past_s, shares = Meter([night(machine, num_items, length).work([])]), 0.0, []
    for number, (step, work) in enumerate(steps):
        meter.add(step)
        past_s += step.seconds
        if number % 5 == 0:
            meter.renew(work)
        shares.append(meter.share())
        left_s = meter.left_s()
        if 0.1 <= past_s / total_s <= 0.8:
            assert left_s == pytest.approx(total_s - past_s, rel=0.25), past_s / total_s
        if number < 3:
            assert left_s is None
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_a_limit_leaves_the_time_of_its_items():
    one = night("processor", 700, 12)
    meter = Meter([one.work([])])
    for step, work in list(one.steps())[:60]:
        meter.add(step)
        meter.renew(work)
    num_open = work[0].num_open
    assert meter.left_s(num_open // 4) == pytest.approx(meter.left_s() / 4, rel=0.02)
    assert meter.left_s(10 * num_open) == meter.left_s()


def test_what_is_reused_counts_as_done_and_shortens_the_rest():
    one = night("processor", 700, 12)
    steps = list(one.steps())
    meter = Meter([one.work([])])
    for step, work in steps[:40]:
        meter.add(step)
        meter.renew(work)
    before_s, before = meter.left_s(), meter.share()
    meter.renew([one.work(range(350))])
    assert meter.share() > before
    for step, _ in steps[40:60]:
        meter.add(step)
    assert meter.left_s() < 0.8 * before_s


def unit(name: Unit, **values: float) -> UnitWork:
    empty = dict.fromkeys(UnitWork.__dataclass_fields__, 0)
    return UnitWork(**empty | {"unit": name, "max_new_tokens": 200} | values)


def test_answers_that_are_not_known_are_as_long_as_others():
    chunks = unit(Unit.CHUNK, num_open=10, num_done=10, output_tokens=400)
    folders = unit(Unit.DIRECTORY, num_open=2, max_new_tokens=240)
    assert expected_lengths([chunks, folders]) == {Unit.CHUNK: 41, Unit.DIRECTORY: 1 + 0.2 * 240}
    assert expected_lengths([folders]) == {Unit.DIRECTORY: 61}


def test_answers_that_are_still_live_lengthen_the_mean_of_those_that_ended():
    assert bias({}, [3, 4]) == 1.0
    assert bias({10: 5}, []) == 1.0
    # Half of all end after 10 tokens, the others after 30 or later: 10 + 20 / 2.
    assert bias({10: 5}, [30] * 5) == pytest.approx(2.0)
    # What has just begun tells nothing.
    assert bias({10: 2, 20: 2}, [1] * 50) == pytest.approx(1.0)
