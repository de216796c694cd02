"""The confidence below which an answer is not shown.

It is chosen from pairs of (mean log-probability, score).  The score stands in for truth: nobody has read the answers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

MIN_PASSING = 20  # fewer say nothing of a precision


class Point(NamedTuple):
    """What passes at one threshold."""

    threshold: float
    num_passing: int
    share: float  # of all answers
    precision: float  # mean score of those that pass

    @property
    def error(self) -> float:
        """Standard error of the precision."""
        return math.sqrt(self.precision * (1 - self.precision) / max(1, self.num_passing))


class Chosen(NamedTuple):
    """A threshold, and what passes it."""

    threshold: float | None  # None when no threshold reaches the target
    target: float
    here: Point | None  # on the half that it was chosen on
    elsewhere: Point | None  # on the other half


def curve(means: Sequence[float], scores: Sequence[float]) -> list[Point]:
    """One point for every threshold that tells answers apart, strictest first.  Scores are 0 to 1.

    A mean of minus infinity never passes.
    """
    pairs = sorted(zip(means, scores, strict=True), key=lambda pair: -pair[0])
    sums = list(accumulate(score for _, score in pairs))
    ends = [n for n in range(1, len(pairs) + 1) if n == len(pairs) or pairs[n][0] < pairs[n - 1][0]]
    return [Point(pairs[n - 1][0], n, n / len(pairs), sums[n - 1] / n) for n in ends if pairs[n - 1][0] > -math.inf]


def choose_threshold(
    means: Sequence[float], scores: Sequence[float], *, target: float, min_passing: int = MIN_PASSING
) -> float | None:
    """The lowest threshold whose passing answers have a mean score of `target` for sure; None when there is none.

    For sure: less one standard error.  Without that the lowest of many thresholds is the luckiest: 0.50 on the half
    that chose it was 0.33 on the other.  An answer passes when its mean log-probability is at least the threshold.
    """
    right = [p for p in curve(means, scores) if p.precision - p.error >= target and p.num_passing >= min_passing]
    return right[-1].threshold if right else None


def passing(means: Sequence[float], scores: Sequence[float], threshold: float) -> Point:
    """What passes a threshold chosen elsewhere."""
    kept = [score for mean, score in zip(means, scores, strict=True) if mean >= threshold]
    return Point(threshold, len(kept), len(kept) / max(1, len(means)), sum(kept) / max(1, len(kept)))


def choose_and_check(means: Sequence[float], scores: Sequence[float], *, target: float) -> Chosen:
    """Choose on every second answer, look at the others."""
    threshold = choose_threshold(means[::2], scores[::2], target=target)
    if threshold is None:
        return Chosen(None, target, None, None)
    return Chosen(
        threshold, target, passing(means[::2], scores[::2], threshold), passing(means[1::2], scores[1::2], threshold)
    )
