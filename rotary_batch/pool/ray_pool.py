"""Engines on other machines, each in an actor of a Ray cluster.

The driver alone has the database: a node gets token ids and parameters, and sends tokens back.  Ray restarts nothing
and asks nothing twice (`max_restarts=0`, `max_task_retries=0`).  What a lost node had goes back to the queue with the
tokens that it had reported; whatever it would still send is never read.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from typing import Any

from rotary_batch.core import NodeStep, Request, StepReport
from rotary_batch.log import relay
from rotary_batch.model.rates import Rates
from rotary_batch.pool.child import DEATH, ERROR
from rotary_batch.pool.hosted import EngineDiedError, HostedEngine, Opener
from rotary_batch.pool.pool import Pool
from rotary_batch.pool.ray_actor import Bursts, EngineHost, Event, Orders
from rotary_batch.pool.watchdog import Watchdog

FIRST_REQUESTS = 16  # that an engine gets before it has said how many it takes
_LOOK_EVERY_S = 0.1  # whether an engine is open
_MAX_LINE = 200  # characters of a line of an error
_WAIT_S = 1.0  # at most, for a step: signals and deadlines are seen in between


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """What an engine needs of a node.  Ray places one where that is free, and spreads several."""

    num_cpus: float = 0.0
    num_gpus: float = 0.0
    resources: dict[str, float] = field(default_factory=dict)

    def fits(self, node: dict[str, float]) -> int:
        """How many engines fit a node with these resources."""
        wanted = {"CPU": self.num_cpus, "GPU": self.num_gpus, **self.resources}
        return min((int(node.get(name, 0.0) / each) for name, each in wanted.items() if each), default=1)


class RayEngine:
    """Implements `HostedEngine` with an actor that is an `EngineHost`.

    What is admitted or dropped is sent with the next step, so that an item costs no message of its own.  The engine has
    some requests in advance: it fills free places between two reports.  `patience_s` is how long a question waits for
    an engine that still opens.
    """

    def __init__(self, actor: Any, watchdog: Watchdog, patience_s: float) -> None:  # noqa: ANN401 - ray has no types
        self._actor, self._watchdog, self._patience_s = actor, watchdog, patience_s
        self._node_ref = actor.__ray_call__.remote(_node_name)  # before it opens: there once a node has it
        self._opening = actor.open.remote()
        self._open_deadline: float | None = None  # None = no node has it yet, which may take all night
        self._look_at = 0.0
        self.node = ""
        self.rates: Rates | None = None
        self._new: list[Request] = []
        self._dropped: set[int] = set()
        self._new_rates: Rates | None = None
        self._num_live = self._num_waiting = 0  # as of the last report; what waits is part of what is live
        self.step_ref: Any = None
        self._step_deadline = self._step_limit_s = 0.0

    @property
    def is_ready(self) -> bool:
        """Whether it is open.  Raises EngineDiedError, and what opening raises."""
        if self._opening is not None and time.monotonic() >= self._look_at:
            self._look()
        return self._opening is None

    def _look(self) -> None:
        self._look_at = time.monotonic() + _LOOK_EVERY_S
        if not _has_ended([self._opening], self._patience_s):
            self._require_in_time()
            return
        opened = _value(self._opening)
        self.node, self._opening = _plain(self._node_ref), None
        self.rates = opened.rates
        _relay(opened.events)

    def _require_in_time(self) -> None:
        """Raise EngineDiedError when a node takes too long to open it."""
        limit_s = self._watchdog.open_s
        if self._open_deadline is None and _has_ended([self._node_ref], 0.0):
            self._open_deadline = time.monotonic() + limit_s
        if self._open_deadline is not None and time.monotonic() >= self._open_deadline:
            raise EngineDiedError(f"it did not open for {limit_s:.0f} s")

    def use_rates(self, rates: Rates) -> None:
        """Compute the roofline from these from the next step on."""
        self.rates = self._new_rates = rates

    def has_room(self, request: Request) -> bool:
        """Whether it should get another one: it has as many in advance as it works on."""
        in_advance = self._num_waiting + len(self._new)
        return in_advance < max(FIRST_REQUESTS, self._num_live - self._num_waiting)

    def admit(self, request: Request) -> None:
        """Send it with the next step."""
        self._new.append(request)

    def drop(self, request_ids: Collection[int]) -> None:
        """Forget live sequences, before the next step."""
        gone = {one.request_id for one in self._new} & set(request_ids)
        self._new = [one for one in self._new if one.request_id not in gone]
        self._dropped |= set(request_ids) - gone

    def begin_step(self) -> None:
        """Start a burst of revolutions."""
        orders = Orders(requests=tuple(self._new), dropped=frozenset(self._dropped), rates=self._new_rates)
        self._num_live += len(self._new) - len(self._dropped)
        self._new, self._dropped, self._new_rates = [], set(), None
        self._step_limit_s = self._watchdog.step_s
        self._step_deadline = time.monotonic() + self._step_limit_s
        self.step_ref = self._actor.step.remote(orders)

    def end_step(self) -> StepReport | None:
        """What the burst did; None while it goes on."""
        if not _has_ended([self.step_ref], 0.0):
            if time.monotonic() >= self._step_deadline:
                raise EngineDiedError(f"it gave no answer for {self._step_limit_s:.0f} s")
            return None
        burst, self.step_ref = _value(self.step_ref), None
        self._num_live -= len(burst.report.completions) + len(burst.report.failures)
        self._num_waiting = burst.num_waiting
        self._watchdog.note_step(burst.report.step_s)
        _relay(burst.events)
        report: StepReport = burst.report
        return replace(report, nodes=(self._node_step(report),))

    def _node_step(self, report: StepReport) -> NodeStep:
        return NodeStep(
            node=self.node,
            answers=len(report.completions),
            prompt_tokens=report.prefill_tokens,
            generated_tokens=report.decode_tokens,
            step_s=report.step_s,
        )

    def close(self) -> None:
        """Kill the actor: nothing in it has to be saved."""
        import ray

        with suppress(ray.exceptions.RayError, ValueError):  # it is dead, or the cluster is gone
            ray.kill(self._actor, no_restart=True)


def _node_name(_: EngineHost) -> str:
    """The host that an actor is on, and which of its nodes."""
    import socket

    import ray

    return f"{socket.gethostname()}/{ray.get_runtime_context().get_node_id()[:6]}"


def _has_ended(refs: list[Any], timeout_s: float) -> bool:
    import ray

    return bool(ray.wait(refs, num_returns=1, timeout=timeout_s)[0])


def _plain(ref: Any) -> Any:  # noqa: ANN401 - ray has no types
    """What an actor returned.  Raises EngineDiedError when it, its node or the way to it is gone."""
    import ray

    try:
        return ray.get(ref)
    except ray.exceptions.RayError as error:
        raise EngineDiedError(f"{type(error).__name__}: {_gist(str(error))}") from error


def _gist(text: str) -> str:
    """The first and the last line of a message of Ray: what happened, and why.  Its colours are left out."""
    lines = [" ".join(line.split()) for line in re.sub(r"\x1b\[\d+m", "", text).splitlines() if line.strip()]
    return "; ".join(line[:_MAX_LINE] for line in dict.fromkeys([*lines[:1], *lines[-1:]]))


def _value(ref: Any) -> Any:  # noqa: ANN401 - ray has no types
    """The answer of an `EngineHost`.  Raises the error that came instead."""
    kind, value = _plain(ref)
    if kind == ERROR:
        raise value
    if kind == DEATH:
        raise EngineDiedError(f"{type(value).__name__}: {value}", value)
    return value


def _relay(events: list[Event]) -> None:
    for name, fields in events:
        relay(name, fields)


def wait_for_actors(engines: Sequence[HostedEngine]) -> None:
    """Until one of them has ended its step, for a second at most."""
    _has_ended([one.step_ref for one in engines if isinstance(one, RayEngine)], _WAIT_S)


def ray_pool(
    opener: Callable[[], Opener],
    *,
    num_engines: int = 1,
    placement: Placement | None = None,
    watchdog: Watchdog | None = None,
    bursts: Bursts | None = None,
    patience_s: float = 0.0,
    opening: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Pool:
    """Engines in actors of the cluster that this process is connected with.

    `opener` is asked before each opening how to open one.  Engines for which no node has room open when one joins.
    """
    watchdog, bursts, wanted = watchdog or Watchdog(), bursts or Bursts(), placement or Placement(num_cpus=1.0)

    def open_engine() -> RayEngine:
        import ray

        host = ray.remote(EngineHost).options(
            max_restarts=0,
            max_task_retries=0,
            num_cpus=wanted.num_cpus,
            num_gpus=wanted.num_gpus,
            resources=wanted.resources,
            scheduling_strategy="SPREAD",
        )
        return RayEngine(host.remote(opener(), bursts), watchdog, patience_s)

    return Pool(open_engine=open_engine, wait=wait_for_actors, num_engines=num_engines, opening=opening)
