"""How long to wait after the n-th failure: longer each time, and not the same for all that failed together."""

from __future__ import annotations

import random
from dataclasses import dataclass, field


@dataclass(slots=True, kw_only=True)
class Backoff:
    """Exponential, with jitter: between half of the wait and all of it."""

    first_s: float
    most_s: float
    random: random.Random = field(default_factory=random.Random)

    def wait_s(self, num_before: int) -> float:
        """The wait after a failure that followed `num_before` others."""
        whole_s = min(self.most_s, self.first_s * 2.0 ** min(num_before, 60))
        return whole_s * self.random.uniform(0.5, 1.0)
