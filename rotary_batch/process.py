"""The process around a command: its streams can be written to, and whatever happens ends in one line and an exit code.

An error that nobody foresaw is recorded in the state folder (exit code 70); only where that fails as well it is 1.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import NoReturn

from rotary_batch import __version__, private_file
from rotary_batch.config import state_dir
from rotary_batch.errors import InputError, RotaryError, StorageError, UnavailableError, storage_error
from rotary_batch.terminal import shown

INTERNAL, CRASH, INTERRUPTED = 70, 1, 130
_NO_MEMORY = "not enough memory; allow more (`ulimit -v`, the limit of the container), or use less: --device-memory 1GB"
_NO_THREADS = "no more threads or processes are allowed here; raise `ulimit -u`, or set OMP_NUM_THREADS=1"
_NO_FILES = "too many open files; raise `ulimit -n`"
# How torch and the interpreter say in a RuntimeError what has no type of its own.
_LACKS = {
    "can't start new thread": _NO_THREADS,
    "can't allocate memory": _NO_MEMORY,
    "not enough memory": _NO_MEMORY,
    "out of memory": _NO_MEMORY,
    "bad_alloc": _NO_MEMORY,
    "Cannot allocate memory": _NO_MEMORY,
}


def guarded(command: Callable[[], object]) -> NoReturn:
    """Run a command and end the process with its exit code."""
    _open_streams()
    # A parser process is `python -c`, which looks for modules in the current folder first: the repository's own.
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        with suppress(BrokenPipeError):  # who reads us has seen enough
            _require_folder()
            command()
        code = 0
    except SystemExit as done:
        # Typer ends with 1 when its reader left.
        code = 0 if isinstance(done.__context__, BrokenPipeError) else _number(done.code)
    except KeyboardInterrupt:
        code = INTERRUPTED
    except Exception as error:  # noqa: BLE001 - the last place where it can be said and recorded
        code = _explain(error)
    sys.exit(_flush(code))


def _open_streams() -> None:
    """A stream that was closed leads nowhere: else the next file that is opened takes its number and gets our words."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(descriptor, "w", encoding="utf-8"))
        with suppress(AttributeError):  # a stream that a test put there
            getattr(sys, name).reconfigure(errors="backslashreplace")  # names of files in a terminal of ASCII


def _require_folder() -> None:
    try:
        Path.cwd()
    except OSError as error:
        raise InputError(f"the current folder cannot be used: {error.strerror}; change into another one") from error


def _explain(error: Exception) -> int:
    known = understood(error)
    if known is not None:
        _say(str(known))
        return known.exit_code
    what = f"{type(error).__name__}: {error}"
    try:
        path = _record(error)
    except (OSError, RotaryError) as refused:
        _say(f"a bug: {what} ({_place(error)}); it could not be recorded: {refused}")
        return CRASH
    _say(f"a bug: {what}; please report it with {path}")
    return INTERNAL


def understood(error: BaseException) -> RotaryError | None:
    """The error as one of ours, or None for a bug."""
    if isinstance(error, RotaryError):
        return error
    if isinstance(error, MemoryError):
        return UnavailableError(_NO_MEMORY)
    lack = next((words for fact, words in _LACKS.items() if fact in str(error)), None)
    if isinstance(error, RuntimeError | ImportError) and lack:
        return UnavailableError(lack)
    if isinstance(error, ImportError):
        return UnavailableError(f"{error.name or 'a library'} cannot be loaded: {error}; install the package again")
    if isinstance(error, OSError):
        return _refusal(error)
    return None


def _refusal(error: OSError) -> RotaryError:
    if error.errno == errno.ENOMEM:
        return UnavailableError(_NO_MEMORY)
    if error.errno == errno.EAGAIN:
        return UnavailableError(_NO_THREADS)
    if error.errno in {errno.EMFILE, errno.ENFILE}:
        return StorageError(_NO_FILES)
    return storage_error(error)


def _record(error: Exception) -> Path:
    folder = state_dir(os.environ) / "crashes"
    path = folder / f"{datetime.now().astimezone().strftime('%Y-%m-%d-%H%M%S')}-{os.getpid()}.txt"
    trace = "".join(traceback.format_exception(error))
    private_file.write(path, f"rotary-batch {__version__}, Python {sys.version}\n{sys.argv!r}\n\n{trace}")
    return path


def _place(error: Exception) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{Path(last.filename).name}:{last.lineno}"


def _say(text: str) -> None:
    """One line on stderr, if that can be written to."""
    with suppress(OSError):
        print(f"rotary-batch: {shown(text)}", file=sys.stderr, flush=True)  # noqa: T201 - the last printer


def _flush(code: int) -> int:
    """Write out what is buffered; the interpreter would end with 120 and a traceback."""
    for stream, descriptor in ((sys.stdout, 1), (sys.stderr, 2)):
        try:
            stream.flush()
        except BrokenPipeError:
            _to_nowhere(descriptor)
        except OSError as error:
            _to_nowhere(descriptor)
            if descriptor == 1 and code in {0, 4, 5, 75}:  # an answer that did not arrive is no answer
                _say(f"standard output: {error.strerror}")
                code = StorageError.exit_code
    return code


def _to_nowhere(descriptor: int) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


def _number(code: object) -> int:
    return code if isinstance(code, int) else 0 if code is None else CRASH
