"""Answers in JSON on stdout: one line each, and one for the error of a command that has no answer."""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress

_is_answered = False  # whether the line for the answer was printed


def to_json(value: object) -> str:
    """One line of ASCII without control characters."""
    # DEL is the one control character that JSON does not escape.
    return json.dumps(value, ensure_ascii=True, default=str).replace("\x7f", "\\u007f")


def answered() -> None:
    """Record that the answer is printed: no error may follow it on stdout."""
    global _is_answered  # noqa: PLW0603 - of the process, as stdout is
    _is_answered = True


def print_error(message: str, exit_code: int) -> None:
    """Print an error in the place of the answer, if JSON is wanted.

    Past `sys.stdout`, since a signal may come while it writes.
    """
    if _is_answered or not _is_wanted():
        return
    with suppress(OSError):
        os.write(1, f"{to_json({'error': {'message': message, 'exit_code': exit_code}})}\n".encode())
    answered()


def _is_wanted() -> bool:
    """Read from the command line, because that may be what is wrong."""
    arguments = sys.argv[1:]
    return "--json" in arguments[: arguments.index("--") if "--" in arguments else None]
