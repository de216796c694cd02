"""One engine of a pool, wherever it runs: what a pool asks of it, and how it dies."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Protocol

from rotary_batch.core import Engine, Request, StepReport
from rotary_batch.model.rates import Rates

Phase = Callable[[str], None]  # what begins now, as `opening the model`


class RatedEngine(Engine, Protocol):
    """An engine whose roofline is computed from rates that can be replaced while it works."""

    @property
    def rates(self) -> Rates | None:
        """The rates that the roofline is computed from; None = there is no roofline."""
        ...

    def use_rates(self, rates: Rates) -> None:
        """Compute the roofline from these from now on."""
        ...


Opener = Callable[[Phase], RatedEngine]  # for another process it must be picklable: a function of a module, and values


class EngineDiedError(Exception):
    """The engine is gone, and what it had live with it; the text says how it ended.

    `error` is what it raised, when it could still say so.
    """

    def __init__(self, why: str, error: Exception | None = None) -> None:
        super().__init__(why)
        self.error = error


class HostedEngine(Protocol):
    """An engine that is open, or opens.

    Every method but `close` raises EngineDiedError when it died, and errors of this package.
    """

    @property
    def is_ready(self) -> bool:
        """Whether it is open; until then nothing else may be asked.  Raises what opening it would raise."""
        ...

    @property
    def node(self) -> str:
        """The machine that it is on; empty = this one."""
        ...

    @property
    def rates(self) -> Rates | None:
        """As of a RatedEngine."""
        ...

    def use_rates(self, rates: Rates) -> None:
        """As of a RatedEngine."""
        ...

    def has_room(self, request: Request) -> bool:
        """As of a `core.Engine`."""
        ...

    def admit(self, request: Request) -> None:
        """As of a `core.Engine`."""
        ...

    def begin_step(self) -> None:
        """Start a step; nothing else may be asked before it has ended."""
        ...

    def end_step(self) -> StepReport | None:
        """What the step did; None while it goes on."""
        ...

    def drop(self, request_ids: Collection[int]) -> None:
        """As of a `core.Engine`."""
        ...

    def close(self) -> None:
        """End it, whatever state it is in; idempotent."""
        ...
