"""Engines in processes of their own: one that crashes, runs out of memory or hangs does not take the run with it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import struct
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from multiprocessing import connection as connections
from multiprocessing import resource_tracker
from typing import Any

from rotary_batch.core import Request, StepReport
from rotary_batch.interrupts import kept_from_new_threads
from rotary_batch.log import relay
from rotary_batch.model.rates import Rates
from rotary_batch.pool.child import ANSWER, DEATH, ERROR, EVENT, PHASE, serve
from rotary_batch.pool.hosted import EngineDiedError, HostedEngine, Opener, Phase
from rotary_batch.pool.pool import Pool
from rotary_batch.pool.watchdog import Watchdog

_END_S = 5.0  # until the exit code of a process is there whose end of the pipe is closed


class ChildEngine:
    """Implements `HostedEngine` with a process that `serve`s.  Raises EngineDiedError, and what opening raises."""

    is_ready, node = True, ""

    def __init__(self, opener: Opener, watchdog: Watchdog, phase: Phase) -> None:
        self._watchdog, self._phase = watchdog, phase
        self._step_deadline = 0.0
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        _limit_sending(self.connection, watchdog.least_s)
        self._process = context.Process(target=serve, args=(theirs, opener, os.getpid()), daemon=True)
        try:
            resource_tracker.ensure_running()  # `start` would do so, and unblock signals when it has
            with kept_from_new_threads():  # Ctrl-C reaches the child too; the parent decides when it ends
                self._process.start()
            theirs.close()
            self.rates: Rates | None = self._receive(watchdog.open_s)
        except BaseException:
            self.close()
            raise

    def use_rates(self, rates: Rates) -> None:
        """Compute the roofline from these from now on."""
        self.rates = rates
        self._ask("use_rates", rates)

    def has_room(self, request: Request) -> bool:
        """Whether `admit` would take the request now."""
        return bool(self._ask("has_room", request))

    def admit(self, request: Request) -> None:
        """Take a request."""
        self._ask("admit", request)

    def begin_step(self) -> None:
        """Start a step."""
        self._step_limit_s = self._watchdog.step_s
        self._step_deadline = time.monotonic() + self._step_limit_s
        self._send("step")

    def end_step(self) -> StepReport | None:
        """What the step did; None while it goes on."""
        if not self.connection.poll(0) and time.monotonic() < self._step_deadline:
            return None
        report: StepReport = self._receive(self._step_limit_s, self._step_deadline)
        self._watchdog.note_step(report.step_s)
        return report

    @property
    def left_s(self) -> float:
        """Until the step counts as hung."""
        return max(0.0, self._step_deadline - time.monotonic())

    def drop(self, request_ids: Collection[int]) -> None:
        """Forget live sequences."""
        self._ask("drop", set(request_ids))

    def close(self) -> None:
        """Kill the process: nothing in it has to be saved, and one that hangs would not listen."""
        if self._process.pid is not None:
            self._process.kill()
            self._process.join()
        self.connection.close()

    def _ask(self, name: str, *arguments: object) -> Any:  # noqa: ANN401
        self._send(name, *arguments)
        return self._receive(self._watchdog.least_s)

    def _send(self, name: str, *arguments: object) -> None:
        try:
            self.connection.send((name, arguments))
        except BlockingIOError as error:
            raise EngineDiedError(f"it did not listen for {self._watchdog.least_s:.0f} s") from error
        except OSError as error:
            raise EngineDiedError(self._how_it_ended()) from error

    def _receive(self, limit_s: float, deadline: float | None = None) -> Any:  # noqa: ANN401
        """The answer to what was asked.  Raises the error that came instead, EngineDiedError when none comes."""
        deadline = time.monotonic() + limit_s if deadline is None else deadline
        while True:
            kind, value = self._message(limit_s, deadline)
            if kind == ANSWER:
                return value
            if kind == ERROR:
                raise value
            if kind == DEATH:
                raise EngineDiedError(f"{type(value).__name__}: {value}", value)
            if kind == PHASE:
                self._phase(value)
            if kind == EVENT:
                relay(*value)

    def _message(self, limit_s: float, deadline: float) -> tuple[str, Any]:
        try:
            if not self.connection.poll(max(0.0, deadline - time.monotonic())):
                raise EngineDiedError(f"it gave no answer for {limit_s:.0f} s")
            kind, value = self.connection.recv()
        except (EOFError, OSError) as error:
            raise EngineDiedError(self._how_it_ended()) from error
        return kind, value

    def _how_it_ended(self) -> str:
        self._process.join(_END_S)
        code = self._process.exitcode
        if code is None:
            return "its process closed the connection"
        with suppress(ValueError):
            return f"its process was ended by {signal.Signals(-code).name}"
        return f"its process ended with exit code {code}"


def _limit_sending(connection: connections.Connection, limit_s: float) -> None:
    """A process that does not read must not block its parent for ever, once the buffer between them is full."""
    end = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, os.dup(connection.fileno()))
    seconds, fraction = divmod(limit_s, 1.0)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(seconds), int(fraction * 1e6)))
    end.close()


def wait_for_children(engines: Sequence[HostedEngine]) -> None:
    """Until one of them says something, or has had its time."""
    children = [one for one in engines if isinstance(one, ChildEngine)]
    connections.wait([one.connection for one in children], timeout=min(one.left_s for one in children))


def subprocess_pool(
    opener: Callable[[], Opener],
    *,
    num_engines: int = 1,
    watchdog: Watchdog | None = None,
    phase: Phase = lambda _: None,
    opening: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> Pool:
    """Engines in processes.  `opener` is asked before each opening how to open one."""
    watchdog = watchdog or Watchdog()
    return Pool(
        open_engine=lambda: ChildEngine(opener(), watchdog, phase),
        wait=wait_for_children,
        num_engines=num_engines,
        opening=opening,
    )
