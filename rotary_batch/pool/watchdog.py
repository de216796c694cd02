"""How long an engine may take before it counts as hung.

Generous: a step that is killed too early is taken again, and takes as long again.  All are on a clock that stands still
while the machine is suspended.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, kw_only=True)
class Watchdog:
    """The limits of one run, which learns how long its steps take."""

    open_s: float = 3600.0  # a large model from a slow disk; kernels may be compiled and the machine measured
    first_step_s: float = 1800.0  # while nothing is known of its steps
    least_s: float = 120.0  # of any answer
    factor: float = 20.0  # times the longest step so far
    longest_step_s: float = 0.0

    def note_step(self, step_s: float) -> None:
        """Learn from a step that has ended."""
        self.longest_step_s = max(self.longest_step_s, step_s)

    @property
    def step_s(self) -> float:
        """The limit of the next step."""
        if not self.longest_step_s:
            return self.first_step_s
        return max(self.least_s, self.factor * self.longest_step_s)
