"""The process around a command: usable streams, and one line and an exit code for every error.

An unexpected error is recorded in the state folder and ends with exit code 70, or with 1 when it cannot be recorded.
"""

from __future__ import annotations

import gc
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from rotary_batch import interrupts, json_answer
from rotary_batch.crashes import crash_file, described, understood
from rotary_batch.errors import InputError, RotaryError, StorageError
from rotary_batch.terminal import shown

INTERNAL, CRASH = 70, 1


def guarded(command: Callable[[], object]) -> NoReturn:
    """Run a command and end the process with its exit code."""
    interrupts.stop_at_once()
    _open_streams()
    # Parser processes are `python -c`, which would import modules from the current folder: a repository's own.
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        code = _ended(command)
        interrupts.ignore()
    except interrupts.Interrupt:  # no second one is raised
        code = _fail(interrupts.stopped(), interrupts.WORK_REMAINS)
        interrupts.ignore()
    gc.freeze()  # the interpreter's last search for cycles took 0.09 s after an index of 185,000 symbols
    sys.exit(_flush(code))


def _ended(command: Callable[[], object]) -> int:
    """Run a command; returns its exit code.  An Interrupt may come out, also while an error is explained."""
    try:
        with suppress(BrokenPipeError):  # the reader of stdout has closed it
            _require_folder()
            command()
    except SystemExit as done:
        # Typer exits with 1 when stdout was closed.
        code = 0 if isinstance(done.__context__, BrokenPipeError) else _number(done.code)
        if (message := getattr(done.__context__, "format_message", None)) is not None:  # Typer has said it
            json_answer.print_error(message(), code)
        return code
    except Exception as error:  # the last place that can report and record it
        if interrupts.came_of_one(error):
            raise interrupts.Interrupt from error
        return _explain(error)
    return 0


def _open_streams() -> None:
    """Point closed streams to /dev/null.  Otherwise the next file that is opened gets their number, and our output."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(descriptor, "w", encoding="utf-8"))
        if getattr(sys, name).isatty():
            setattr(sys, name, interrupts.open_terminal(descriptor, getattr(sys, name)))
        with suppress(AttributeError):  # a stream that a test has replaced
            getattr(sys, name).reconfigure(errors="backslashreplace")  # file names on an ASCII terminal


def _require_folder() -> None:
    try:
        Path.cwd()
    except OSError as error:
        raise InputError(f"the current folder cannot be used: {error.strerror}; change into another one") from error


def _explain(error: Exception) -> int:
    known = understood(error)
    if known is not None:
        return _fail(str(known), known.exit_code)
    try:
        path = crash_file(error)
    except (OSError, RotaryError) as refused:
        return _fail(f"{described(error)} ({_place(error)}); it could not be recorded: {refused}", CRASH)
    advice = f"please report it with {path} (read it first: it can quote paths and code)"
    return _fail(f"{described(error)}; {advice}", INTERNAL)


def _fail(message: str, code: int) -> int:
    """Say what ended the command; returns its exit code."""
    _say(message)
    with suppress(OSError, ValueError):
        sys.stdout.flush()  # rows that were printed come before the error
    json_answer.print_error(message, code)
    return code


def _place(error: Exception) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{Path(last.filename).name}:{last.lineno}"


def _say(text: str) -> None:
    """One line on stderr, if that can be written to."""
    with suppress(OSError):
        print(f"rotary-batch: {shown(text)}", file=sys.stderr, flush=True)  # noqa: T201 - the last printer


def _flush(code: int) -> int:
    """Flush the streams.  If the interpreter did it, an error would give exit code 120 and a traceback."""
    for stream, descriptor in ((sys.stdout, 1), (sys.stderr, 2)):
        try:
            stream.flush()
        except BrokenPipeError:
            _to_nowhere(descriptor)
        except OSError as error:
            _to_nowhere(descriptor)
            if descriptor == 1 and code in {0, 4, 5, 75}:  # the answer did not arrive
                _say(f"standard output: {error.strerror}")
                code = StorageError.exit_code
    return code


def _to_nowhere(descriptor: int) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


def _number(code: object) -> int:
    return code if isinstance(code, int) else 0 if code is None else CRASH
