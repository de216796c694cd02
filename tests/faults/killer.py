"""Run the command line and send this process a real SIGKILL at a call of the operating system that changes something.

    python killer.py COUNT rotary-batch-arguments...

COUNT is the number of the call; 0 kills nothing.  When the command ends by itself, it prints `calls N` on stderr.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from pathlib import Path

CHANGING = (
    "write",
    "pwrite",
    "pwritev",
    "fsync",
    "fdatasync",
    "replace",
    "rename",
    "unlink",
    "rmdir",
    "mkdir",
    "ftruncate",
    "truncate",
    "link",
    "posix_fallocate",
    "close",
)
left = int(sys.argv[1])
calls = 0


def aim() -> None:
    global calls  # noqa: PLW0603 - one process, one aim
    calls += 1
    if calls == left:
        os.kill(os.getpid(), signal.SIGKILL)


def wrapped(inner):
    def call(*arguments, **options):
        aim()
        return inner(*arguments, **options)

    return call


class AimedFile(io.FileIO):
    """What `open` makes goes through `os.write` no more than others do."""

    def write(self, data):
        aim()
        return super().write(data)


def opened(file, mode="r", buffering=-1, encoding=None, errors=None, newline=None, closefd=True, opener=None):
    """As `io.open`, for files that are written."""
    if not set(mode) & set("wax+"):
        return plain_open(file, mode, buffering, encoding, errors, newline, closefd, opener)
    raw = AimedFile(file, mode.replace("b", "").replace("t", ""), closefd, opener)
    binary = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
    return binary if "b" in mode else io.TextIOWrapper(binary, encoding, errors, newline, line_buffering=buffering == 1)


plain_open = io.open


def arm() -> None:
    for name in CHANGING:
        setattr(os, name, wrapped(getattr(os, name)))
    import sqlite3

    inner = sqlite3.connect

    def connect(*arguments, factory=sqlite3.Connection, **options):
        class Aimed(factory):
            def execute(self, *arguments):
                aim()
                return super().execute(*arguments)

        return inner(*arguments, factory=Aimed, **options)

    sqlite3.connect = connect
    io.open = opened
    for module in [Path.open.__globals__]:
        module["io"].open = opened


if __name__ == "__main__":  # parser processes import this file too
    arm()
    from rotary_batch.cli import app

    sys.argv = ["rotary-batch", *sys.argv[2:]]
    code: object = 0
    try:
        app()
    except SystemExit as done:
        code = done.code
    sys.stderr.write(f"calls {calls}\n")
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 1)
