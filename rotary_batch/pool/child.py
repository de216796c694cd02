"""The process of one engine: opens it, then answers one request after the other.

It knows neither the database nor a repository.  What comes in was pickled by its parent, what goes out by itself; both
are values of `core`, rates and texts.
"""

from __future__ import annotations

import ctypes
import os
import signal
import traceback
from multiprocessing.connection import Connection
from typing import Any

from rotary_batch.errors import RotaryError
from rotary_batch.log import send_events
from rotary_batch.pool.hosted import Opener, RatedEngine

# Kinds of messages to the parent.  An answer, an error or a death ends a request; the others may come before.
ANSWER, ERROR, DEATH, PHASE, EVENT = "answer", "error", "death", "phase", "event"
_PR_SET_PDEATHSIG = 1


def serve(connection: Connection, opener: Opener, parent_pid: int) -> None:
    """Answer until the parent closes the connection; an error that nothing explains ends the process."""
    _die_with(parent_pid)
    send_events(lambda name, fields: connection.send((EVENT, (name, fields))))
    try:
        engine = _open(connection, opener)
        while engine is not None:
            name, arguments = connection.recv()
            connection.send(_answered(engine, name, arguments))
    except (EOFError, ConnectionError):  # the parent is gone, or wants no more
        pass
    except Exception as error:  # noqa: BLE001 - the parent is told, and replaces the engine
        connection.send((DEATH, without_types(error)))


def without_types(error: Exception) -> Exception:
    """The error, of a type that the parent has too, with the traceback as a note."""
    plain = error if type(error).__module__ == "builtins" else RuntimeError(f"{type(error).__name__}: {error}")
    plain.add_note(f"In the process of the engine:\n{''.join(traceback.format_exception(error))}")
    return plain


def _open(connection: Connection, opener: Opener) -> RatedEngine | None:
    """Open the engine and say so; None when it cannot be opened."""
    try:
        engine = opener(lambda text: connection.send((PHASE, text)))
    except (RotaryError, OSError) as error:
        connection.send((ERROR, error))
        return None
    connection.send((ANSWER, engine.rates))
    return engine


def _answered(engine: RatedEngine, name: str, arguments: tuple[Any, ...]) -> tuple[str, Any]:
    try:
        return ANSWER, getattr(engine, name)(*arguments)
    except (RotaryError, OSError) as error:
        return ERROR, error


def _die_with(parent_pid: int) -> None:
    """A parent that is killed takes this process with it, or it would keep the device until its step has ended."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:  # it was killed before
        os._exit(1)
