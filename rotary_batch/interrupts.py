"""What Ctrl-C, SIGTERM and the end of the terminal do before a command has a `Window`, and what is said then."""

from __future__ import annotations

import errno
import io
import os
import shlex
import signal
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING, NoReturn, TextIO

from rotary_batch import json_answer
from rotary_batch.terminal import shown

if TYPE_CHECKING:
    from typing_extensions import Buffer

WORK_REMAINS, INTERRUPTED_TWICE = 75, 130
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_CLEAR_LINE, _SHOW_CURSOR = "\r\x1b[2K", "\x1b[?25h"


class Interrupt(BaseException):
    """Raised by the handler of a `Window`.

    Not a KeyboardInterrupt: when one comes out of `exec`, as `dataclass` calls it, the interpreter remembers that and
    kills itself with SIGINT at the end, even if it was caught.
    """


def came_of_one(error: BaseException | None) -> bool:
    """Whether an error is an Interrupt, or Python 3.11 made it of one: from `__set_name__` comes a RuntimeError."""
    while error is not None and not isinstance(error, Interrupt):
        error = error.__cause__
    return error is not None


def stop_at_once() -> None:
    """From now on these signals end the process with one line.

    No exception is raised, because it could come out anywhere: in the middle of an import, or in a destructor, where
    the interpreter prints a traceback.  What a command stores is safe from a kill, so this loses no more than that.
    """
    for number in SIGNALS:
        if not _is_unheard(number):
            signal.signal(number, _stop)


def _is_unheard(number: signal.Signals) -> bool:
    """Whether `nohup` started us: then the end of the terminal ends nothing."""
    return number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN


def heard() -> list[signal.Signals]:
    """The signals that stop a command."""
    return [number for number in SIGNALS if not _is_unheard(number)]


def unwind() -> None:
    """From now on, when the program is imported, the first signal raises Interrupt: temporary folders are removed.

    Within another program, such as a test, its own handlers stay.
    """
    for number in SIGNALS:
        if signal.getsignal(number) is _stop:
            signal.signal(number, _raise)


def _raise(signum: int, _frame: FrameType | None) -> None:
    if signum == signal.SIGHUP:
        leave_terminal()
    raise_no_more()
    raise Interrupt


def raise_no_more() -> None:
    """After the first signal: a second Ctrl-C ends the process at once, and no other signal does anything.

    No handler raises any more, since the program may be where nothing would catch that.
    """
    for number in SIGNALS:
        if signal.getsignal(number) is _raise:
            signal.signal(number, _quit if number == signal.SIGINT else signal.SIG_IGN)


def _quit(_signum: int, _frame: FrameType | None) -> None:
    quit_now()


def ignore() -> None:
    """The command is over and its exit code is known, so that a late signal changes nothing."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def kept_from_new_threads() -> Iterator[None]:
    """Threads and processes that are started in this block get none of the signals: the main thread does."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def leave_terminal() -> None:
    """Once the terminal is gone, print to nowhere: every write to it would fail, and end the run."""
    for descriptor in (1, 2):
        if stat.S_ISCHR(os.fstat(descriptor).st_mode) and not os.isatty(descriptor):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, descriptor)
            os.close(nowhere)


class _Terminal(io.FileIO):
    """The terminal of a stream.  When it is gone, a write may fail before its signal is handled."""

    def write(self, data: Buffer, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            leave_terminal()
            return memoryview(data).nbytes


def open_terminal(descriptor: int, stream: TextIO) -> TextIO:
    """A stream as another one, to the same terminal, which prints to nowhere once that is gone."""
    raw = _Terminal(descriptor, "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding=stream.encoding, errors="backslashreplace", line_buffering=True
    )


def _stop(signum: int, _frame: FrameType | None) -> None:
    if signum == signal.SIGHUP:
        leave_terminal()
    _end(stopped(), WORK_REMAINS)


def quit_now() -> NoReturn:
    """End the process at a second SIGINT."""
    _end(f"quit at once; nothing stored is lost, and {how_to_go_on()}", INTERRUPTED_TWICE)


def _end(text: str, code: int) -> NoReturn:
    """End the process without any clean-up."""
    say(f"rotary-batch: {text}")
    json_answer.print_error(text, code)
    os._exit(code)


def stopped() -> str:
    """What the first signal is answered with."""
    return f"stopped before the work was done; {how_to_go_on()}"


def how_to_go_on() -> str:
    """The command as it was typed."""
    return f"`{shown(shlex.join(['rotary-batch', *sys.argv[1:]]))}` continues from there"


def say(text: str) -> None:
    """Lines on stderr, in place of the progress bar; past `sys.stderr`, since a signal may come while it writes."""
    with suppress(OSError):
        os.write(2, f"{_CLEAR_LINE + _SHOW_CURSOR if os.isatty(2) else ''}{text}\n".encode())
