"""Tell systemd how a run is: that it began, what it does, and that it is not stuck (sd_notify(3)).

Without `NOTIFY_SOCKET`, which systemd sets for a unit of `Type=notify`, nothing is opened.  With it, each message is
one datagram to that address: a path, or a name that begins with `@` (Linux's abstract names).  systemd ends a unit that
has not sent `WATCHDOG=1` for `WatchdogSec=`, so only what does the work may send it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

_EVERY_S = 1.0  # a step may take a millisecond
_MICROSECOND = 1e-6


class Notifier:
    """The messages of this process."""

    def __init__(self, environment: Mapping[str, str], clock: Callable[[], float] = time.monotonic) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = address if address[:1] in {"/", "@"} else ""
        self._every_s = _EVERY_S
        watched = environment.get("WATCHDOG_USEC", "")
        self._is_watched = watched.isascii() and watched.isdigit() and self._is_own(environment.get("WATCHDOG_PID"))
        if self._is_watched:
            self._every_s = min(_EVERY_S, int(watched) * _MICROSECOND / 4)
        self._clock, self._said_at, self._is_ready = clock, float("-inf"), False

    @staticmethod
    def _is_own(pid: str | None) -> bool:
        return pid in {None, str(os.getpid())}

    def alive(self, status: Callable[[], str]) -> None:
        """The work goes on; `status` is what it is at.  Sent once a second at most, the first time with `READY=1`."""
        if not self._address:
            return
        now = self._clock()
        if now - self._said_at < self._every_s:
            return
        self._said_at = now
        lines = [f"STATUS={status()}"]
        lines += ["WATCHDOG=1"] if self._is_watched else []
        lines += [] if self._is_ready else ["READY=1"]
        self._is_ready = True
        self._send("\n".join(lines))

    def _send(self, text: str) -> None:
        import socket  # here, because few runs need it

        address = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:  # systemd may be restarting
            one.sendto(text.encode(errors="backslashreplace"), socket.MSG_DONTWAIT, address)
