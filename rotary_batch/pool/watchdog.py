"""How long an engine may take before it counts as hung.

The limits are generous: a step that is killed too early is taken again, and takes as long again.  The time for which
the machine is suspended does not count.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True, kw_only=True)
class Watchdog:
    """The limits of one run, which learns how long its steps take."""

    open_s: float = 3600.0  # a large model from a slow disk; kernels may be compiled and the machine measured
    first_step_s: float = 3600.0  # nothing is known of its steps; 8x22B in bf16 takes 31 minutes from a hard disk
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
