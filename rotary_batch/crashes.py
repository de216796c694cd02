"""What an exception means to the user: an error that the program can explain, or a bug, which is recorded in a file."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from datetime import datetime
from pathlib import Path

from rotary_batch import __version__, private_file
from rotary_batch.config import state_dir
from rotary_batch.errors import (
    ENGINE_LIBRARIES,
    RotaryError,
    StorageError,
    UnavailableError,
    engine_missing,
    storage_error,
)

_NO_MEMORY = "not enough memory; allow more (`ulimit -v`, the limit of the container), or use less: --device-memory 1GB"
_NO_THREADS = "no more threads or processes are allowed here; raise `ulimit -u`, or set OMP_NUM_THREADS=1"
_NO_FILES = "too many open files; raise `ulimit -n`"
# Texts of a RuntimeError of torch or the interpreter, for errors that have no type of their own.
_LACKS = {
    "can't start new thread": _NO_THREADS,
    "can't allocate memory": _NO_MEMORY,
    "not enough memory": _NO_MEMORY,
    "out of memory": _NO_MEMORY,
    "bad_alloc": _NO_MEMORY,
    "Cannot allocate memory": _NO_MEMORY,
}


def understood(error: BaseException) -> RotaryError | None:
    """The error as one of ours, or None for a bug."""
    if isinstance(error, RotaryError):
        return error
    if isinstance(error, MemoryError):
        return UnavailableError(_NO_MEMORY)
    lack = next((words for fact, words in _LACKS.items() if fact in str(error)), None)
    if isinstance(error, RuntimeError | ImportError) and lack:
        return UnavailableError(lack)
    if isinstance(error, ModuleNotFoundError) and error.name in ENGINE_LIBRARIES:
        return engine_missing(error.name)
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


def crash_file(error: Exception) -> Path:
    """Record a bug: its traceback and the command line.  Recorded once, whoever asks.  Raises OSError."""
    if (known := vars(error).get("crash_file")) is None:
        folder = state_dir(os.environ) / "crashes"
        known = folder / f"{datetime.now().astimezone().strftime('%Y-%m-%d-%H%M%S')}-{os.getpid()}.txt"
        trace = "".join(traceback.format_exception(error))
        private_file.write(known, f"rotary-batch {__version__}, Python {sys.version}\n{sys.argv!r}\n\n{trace}")
        vars(error)["crash_file"] = known
    return Path(known)


def described(error: BaseException) -> str:
    """A bug in one line."""
    return f"a bug: {type(error).__name__}: {error}"
