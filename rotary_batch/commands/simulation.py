"""A run in virtual time: when each open item ends, at the pace of an earlier run.

The engine is taken to work as `runner` and the scheduler do: items are admitted in the order of the queue while there
is room; prompts are read one after the other, a limited number of tokens in a step; sequences that were read generate
in every step; a roll-up is ready when all that it reads has ended.  Left out: chunks that wait for answers on others.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Mapping, Sequence
from math import log
from typing import NamedTuple

from rotary_batch.commands.meter import FEW_ANSWERS, UNKNOWN_LENGTH
from rotary_batch.commands.step_costs import Pace
from rotary_batch.core import Unit
from rotary_batch.work.queued import Queued

_GOLDEN = 0.6180339887498949  # multiples of it are spread evenly over [0, 1), however many there are
_READ, _ENDED = 0, 1


class Ended(NamedTuple):
    """An item that ended, and when, in seconds since the start."""

    at_s: float
    place: int  # in the queue


def simulate(
    queue: Sequence[Queued], lengths: Mapping[Unit, Sequence[int]], pace: Pace, batch: float, opening_s: float = 0.0
) -> list[Ended]:
    """When each item ends, in that order.  `queue` has those of the most worth first, `lengths` is ascending."""
    return _Simulation(queue, lengths, pace, max(1, round(batch)), opening_s).run()


class _Simulation:
    def __init__(
        self,
        queue: Sequence[Queued],
        lengths: Mapping[Unit, Sequence[int]],
        pace: Pace,
        batch: int,
        opening_s: float,
    ) -> None:
        self._queue, self._pace, self._batch = queue, pace, batch
        self._tokens = _answer_tokens(queue, lengths)
        places = {item.id: place for place, item in enumerate(queue)}
        self._parent = [places.get(item.parent_id) if item.parent_id is not None else None for item in queue]
        self._blockers = Counter(parent for parent in self._parent if parent is not None)
        self._ready = [place for place in range(len(queue)) if place not in self._blockers]  # ascending: a heap
        self._events: list[tuple[float, int, int]] = []  # (step, what, place)
        self._step = self._read_until = 0.0  # in steps, of which there are fractions
        self._at_s = opening_s
        self._num_live = self._num_writing = 0
        self._ended: list[Ended] = []

    def run(self) -> list[Ended]:
        """Until nothing is left."""
        self._admit()
        while self._events:
            step, what, place = heapq.heappop(self._events)
            self._advance(step)
            if what == _READ:
                self._num_writing += 1
            else:
                self._num_writing -= 1
                self._num_live -= 1
                self._end(place)
                self._admit()
        return self._ended

    def _advance(self, step: float) -> None:
        pace, steps = self._pace, step - self._step
        reading = max(0.0, min(step, self._read_until) - self._step)
        self._at_s += steps * (pace.step_s + self._num_writing * pace.step_tokens * pace.generated_token_s)
        self._at_s += reading * pace.most_prompt_tokens * pace.prompt_token_s
        self._step = step

    def _admit(self) -> None:
        pace = self._pace
        while self._ready and self._num_live < self._batch:
            place = heapq.heappop(self._ready)
            item = self._queue[place]
            if item.is_answered:
                self._end(place)
                continue
            self._num_live += 1
            to_read = item.prompt_tokens * pace.read_share + item.num_generated
            self._read_until = max(self._step, self._read_until) + to_read / max(1, pace.most_prompt_tokens)
            read_at = max(self._step + 1, self._read_until)
            heapq.heappush(self._events, (read_at, _READ, place))
            steps = self._tokens[place] / max(pace.step_tokens, 1e-9)
            heapq.heappush(self._events, (read_at + steps, _ENDED, place))

    def _end(self, place: int) -> None:
        self._ended.append(Ended(self._at_s, place))
        parent = self._parent[place]
        if parent is not None:
            self._blockers[parent] -= 1
            if not self._blockers[parent]:
                heapq.heappush(self._ready, parent)


def _answer_tokens(queue: Sequence[Queued], lengths: Mapping[Unit, Sequence[int]]) -> list[float]:
    """How many tokens each item is taken to generate: as spread as the answers that are there, in the same order."""
    seen: Counter[Unit] = Counter()
    tokens = []
    for item in queue:
        known = lengths.get(item.unit, ())
        seen[item.unit] += 1
        share = seen[item.unit] * _GOLDEN % 1
        if len(known) >= FEW_ANSWERS:
            length: float = known[int(share * len(known))]
        else:  # few are long, as if they could end at every token
            length = -log(1 - share) * UNKNOWN_LENGTH * item.max_new_tokens
        length = min(length, item.max_new_tokens) + 1  # the stop token
        tokens.append(item.num_items * length - min(item.num_generated, length - 1))
    return tokens
