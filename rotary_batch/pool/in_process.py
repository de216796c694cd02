"""An engine in this process.  An error that it cannot explain counts as its death; a crash ends the run."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from rotary_batch.core import Request, StepReport
from rotary_batch.errors import RotaryError
from rotary_batch.model.rates import Rates
from rotary_batch.pool.hosted import EngineDiedError, Opener, Phase, RatedEngine
from rotary_batch.pool.pool import Pool, wait_for_any


class LocalEngine:
    """Implements `HostedEngine` by calls."""

    is_ready, node = True, ""

    def __init__(self, engine: RatedEngine) -> None:
        self._engine = engine

    @property
    def rates(self) -> Rates | None:
        """As of the engine."""
        return self._engine.rates

    def use_rates(self, rates: Rates) -> None:
        """As of the engine."""
        self._engine.use_rates(rates)

    def has_room(self, request: Request) -> bool:
        """As of the engine."""
        return self._engine.has_room(request)

    def admit(self, request: Request) -> None:
        """As of the engine."""
        self._engine.admit(request)

    def begin_step(self) -> None:
        """The step begins when its end is asked for."""

    def end_step(self) -> StepReport:
        """Take the step."""
        with _deaths():
            return self._engine.step()

    def drop(self, request_ids: Collection[int]) -> None:
        """As of the engine."""
        self._engine.drop(request_ids)

    def close(self) -> None:
        """As of the engine."""
        self._engine.close()


@contextmanager
def _deaths() -> Iterator[None]:
    try:
        yield
    except (RotaryError, OSError):  # the model or the machine is to blame
        raise
    except Exception as error:
        raise EngineDiedError(f"{type(error).__name__}: {error}", error) from error


def in_process_pool(
    opener: Callable[[], Opener],
    *,
    phase: Phase = lambda _: None,
    free: Callable[[], None] = lambda: None,
    opening: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Pool:
    """One engine in this process.  `opener` is asked before each opening how to open it."""
    return Pool(open_engine=lambda: LocalEngine(opener()(phase)), wait=wait_for_any, free=free, opening=opening)
